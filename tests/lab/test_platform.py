"""The real client against the lab over loopback: each quirk and each fault of the platform."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from reconciler import __version__
from reconciler.errors import (
    InvalidToken,
    IssuerUnavailable,
    PlatformError,
    PlatformRefused,
    PlatformUnavailable,
    RemoteError,
)
from reconciler.lab.platform.server import BASE_PATH, LabPlatform
from reconciler.platform.models import PlatformSession
from tests.lab.platform_client import Tokens, client_of, projects, running_sessions, scripted


@pytest.fixture
async def lab() -> AsyncIterator[LabPlatform]:
    async with LabPlatform() as platform:
        yield platform


def fill(lab: LabPlatform, project: str, count: int) -> set[str]:
    lab.add_project(project)
    names = {f"{project}-{number:04}" for number in range(count)}
    for name in names:
        lab.add_session(name, project)
    return names


async def raw(lab: LabPlatform, path: str, **headers: str) -> tuple[int, Any]:
    """Send a request that no correct client sends."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(lab.url + BASE_PATH + path, headers=headers) as response,
    ):
        if response.content_type == "application/json":
            return response.status, await response.json()
        return response.status, await response.text()


# What the platform answers.


async def test_envelope_counts_the_items_that_came_and_the_rows_that_match(
    lab: LabPlatform,
) -> None:
    fill(lab, "alpha", 7)
    _, body = await raw(lab, "/sessions?page=2&size=5&orderBy=id")
    assert {key: body[key] for key in ("kind", "page", "size", "total")} == {
        "kind": "SessionList", "page": 2, "size": 2, "total": 7,
    }  # fmt: skip
    assert [item["id"] for item in body["items"]] == ["alpha-0005", "alpha-0006"]


@pytest.mark.parametrize(
    ("query", "page", "count"),
    [
        ("page=3&size=5", 3, 0),
        ("page=what&size=5", 0, 5),
        ("size=0", 1, 0),
        ("size=-1", 1, 7),
        ("size=99999", 1, 7),
        ("", 1, 7),
    ],
)
async def test_odd_pages_and_sizes_are_answered_as_the_platform_does(
    lab: LabPlatform, query: str, page: int, count: int
) -> None:
    fill(lab, "alpha", 7)
    status, body = await raw(lab, f"/sessions?{query}")
    assert (status, body["page"], body["size"], body["total"]) == (200, page, count, 7)


async def test_without_an_order_rows_come_in_another_but_the_same_each_time(
    lab: LabPlatform,
) -> None:
    names = fill(lab, "alpha", 20)
    first, second = [
        [item["id"] for item in (await raw(lab, "/sessions"))[1]["items"]] for _ in range(2)
    ]
    assert first == second
    assert first != sorted(names)
    assert set(first) == names


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/sessions?search=phase", {}, 400, "ambient-api-server-21"),
        ("/sessions?search=colour='red'", {}, 500, "ambient-api-server-9"),
        ("/sessions?orderBy=colour", {}, 500, "ambient-api-server-9"),
        ("/sessions", {"X-Ambient-Project": "a b"}, 400, "ambient-api-server-8"),
        ("/sessions?project_id=a'b", {}, 400, "ambient-api-server-8"),
        ("/sessions/none", {}, 404, "ambient-api-server-7"),
    ],
)
async def test_refusals_are_the_platforms_error_json(
    lab: LabPlatform, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    got, body = await raw(lab, path, **headers)
    assert (got, body["kind"], body["code"]) == (status, "Error", code)


async def test_project_comes_from_the_query_then_the_header_then_is_all(lab: LabPlatform) -> None:
    fill(lab, "alpha", 1)
    fill(lab, "beta", 2)
    assert (await raw(lab, "/sessions"))[1]["total"] == 3
    assert (await raw(lab, "/sessions", **{"X-Ambient-Project": "beta"}))[1]["total"] == 2
    path = "/sessions?project_id=alpha"
    assert (await raw(lab, path, **{"X-Ambient-Project": "beta"}))[1]["total"] == 1


async def test_deleted_and_absent_things_are_not_shown(lab: LabPlatform) -> None:
    fill(lab, "alpha", 2)
    lab.remove_session("alpha-0000")
    lab.add_session("loose", "", kube_namespace="")
    assert (await raw(lab, "/sessions/alpha-0000"))[0] == 404
    _, body = await raw(lab, "/sessions/loose")
    assert not {"project_id", "kube_namespace"} & body.keys()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"phase":"Stopped"}', 200),
        ('{"phase":"Asleep"}', 400),
        ("{}", 400),
        ('{"name":"x"}', 400),
        ("[]", 400),
        ("{", 400),
    ],
)
async def test_status_is_written_back_or_refused(lab: LabPlatform, body: str, status: int) -> None:
    lab.add_session("s", "alpha")
    url = f"{lab.url}{BASE_PATH}/sessions/s/status"
    async with aiohttp.ClientSession() as session, session.patch(url, data=body) as response:
        assert response.status == status
    assert lab.phase("s") == ("Stopped" if status == 200 else "Running")


