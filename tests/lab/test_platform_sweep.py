"""A sweep over all projects, against the lab over loopback."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from reconciler.errors import PlatformError, PlatformUnavailable
from reconciler.lab.platform.server import LabPlatform
from reconciler.platform.session_list import (
    ALL_PROJECTS,
    PROJECTS_LIST,
    RunningSessions,
    list_running_sessions,
)
from tests.lab.platform_client import client_of, scripted


@pytest.fixture
async def lab() -> AsyncIterator[LabPlatform]:
    """Three projects, two running sessions and a stopped one in each."""
    async with LabPlatform() as platform:
        for project in ("alpha", "beta", "gamma"):
            platform.add_project(project)
            for number in range(2):
                platform.add_session(f"{project}-{number}", project)
            platform.add_session(f"{project}-stopped", project, phase="Stopped")
        yield platform


EVERY = ["alpha-0", "alpha-1", "beta-0", "beta-1", "gamma-0", "gamma-1"]


def ids(result: RunningSessions) -> list[str]:
    return [session.id for session in result.sessions]


@pytest.mark.parametrize("parallel", [1, 2, 50])
async def test_every_running_session_is_found_once_in_a_stable_order(
    lab: LabPlatform, parallel: int
) -> None:
    async with client_of(lab.url) as client:
        result = await list_running_sessions(client, parallel=parallel)
    assert ids(result) == EVERY
    assert result.projects == ["alpha", "beta", "gamma"]
    assert (result.failures, result.anomalies, result.complete) == ({}, [], True)


async def test_each_page_is_shown_before_the_next_one_is_requested() -> None:
    async with LabPlatform() as lab:
        lab.add_project("alpha")
        for number in range(5):
            lab.add_session(f"alpha-{number}", "alpha")
        lab.add_session("alpha-stopped", "alpha", phase="Stopped")
        shown: list[str] = []
        seen_at_request: list[int] = []
        lab.faults.after_page = lambda: seen_at_request.append(len(shown))
        lab.faults.slow_s = 0.05
        async with client_of(lab.url, page_size=2) as client:
            result = await list_running_sessions(
                client, parallel=1, on_page=lambda rows: shown.extend(row.id for row in rows)
            )
    assert ids(result) == shown == [f"alpha-{number}" for number in range(5)]
    assert seen_at_request[-3:] == [0, 2, 4]  # one answer of projects, three of sessions


async def test_a_page_shows_no_session_of_another_project_and_none_without_one() -> None:
    rows = [
        {"id": "own", "project_id": "alpha", "phase": "Running"},
        {"id": "foreign", "project_id": "beta", "phase": "Running"},
        {"id": "homeless", "phase": "Running", "kube_namespace": "alpha"},
        {"id": "stopped", "project_id": "alpha", "phase": "Stopped"},
    ]

    async def handler(request: web.Request) -> web.Response:
        items = [{"id": "alpha"}] if request.path.endswith("/projects") else rows
        return web.json_response({"total": len(items), "items": items})

    shown: list[str] = []
    async with scripted(handler) as url, client_of(url) as client:
        result = await list_running_sessions(
            client, parallel=1, on_page=lambda found: shown.extend(row.id for row in found)
        )
    assert shown == ["own"]
    assert ids(result) == ["own", "foreign", "homeless"]


async def test_as_many_as_the_bound_and_no_more_are_asked_at_once() -> None:
    now, most = 0, 0
    crowded = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        nonlocal now, most
        if request.path.endswith("/projects"):
            items = [{"id": f"p{number}"} for number in range(20)]
            return web.json_response({"total": 20, "items": items})
        now += 1
        most = max(most, now)
        if now == 3:
            crowded.set()
        await crowded.wait()
        now -= 1
        return web.json_response({"total": 0, "items": []})

    async with scripted(handler) as url, client_of(url) as client:
        await list_running_sessions(client, parallel=3)
    assert most == 3


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
async def test_a_project_that_fails_costs_only_itself(lab: LabPlatform, status: int) -> None:
    lab.faults.project_status["beta"] = status
    async with client_of(lab.url) as client:
        result = await list_running_sessions(client, parallel=2)
    assert ids(result) == [name for name in EVERY if not name.startswith("beta")]
    assert {key: error.status for key, error in result.failures.items()} == {"beta": status}
    assert not result.complete


async def test_many_projects_that_fail_in_a_row_cost_only_themselves(lab: LabPlatform) -> None:
    for number in range(8):
        lab.add_project(f"broken-{number}")
        lab.faults.project_status[f"broken-{number}"] = 500
    async with client_of(lab.url) as client:
        result = await list_running_sessions(client, parallel=1)
    assert ids(result) == EVERY
    assert all(result.failures[f"broken-{number}"].status == 500 for number in range(8))


async def test_once_the_platform_is_unreachable_the_rest_is_not_requested(lab: LabPlatform) -> None:
    for number in range(100):
        lab.add_project(f"more-{number:02}")

    def cut() -> None:
        lab.faults.unreachable = bool(lab.requests["GET /sessions"])

    lab.faults.after_page = cut
    async with client_of(lab.url) as client:
        result = await list_running_sessions(client, parallel=2)
    assert len(result.failures) + 1 >= 102
    assert all(isinstance(error, PlatformUnavailable) for error in result.failures.values())
    assert sum(lab.requests.values()) < 20
    assert not result.complete


async def test_a_broken_projects_list_costs_nothing() -> None:
    async with LabPlatform() as lab:
        for name in EVERY:
            lab.add_session(name, name.split("-")[0])
        lab.faults.project_status["_"] = 500
        async with client_of(lab.url) as client:
            result = await list_running_sessions(client, parallel=4)
    assert ids(result) == EVERY
    assert list(result.failures) == [PROJECTS_LIST]
    assert (result.projects, result.complete) == ([], True)


async def test_projects_that_could_only_be_listed_in_part_are_completed_by_the_list_of_all(
    lab: LabPlatform,
) -> None:
    def fail() -> None:
        lab.faults.project_status["_"] = 503

    lab.faults.after_page = fail
    async with client_of(lab.url, page_size=2) as client:
        result = await list_running_sessions(client, parallel=2)
    assert ids(result) == EVERY
    assert result.projects == ["alpha", "beta"]
    assert list(result.failures) == [PROJECTS_LIST]
    assert (result.complete, result.anomalies) == (True, [])


async def test_sessions_of_projects_that_are_not_listed_are_found_when_none_is(
    lab: LabPlatform,
) -> None:
    for project in ("alpha", "beta", "gamma"):
        lab.remove_project(project)
    async with client_of(lab.url) as client:
        result = await list_running_sessions(client, parallel=2)
    assert ids(result) == EVERY
    assert result.anomalies == ["projects list: empty"]


async def test_when_nothing_answers_the_projects_error_is_raised(lab: LabPlatform) -> None:
    lab.faults.status = 403
    async with client_of(lab.url) as client:
        with pytest.raises(PlatformError, match=r"list projects, page 1: .* 403"):
            await list_running_sessions(client, parallel=2)


async def test_empty_answers_are_said_to_be_empty(lab: LabPlatform) -> None:
    lab.faults.empty = True
    async with client_of(lab.url) as client:
        result = await list_running_sessions(client, parallel=2)
    assert (result.sessions, result.failures) == ([], {})
    assert result.anomalies == [
        "projects list: empty",
        "no running session in any list that was read",
    ]


async def test_a_project_that_cannot_be_sent_is_that_projects_failure(lab: LabPlatform) -> None:
    lab.add_project("de lta")
    async with client_of(lab.url) as client:
        result = await list_running_sessions(client, parallel=2)
    assert ids(result) == EVERY
    assert result.failures["de lta"].reason == "invalid_id"


async def test_a_server_that_ignores_the_project_gives_each_session_once_with_its_own() -> None:
    async def handler(request: web.Request) -> web.Response:
        kinds = {"projects": ["alpha", "beta"], "sessions": ["alpha", "beta", "", "other"]}
        names = kinds[request.path.rsplit("/", 1)[1]]
        if request.path.endswith("/projects"):
            items = [{"id": name} for name in names]
        else:
            items = [{"id": f"s-{p}", "project_id": p, "phase": "Running"} for p in names]
            items += [{"id": "idle", "project_id": "alpha", "phase": "Stopped"}, {"phase": "x"}]
        return web.json_response({"total": len(items), "items": items})

    async with scripted(handler) as url, client_of(url) as client:
        result = await list_running_sessions(client, parallel=2)
    assert [(s.id, s.project_id) for s in result.sessions] == [
        ("s-alpha", "alpha"), ("s-beta", "beta"), ("s-", ""), ("s-other", "other"),
    ]  # fmt: skip
    assert result.anomalies == [
        "'alpha': 2 sessions of another project, as 's-beta' of 'beta'",
        "'alpha': 1 sessions without a project, as 's-' of ''",
        "'alpha': 1 sessions left out, not in phase Running, as 'idle' of 'alpha'",
        "'alpha': 1 items without an ID",
        "'beta': 2 sessions of another project, as 's-alpha' of 'alpha'",
        "'beta': 1 sessions without a project, as 's-' of ''",
        "'beta': 1 sessions left out, not in phase Running, as 'idle' of 'alpha'",
        "'beta': 1 items without an ID",
        "4 sessions in more than one list: 's-alpha' by 'alpha', 'beta'",
    ]
    assert not result.complete


async def test_a_session_in_two_lists_is_taken_from_its_own_projects() -> None:
    async def handler(request: web.Request) -> web.Response:
        project = request.headers["X-Ambient-Project"]
        session = {"id": "s", "project_id": "beta", "phase": "Running", "kube_namespace": project}
        items = [{"id": "alpha"}, {"id": "beta"}, {"id": "gamma"}] if project == "_" else [session]
        return web.json_response({"total": len(items), "items": items})

    async with scripted(handler) as url, client_of(url) as client:
        result = await list_running_sessions(client, parallel=3)
    assert [session.kube_namespace for session in result.sessions] == ["beta"]
    assert "1 sessions in more than one list: 's' by 'alpha', 'beta', 'gamma'" in result.anomalies


async def test_what_was_read_of_a_project_before_it_failed_is_kept(lab: LabPlatform) -> None:
    for number in range(9):
        lab.add_session(f"beta-more-{number}", "beta")

    def fail() -> None:
        if lab.requests["GET /sessions"] >= 1:
            lab.faults.project_status["beta"] = 503

    async with client_of(lab.url, page_size=5) as client:
        lab.remove_project("alpha")
        lab.remove_project("gamma")
        lab.faults.after_page = fail
        result = await list_running_sessions(client, parallel=1)
    assert len(result.sessions) == 5
    assert list(result.failures) == ["beta"]
    assert ALL_PROJECTS not in result.failures
