"""`refresh`, `pause` and `resume` as processes against the lab's API server."""

import asyncio

import pytest

from reconciler.controller.decide.annotations import requests
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.rbac import Rule, User
from reconciler.lab.cluster.fixtures import LabSession
from reconciler.naming import Names
from tests.lab.operator_lab import WRITER, Lab
from tests.unit.controller.build import pod, secret

NAMES = Names()


async def test_refresh_sets_a_new_instant_each_time(lab: Lab) -> None:
    one = lab.add("2AbOne")
    said = [await lab.run("refresh", one.pod, user="writer") for _ in range(2)]
    assert {ended.stdout for ended in said} == {f"pod/{one.pod} refresh requested\n"}
    first = lab.annotation(one, NAMES.requested_at)
    assert first is not None
    assert len(first) == len("2026-01-01T00:00:00.000000Z")
    await lab.run("refresh", "--all", user="writer")
    assert lab.annotation(one, NAMES.requested_at) != first
    owners = {entry["manager"] for entry in lab.pod(one)["metadata"]["managedFields"]}
    assert "token-reconciler-cli" in owners
    assert NAMES.field_manager not in owners


async def test_refresh_goes_on_past_a_pod_that_is_not_there(lab: Lab) -> None:
    one = lab.add("2AbOne")
    ended = await lab.run("refresh", "nosuch", one.pod, user="writer")
    assert (ended.code, ended.stdout) == (6, f"pod/{one.pod} refresh requested\n")
    assert ended.stderr == "reconciler: no pod or session nosuch in namespace team-a\n"


async def test_a_dry_run_sends_no_write(lab: Lab) -> None:
    one = lab.add("2AbOne")
    for verb, done in (
        ("refresh", "refresh requested"),
        ("pause", "paused"),
        ("resume", "resumed"),
    ):
        ended = await lab.run(verb, one.pod, "--dry-run=client", user="reader")
        assert (ended.code, ended.stdout) == (0, f"pod/{one.pod} {done} (dry run)\n")
    assert lab.server.requests["patch", "pods"] == 0


async def test_pause_and_resume_are_undone_by_each_other_and_say_when_idle(lab: Lab) -> None:
    one = lab.add("2AbOne")
    lab.add("2AbTwo", namespace="team-b")
    ended = await lab.run("pause", one.pod, user="writer")
    assert ended.stdout == f"pod/{one.pod} paused\n"
    assert lab.annotation(one, NAMES.paused) == "true"
    again = await lab.run("pause", "--all", "-A", user="writer")
    assert again.lines == [f"pod/{one.pod} is already paused", "pod/session-2abtwo-runner paused"]
    assert (await lab.run("status")).lines[1].split()[3] == "paused"
    ended = await lab.run("resume", one.pod, user="writer")
    assert ended.stdout == f"pod/{one.pod} resumed\n"
    assert lab.annotation(one, NAMES.paused) is None
    idle = await lab.run("resume", one.pod, user="writer")
    assert (idle.code, idle.stdout) == (0, f"pod/{one.pod} is not paused\n")


async def test_resume_names_a_secret_that_is_paused_itself(lab: Lab) -> None:
    one = lab.add("2AbOne", annotations={NAMES.paused: "true"})
    ended = await lab.run("resume", one.pod, user="writer")
    assert f"secret/{one.secret} is paused, too; resume it with: kubectl annotate" in ended.stderr


@pytest.mark.parametrize("may_watch", [True, False], ids=["watching", "listing"])
async def test_wait_ends_when_the_request_is_honoured(lab: Lab, *, may_watch: bool) -> None:
    one = lab.add("2AbOne")
    rules = (*WRITER, Rule(("watch",), ("secrets",))) if may_watch else WRITER
    lab.server.authorizer.users["writer"] = User("writer", rules)
    waiting = asyncio.create_task(lab.run("refresh", one.pod, "--wait", user="writer"))
    await _until_asked(lab, one)
    honour(lab, one)
    ended = await waiting
    assert ended.code == 0
    assert ended.lines[0] == f"pod/{one.pod} refresh requested"
    assert ended.lines[1].startswith(f"pod/{one.pod} refreshed, its token expires in ")