# What the client sends.


async def test_requests_look_as_the_sdks_do() -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response({"total": 0, "items": []})

    async with scripted(handler) as url, client_of(url + "/") as client:
        await projects(client)
        await running_sessions(client, "Alpha_1")
        await running_sessions(client, None)
    search = "search=phase+%3D+%27Running%27"
    assert [request.raw_path.removeprefix(BASE_PATH) for request in seen] == [
        "/projects?orderBy=id&page=1&size=100",
        f"/sessions?orderBy=id&page=1&{search}&size=100",
        f"/sessions?orderBy=id&page=1&{search}&size=100",
    ]
    assert [request.headers.get("X-Ambient-Project") for request in seen] == ["_", "Alpha_1", None]
    for request in seen:
        assert request.headers["Authorization"] == "Bearer synthetic-token-000001"
        assert request.headers["User-Agent"] == f"token-reconciler/{__version__}"
        assert request.headers["Accept"] == "application/json"


@pytest.mark.parametrize(
    "project", ["", "a b", "a/b", "a\r\nX-Forged: 1", "alpha\n", "a'b", "ä", "x" * 64]
)
async def test_a_project_that_no_header_can_carry_is_never_sent(
    lab: LabPlatform, project: str
) -> None:
    async with client_of(lab.url) as client:
        for ask in (running_sessions(client, project), client.session("s", project)):
            with pytest.raises(PlatformError, match="cannot be sent") as caught:
                await ask
            assert not caught.value.transient
    assert not lab.requests


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "a?b", "a\n", "x" * 254])
async def test_a_session_id_that_no_path_can_carry_is_never_sent(
    lab: LabPlatform, name: str
) -> None:
    async with client_of(lab.url) as client:
        with pytest.raises(PlatformError, match="cannot be sent"):
            await client.session(name, "alpha")
    assert not lab.requests


# What the client returns.


async def test_projects_and_running_sessions_are_listed(lab: LabPlatform) -> None:
    fill(lab, "alpha", 2)
    fill(lab, "beta", 1)
    lab.set_phase("alpha-0001", "Stopped")
    async with client_of(lab.url) as client:
        assert await projects(client) == ["alpha", "beta"]
        session = PlatformSession(
            id="alpha-0000", project_id="alpha", phase="Running", kube_namespace=""
        )
        assert await running_sessions(client, "alpha") == [session]
        assert [s.id for s in await running_sessions(client, None)] == ["alpha-0000", "beta-0000"]
        await client.probe()


async def test_one_session_is_returned_in_whatever_phase(lab: LabPlatform) -> None:
    lab.add_session("s", "alpha", phase="Stopped", kube_namespace="ns")
    async with client_of(lab.url) as client:
        session = await client.session("s", "alpha")
        assert session == PlatformSession(
            id="s", project_id="alpha", phase="Stopped", kube_namespace="ns"
        )


async def test_no_such_session_is_the_platforms_404_alone(lab: LabPlatform) -> None:
    async with client_of(lab.url) as client:
        assert await client.session("none", "alpha") is None
        lab.faults.html, lab.faults.status = True, 404
        with pytest.raises(PlatformUnavailable, match="404"):
            await client.session("none", "alpha")


async def test_an_answer_about_another_session_confirms_nothing() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"id": "other", "phase": "Running"})

    async with scripted(handler) as url, client_of(url) as client:
        with pytest.raises(PlatformError, match="another session"):
            await client.session("s", "alpha")


# Tokens.


async def test_a_refused_token_is_replaced_once(lab: LabPlatform) -> None:
    tokens = Tokens()
    lab.verify = lambda token: token == "synthetic-token-000002"
    fill(lab, "alpha", 1)
    async with client_of(lab.url, tokens=tokens) as client:
        assert await projects(client) == ["alpha"]
    assert tokens.asked == [False, True]


async def test_a_token_refused_twice_is_an_error_and_the_platform_is_up() -> None:
    async def refuse(token: str) -> bool:
        return False

    tokens = Tokens()
    async with LabPlatform(refuse) as lab, client_of(lab.url, tokens=tokens) as client:
        for _ in range(3):
            with pytest.raises(PlatformError, match="401") as caught:
                await projects(client)
            assert (caught.value.transient, caught.value.status) == (False, 401)
        assert not client.breaker.is_open
    assert tokens.asked == [False, True] * 3


async def test_without_a_token_nothing_is_sent(lab: LabPlatform) -> None:
    async def none(refused: bool) -> str:
        return ""

    async def never(refused: bool) -> str:
        await asyncio.Event().wait()
        return "too late"

    async def forged(refused: bool) -> str:
        return "token\r\nX-Forged: 1"

    for bearer, error in ((none, IssuerUnavailable), (never, IssuerUnavailable)):
        async with client_of(lab.url, tokens=bearer, limit_s=0.05) as client:
            with pytest.raises(error, match="no token"):
                await projects(client)
    async with client_of(lab.url, tokens=forged) as client:
        with pytest.raises(InvalidToken) as caught:
            await projects(client)
        assert "Forged" not in str(caught.value)
        assert not client.breaker.is_open
    assert not lab.requests


def chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


async def test_no_error_carries_the_token(lab: LabPlatform) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-not-http\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, client_of(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(PlatformUnavailable) as caught:
            await projects(client)
    texts = [f"{error!r} {error} {vars(error)}" for error in chain(caught.value)]
    assert not [text for text in texts if "synthetic" in text]


# Faults.


async def failure_of(url: str, **settings: Any) -> PlatformError:
    """Return what three requests in a row fail with; the breaker must agree with the error.

    They name a project. Where their failures could be that project's own, the probe decides.
    """
    async with client_of(url, **settings) as client:
        failures = []
        for _ in range(3):
            with pytest.raises(PlatformError) as caught:
                await running_sessions(client, "alpha")
            failures.append(caught.value)
        assert len({str(failure) for failure in failures}) == 1
        if client.breaker.is_suspect:
            assert not client.breaker.is_open
            with pytest.raises(PlatformUnavailable):
                await client.probe()
        assert client.breaker.is_open == isinstance(failures[0], PlatformUnavailable)
        assert client.breaker.refuses == isinstance(failures[0], PlatformRefused)
        return failures[0]


@pytest.mark.parametrize(
    ("status", "error", "retry_after_s"),
    [
        (400, PlatformError, None),
        (401, PlatformRefused, None),
        (403, PlatformError, None),
        (404, PlatformError, None),
        (429, PlatformUnavailable, 7.0),
        (500, PlatformUnavailable, None),
        (503, PlatformUnavailable, 7.0),
        (504, PlatformUnavailable, None),
    ],
)
async def test_a_status_is_one_error_and_the_breaker_knows_which(
    lab: LabPlatform, status: int, error: type[PlatformError], retry_after_s: float | None
) -> None:
    lab.faults.status = status
    failure = await failure_of(lab.url)
    assert type(failure) is error
    assert (failure.status, failure.retry_after_s) == (status, retry_after_s)
    assert "fault of the lab" not in str(failure)


async def test_a_web_page_instead_of_json_is_no_answer(lab: LabPlatform) -> None:
    lab.faults.html = True
    failure = await failure_of(lab.url)
    assert isinstance(failure, PlatformUnavailable)
    assert "html" not in str(failure).lower()


async def test_a_cut_connection_is_no_answer(lab: LabPlatform) -> None:
    lab.faults.unreachable = True
    assert isinstance(await failure_of(lab.url), PlatformUnavailable)


async def test_a_hanging_server_costs_the_time_limit(lab: LabPlatform) -> None:
    lab.faults.slow_s = 3600.0
    failure = await failure_of(lab.url, limit_s=0.05)
    assert str(failure).endswith("no answer within 0.05 s")


async def test_a_body_that_never_ends_costs_the_time_limit() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        failure = await failure_of(f"http://127.0.0.1:{port}", limit_s=0.05)
    assert str(failure).endswith("no answer within 0.05 s")


async def test_a_port_without_a_listener_is_no_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        failure = await failure_of(f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert isinstance(failure, PlatformUnavailable)
    assert "cannot connect to 127.0.0.1" in str(failure)


async def test_a_name_that_does_not_resolve_is_no_answer() -> None:
    assert isinstance(await failure_of("http://platform.invalid:8000"), PlatformUnavailable)


async def test_a_redirect_is_not_followed() -> None:
    paths: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=302, headers={"Location": "/login"})

    async with scripted(handler) as url:
        failure = await failure_of(url)
    assert isinstance(failure, PlatformUnavailable)
    assert (failure.status, set(paths)) == (302, {f"{BASE_PATH}/sessions"})


async def test_a_body_larger_than_we_hold_is_given_up() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=b" " * 300_000)

    async with scripted(handler) as url:
        failure = await failure_of(url, max_body_bytes=100_000)
    assert str(failure).endswith("more than 100000 bytes")