async def test_wait_survives_a_server_that_restarts_and_refuses_every_request_at_first(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = lab.add("2AbOne")
    waiting = asyncio.create_task(lab.run("refresh", one.pod, "--wait", user="writer"))
    await _until_asked(lab, one)
    await lab.server.stop_listening()
    honour(lab, one)
    # Longer than the command waits between two lists.
    monkeypatch.setattr(lab.server, "_unauthorized_s", 2.5)
    await lab.server.listen()
    assert (await waiting).code == 0


async def test_wait_runs_out_of_time_without_a_controller(lab: Lab) -> None:
    one = lab.add("2AbOne")
    ended = await lab.run("refresh", one.pod, "--wait", "--timeout=1s", user="writer")
    assert ended.code == 7
    assert f"timed out after 1s waiting for pod/{one.pod}; find out why: reconciler explain" in (
        ended.stderr
    )
    lab.add("2AbTwo", on_pod={NAMES.paused: "true"})
    paused = await lab.run("refresh", "2AbTwo", "--wait", user="writer")
    assert paused.code == 7
    assert "is paused: its token is refreshed after `resume`" in paused.stderr


@pytest.mark.parametrize(
    ("age_s", "code", "said"),
    [(40.0, 7, "keeps its token: there is no newer one"), (1.0, 0, "refreshed")],
)
async def test_wait_does_not_call_the_old_token_a_refreshed_one(
    lab: Lab, age_s: float, code: int, said: str
) -> None:
    """If the issuer is unreachable, the controller handles a request with its present token."""
    one = lab.add("2AbOne", age_s=age_s)
    held = lab.server.core.get(kinds.SECRETS, one.namespace, one.secret)["metadata"]["annotations"]
    waiting = asyncio.create_task(lab.run("refresh", one.pod, "--wait", user="writer"))
    await _until_asked(lab, one)
    honour(lab, one, **{name: held[name] for name in (NAMES.issued_at, NAMES.expires_at)})
    ended = await waiting
    assert ended.code == code
    assert ended.lines[1].startswith(f"pod/{one.pod} {said}, its token expires in 14m")


@pytest.mark.parametrize("verb", ["refresh", "pause"])
async def test_the_pod_that_counts_is_annotated_whichever_is_named(lab: Lab, verb: str) -> None:
    one = lab.add("2AbOne")
    older = lab.pod(one)
    labels = older["metadata"]["labels"]
    newer = {"metadata": {"name": "zz-newer", "labels": labels}, "spec": older["spec"]}
    lab.server.core.create(kinds.PODS, one.namespace, newer)
    ended = await lab.run(verb, one.pod, user="writer")
    assert ended.code == 0
    assert (
        f"pod/{one.pod} shares its session with pod/zz-newer, which is used instead" in ended.stderr
    )
    assert lab.pod(one)["metadata"].get("annotations", {}) == {}
    found = lab.server.core.get(kinds.PODS, one.namespace, "zz-newer")["metadata"]["annotations"]
    assert set(found) <= {NAMES.requested_at, NAMES.paused}


async def test_of_two_sessions_that_share_a_secrets_name_the_one_without_it_times_out(
    lab: Lab,
) -> None:
    one = lab.add("2AbOne")
    first = lab.pod(one)
    labels = first["metadata"]["labels"] | {NAMES.session_id: "2ABONE"}
    other = {"metadata": {"name": "other", "labels": labels}, "spec": first["spec"]}
    lab.server.core.create(kinds.PODS, one.namespace, other)
    waiting = asyncio.create_task(
        lab.run("refresh", "--all", "--wait", "--timeout=3s", user="writer")
    )
    await _until_asked(lab, one)
    honour(lab, one)
    ended = await waiting
    assert ended.code == 7
    assert f"pod/{one.pod} refreshed" in ended.stdout
    assert "timed out after 3s waiting for pod/other" in ended.stderr


def honour(lab: Lab, session: LabSession, **more: str) -> None:
    """Do what the controller does with a request: a new token, and the request's digest."""
    value = lab.annotation(session, NAMES.requested_at) or ""
    marks = requests(secret(), pod(annotations={NAMES.requested_at: value}))
    lab.write(session, annotations={NAMES.handled_requests: ",".join(marks)} | more)


async def _until_asked(lab: Lab, session: LabSession) -> None:
    async with asyncio.timeout(20):
        while lab.annotation(session, NAMES.requested_at) is None:
            await asyncio.sleep(0.01)