async def test_an_answer_after_an_outage_closes_the_breaker(lab: LabPlatform) -> None:
    fill(lab, "alpha", 1)
    lab.faults.unreachable = True
    async with client_of(lab.url) as client:
        for _ in range(3):
            with pytest.raises(RemoteError):
                await client.probe()
        lab.faults.unreachable = False
        assert client.breaker.is_open
        await running_sessions(client, "alpha")
        assert client.breaker.is_open  # that names one project
        await projects(client)
        assert not client.breaker.is_open


async def test_a_platform_that_cannot_be_reached_is_down_whatever_it_was_asked_for(
    lab: LabPlatform,
) -> None:
    lab.faults.unreachable = True
    async with client_of(lab.url) as client:
        for _ in range(3):
            with pytest.raises(RemoteError):
                await client.session("s", "alpha")
        assert client.breaker.is_open


async def test_a_large_row_is_an_answer_to_the_probe(lab: LabPlatform) -> None:
    fill(lab, "alpha", 1)
    async with client_of(lab.url, page_bytes=10) as client:
        await client.probe()
        assert not client.breaker.is_open


async def test_empty_lists_are_empty_and_no_error(lab: LabPlatform) -> None:
    fill(lab, "alpha", 3)
    lab.faults.empty = True
    async with client_of(lab.url) as client:
        assert await projects(client) == []
        assert await running_sessions(client, "alpha") == []


# Pages.


@pytest.mark.parametrize("keyset", ["honoured", "refused", "broken", "ignored"])
@pytest.mark.parametrize("unordered", [False, True])
async def test_every_session_is_found_once_however_the_server_pages(
    lab: LabPlatform, keyset: Any, unordered: bool
) -> None:
    names = fill(lab, "alpha", 23)
    fill(lab, "beta", 4)
    lab.faults.keyset, lab.faults.unordered = keyset, unordered
    async with client_of(lab.url, page_size=5) as client:
        for _ in range(4):
            found = [session.id for session in await running_sessions(client, "alpha")]
            assert len(found) == len(set(found)) == 23
            assert set(found) == names
        assert not client.breaker.is_open


async def test_a_search_that_the_database_refuses_is_no_outage(lab: LabPlatform) -> None:
    fill(lab, "alpha", 12)
    lab.faults.keyset = "broken"
    async with client_of(lab.url, page_size=5) as client:
        await asyncio.gather(*(running_sessions(client, "alpha") for _ in range(8)))
        assert client.breaker.stats().outages_total == 0


async def test_projects_over_many_pages_are_found_once(lab: LabPlatform) -> None:
    for number in range(12):
        lab.add_project(f"project-{number:02}")
    async with client_of(lab.url, page_size=5) as client:
        assert await projects(client) == [f"project-{number:02}" for number in range(12)]
    assert lab.requests["GET /projects"] == 3


async def test_sessions_that_leave_between_pages_hide_no_other(lab: LabPlatform) -> None:
    names = fill(lab, "alpha", 20)
    leaving = iter([f"alpha-{number:04}" for number in range(5)])
    gone: set[str] = set()

    def leave() -> None:
        if name := next(leaving, ""):
            lab.set_phase(name, "Stopped")
            gone.add(name)

    lab.faults.after_page = leave
    async with client_of(lab.url, page_size=5) as client:
        found = [session.id for session in await running_sessions(client, "alpha")]
    assert len(found) == len(set(found))
    assert gone
    assert names - gone <= set(found)


async def test_sessions_that_arrive_between_pages_double_no_other(lab: LabPlatform) -> None:
    names = fill(lab, "alpha", 20)
    arriving = iter([f"aaaa-{number}" for number in range(5)])

    def arrive() -> None:
        if name := next(arriving, ""):
            lab.add_session(name, "alpha")

    lab.faults.after_page = arrive
    async with client_of(lab.url, page_size=5) as client:
        found = [session.id for session in await running_sessions(client, "alpha")]
    assert len(found) == len(set(found))
    assert names <= set(found)


async def test_a_page_that_fails_late_is_an_error_with_what_was_read(lab: LabPlatform) -> None:
    fill(lab, "alpha", 12)

    def fail() -> None:
        lab.faults.status = 503 if lab.requests["GET /sessions"] >= 2 else 0

    lab.faults.after_page = fail
    async with client_of(lab.url, page_size=5) as client:
        listing = await client.list_running("alpha")
        assert len(listing.items) == 10
        assert isinstance(listing.error, PlatformUnavailable)
        lab.faults.status = 0
        with pytest.raises(PlatformUnavailable):
            await running_sessions(client, "alpha")
