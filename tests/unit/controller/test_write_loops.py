"""Writes that change nothing or are undone: each is made so often, and no more."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from reconciler.clock import EpochTime, format_utc
from reconciler.controller.decide.competing_writers import ISOLATED
from reconciler.errors import TransportError
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.kinds import PODS, SECRETS
from reconciler.lab.apiserver.write_log import Commit
from reconciler.tokens.token_response import TokenResponse
from tests.unit.controller.test_static_token import Replica
from tests.unit.controller.test_static_token import running as running_replicas
from tests.unit.controller.virtual import (
    INTRUDER,
    NAMES,
    PLATFORM,
    PROJECT,
    US,
    World,
    finished,
    running,
    simulate,
)
from tests.unit.tokens.support import OLD, StaticFile, jwt

SESSIONS = ["2Ab0", "2Ab1", "2Ab2", "2Ab3", "2Ab4"]
BUDGET = 3


def hold(world: World, session_id: str, value: str) -> None:
    """Put a value into a session's Secret, as the platform does."""
    change(world, session_id, {"stringData": {NAMES.secret_key: value}})


def label(world: World, session_id: str, value: str) -> None:
    body = {"metadata": {"annotations": {"example.com/of-others": value}}}
    world.core.patch(SECRETS, PROJECT, NAMES.secret_name(session_id), body, by=INTRUDER)


def change(world: World, session_id: str, body: Mapping[str, Any]) -> None:
    world.core.patch(SECRETS, PROJECT, NAMES.secret_name(session_id), body, by=PLATFORM)


def after_each_write(world: World, act: Callable[[str], object]) -> None:
    """Have somebody act on a Secret's name as soon as we have written it."""

    def react(commit: Commit) -> None:
        if commit.caller == US and commit.kind is SECRETS:
            asyncio.get_running_loop().call_soon(act, commit.object["metadata"]["name"])

    world.core.on_commit.append(react)


def strip(world: World, name: str) -> None:
    body = {"metadata": {"annotations": dict.fromkeys(NAMES.annotations())}}
    world.core.patch(SECRETS, PROJECT, name, body, by=PLATFORM)


def have_admission_strip(world: World) -> None:
    """Have a mutating webhook take our annotations out of each write; there is no other writer."""
    core_patch = world.core.patch

    def patch(kind: Any, namespace: str, name: str, body: Any, **options: Any) -> Any:
        if kind is SECRETS and options.get("by") == US:
            body = body | {"metadata": dict(body["metadata"]) | {"annotations": {}}}
        return core_patch(kind, namespace, name, body, **options)

    world.core.patch = patch  # type: ignore[method-assign, assignment]


def lose_answers(world: World) -> None:
    """Have each write of a Secret carried out, and its answer lost."""
    lost = InjectedFault(TransportError("reset"), applied=True)
    world.faults.rule = lambda verb, plural: (
        lost if (verb, plural) == ("patch", "secrets") else None
    )


def most(commits: list[Commit], window_s: float) -> int:
    """Return the greatest number of writes of one object in any window."""
    found = 0
    for commit in commits:
        name = commit.object["metadata"]["name"]
        times = [c.at for c in commits if c.object["metadata"]["name"] == name]
        found = max(found, sum(commit.at <= at < commit.at + window_s for at in times))
    return found


def test_a_static_token_that_is_there_already_is_written_once() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
            hold(world, session, OLD)
        async with running_replicas(Replica(world, StaticFile(), alone=True)):
            await asyncio.sleep(600)
            assert (len(world.secret_writes()), len(world.pod_writes())) == (5, 10)
            # It is unclear who wrote last in that second; from the next write on it is not.
            for _ in range(100):
                for session in SESSIONS:
                    label(world, session, str(world.clock.monotonic()))
                await asyncio.sleep(1)
            assert len(world.secret_writes()) <= 2 * 5
        assert world.events("competing_writer") == []
        assert world.events("write_without_effect") == []

    simulate(scenario)


def test_an_equal_token_that_another_put_there_long_before_stays_ours_after_others_edit() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
            hold(world, session, OLD)
        await asyncio.sleep(10)
        async with running_replicas(Replica(world, StaticFile(), alone=True)):
            await asyncio.sleep(60)
            for session in SESSIONS:
                label(world, session, "x")
            await asyncio.sleep(600)
            assert len(world.secret_writes()) == 5
            hold(world, SESSIONS[0], "obviously-fake-other")
            await asyncio.sleep(1)
            assert world.token(SESSIONS[0]) == OLD
            assert len(world.secret_writes()) == 6

    simulate(scenario)


@pytest.mark.parametrize("startup", ["all", "stale"])
def test_a_restart_writes_an_equal_static_token_once_more_at_most(startup: str) -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
            hold(world, session, OLD)
        for number in range(5):
            before = len(world.secret_writes())
            replica = Replica(world, StaticFile(), f"replica-0/{number}", alone=True)
            async with running_replicas(replica):
                await asyncio.sleep(100)
            assert len(world.secret_writes()) - before <= 5
        assert world.events("competing_writer") == []

    simulate(scenario, startup=startup)


def test_an_issuer_that_caches_tokens_and_a_platform_that_shares_them_cost_one_write_each() -> None:
    async def scenario(world: World) -> None:
        cached = world.issuer.mint(900)
        world.issuer.mint = lambda ttl_s: cached  # type: ignore[method-assign]
        for session in SESSIONS:
            world.add(session)
            hold(world, session, cached)
        async with running(world):
            await asyncio.sleep(150)
            assert len(world.secret_writes()) == 5
            assert world.events("competing_writer") == []

    simulate(scenario)


def test_a_token_whose_issue_time_is_ahead_is_written_once() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        now_s = int(world.clock.wall())
        static_file = StaticFile(jwt(iat=now_s + 120, exp=now_s + 7200))
        async with running_replicas(Replica(world, static_file, alone=True)):
            await asyncio.sleep(600)
        assert most(world.secret_writes(), 180) == 1
        assert most(world.pod_writes(), 180) == 2

    simulate(scenario)


@pytest.mark.parametrize("behind_s", [62, 3600], ids=["a minute", "an hour"])
def test_a_clock_that_is_behind_an_issuer_that_never_says_the_time(behind_s: int) -> None:
    """The token dies by the issuer's clock, which is what the platform goes by."""

    async def scenario(world: World) -> None:
        async def ask() -> TokenResponse:
            sent_at = world.clock.monotonic()
            now_s = int(world.clock.wall()) + behind_s
            value = jwt(iat=now_s, exp=now_s + 900, jti=str(sent_at))
            return TokenResponse(value, sent_at, sent_at)

        world.source._send_request = ask
        for session in SESSIONS:
            world.add(session)
        async with running(world):
            for second in range(1800):
                await asyncio.sleep(1)
                for session in SESSIONS if second > 2 else ():
                    assert world.remaining_s(session) - behind_s > 90
        assert most(world.secret_writes(), 180) <= BUDGET
        assert most(world.pod_writes(), 180) <= 2 * BUDGET

    simulate(scenario)


def test_who_strips_our_annotations_each_time_is_a_competing_writer() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS[:2]:
            world.add(session)
        after_each_write(world, lambda name: strip(world, name))
        async with running(world):
            await asyncio.sleep(15)
            assert len(world.secret_writes()) <= 2 * 12
            # The token itself is ours and fresh, so no pod need look at it again.
            assert len(world.pod_writes()) == 2 * 2
            await asyncio.sleep(585)
            assert len(world.secret_writes()) <= 2 * 600 / 8
            assert min(world.remaining_s(session) for session in SESSIONS[:2]) > 90
        said = world.events("competing_writer")
        assert [line["what"] for line in said] == ["annotations", "annotations"]

    simulate(scenario)


def test_who_strips_our_annotations_is_a_competing_writer_where_a_proxy_repeats_requests() -> None:
    """Each write is applied, and answered with the 409 to its second request."""

    async def scenario(world: World) -> None:
        world.add("2Ab0")
        repeated = InjectedFault(repeated_s=0.5)
        world.faults.rule = lambda verb, plural: (
            repeated if (verb, plural) == ("patch", "secrets") else None
        )
        after_each_write(world, lambda name: strip(world, name))
        async with running(world):
            await asyncio.sleep(15)
            assert len(world.secret_writes()) <= 12
            await asyncio.sleep(585)
            assert len(world.secret_writes()) <= 600 / 8
            assert world.remaining_s("2Ab0") > 90
        said = world.events("competing_writer")
        assert [line["what"] for line in said] == ["annotations"]

    simulate(scenario)


@pytest.mark.parametrize("life_s", [-1.0, 100.0, 600.0], ids=["past", "near", "later"])
def test_who_edits_the_expiry_each_time_is_a_competing_writer(life_s: float) -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")

        def edit(name: str) -> None:
            expires = format_utc(world.issuer.now_s() + life_s)
            body = {"metadata": {"annotations": {NAMES.expires_at: expires}}}
            world.core.patch(SECRETS, PROJECT, name, body, by=PLATFORM)

        after_each_write(world, edit)
        async with running(world):
            await asyncio.sleep(15)
            assert 2 <= len(world.secret_writes()) <= 12
            assert len(world.pod_writes()) == 2
            await asyncio.sleep(585)
            assert len(world.secret_writes()) <= 600 / 8
            assert world.remaining_s("2Ab0") > 90
        said = world.events("competing_writer")
        assert [line["what"] for line in said] == ["annotations"]

    simulate(scenario)


def test_an_expiry_is_not_believed_that_is_edited_after_a_write_whose_answer_is_lost() -> None:
    """The watch is lost with the answer: it shows the write after its run has failed."""

    async def scenario(world: World) -> None:
        world.add("2Ab0")
        lose_answers(world)

        def drop(commit: Commit) -> None:
            if commit.caller == US and commit.kind is SECRETS:
                world.faults.drop_watches()

        def edit() -> None:
            now_s = world.issuer.now_s()
            edited = {NAMES.issued_at: format_utc(now_s), NAMES.expires_at: format_utc(now_s + 890)}
            change(world, "2Ab0", {"metadata": {"annotations": edited}})

        world.core.on_commit.append(drop)
        async with running(world):
            for _ in range(40):
                await asyncio.sleep(30)
                edit()
                assert world.remaining_s("2Ab0") > 90
            assert len(world.secret_writes()) <= 2 * 40

    simulate(scenario)


def test_who_deletes_the_secret_each_time_is_a_competing_writer() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")

        def delete(name: str) -> None:
            if any(c.object["metadata"]["name"] == name for c in world.secret_writes()[-1:]):
                world.delete_secret("2Ab0")

        async with running(world):
            await finished(world, 1)
            made = world.controller.stats
            for _ in range(120):
                if world.controller.secrets.snapshot():
                    world.delete_secret("2Ab0")
                await asyncio.sleep(1)
            assert ISOLATED < made.created_total <= 30
        said = world.events("competing_writer")
        assert [line["what"] for line in said] == ["secret"]

    simulate(scenario)


def test_annotations_that_admission_never_lets_in_are_written_once_and_said_once() -> None:
    async def scenario(world: World) -> None:
        have_admission_strip(world)
        for session in SESSIONS:
            world.add(session)
        async with running(world):
            await asyncio.sleep(15)
            assert len(world.secret_writes()) <= BUDGET * len(SESSIONS)
            await asyncio.sleep(585)
            assert most(world.secret_writes(), 180) <= BUDGET
            assert min(world.remaining_s(session) for session in SESSIONS) > 90
        assert most(world.pod_writes(), 180) <= 2 * BUDGET
        said = world.events("write_without_effect")
        assert Counter(line["session_id"] for line in said) == dict.fromkeys(SESSIONS, 1)

    simulate(scenario)


@pytest.mark.parametrize("edits", [False, True], ids=["quiet", "edited each second"])
def test_a_secret_whose_managers_are_not_kept_is_written_no_more_than_others(edits: bool) -> None:
    """Whoever sends an empty `managedFields` ends their tracking for good."""

    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
            change(world, session, {"metadata": {"managedFields": []}})
            assert "managedFields" not in world.secret(session)["metadata"]
        async with running(world):
            for second in range(600):
                for session in SESSIONS if edits else ():
                    label(world, session, str(second))
                await asyncio.sleep(1)
            assert most(world.secret_writes(), 180) <= BUDGET
            assert min(world.remaining_s(session) for session in SESSIONS) > 90

    simulate(scenario)


def test_answers_that_are_lost_each_time_repeat_no_write() -> None:
    async def scenario(world: World) -> None:
        now_s = int(world.clock.wall())
        static_file = StaticFile(jwt(iat=now_s + 120, exp=now_s + 7200))
        lose_answers(world)
        for session in SESSIONS:
            world.add(session)
        async with running_replicas(Replica(world, static_file, alone=True)):
            await asyncio.sleep(100)
        assert most(world.secret_writes(), 180) == 1

    simulate(scenario)


@pytest.mark.parametrize(
    ("age_s", "budget"), [(0, BUDGET), (200, 10)], ids=["new tokens", "used tokens"]
)
def test_where_no_write_shows_that_it_was_applied_each_token_is_written_once(
    age_s: int, budget: int
) -> None:
    """Admission strips each write and each answer is lost: retries send the token at hand again.

    The source gives another token each tenth of a life; where less than 0.8 of a life is left of
    each that the issuer gives, each fiftieth.
    """

    async def scenario(world: World) -> None:
        have_admission_strip(world)
        lose_answers(world)
        for session in SESSIONS:
            world.add(session)

        async def ask() -> TokenResponse:
            sent_at, now_s = world.clock.monotonic(), int(world.clock.wall())
            await asyncio.sleep(0.02)
            value = jwt(iat=now_s - age_s, exp=now_s - age_s + 900, jti=str(sent_at))
            return TokenResponse(
                value,
                sent_at,
                world.clock.monotonic(),
                expires_in_s=900.0 - age_s,
                date_s=EpochTime(now_s),
            )

        world.source._send_request = ask
        async with running(world):
            await asyncio.sleep(20)
            for _ in range(880):
                await asyncio.sleep(1)
                assert min(world.remaining_s(session) for session in SESSIONS) > 90
        written = Counter(
            (commit.object["metadata"]["name"], commit.object["data"][NAMES.secret_key])
            for commit in world.secret_writes()
        )
        assert set(written.values()) == {1}
        assert BUDGET <= most(world.secret_writes(), 180) <= budget
        assert world.pod_writes() == []

    simulate(scenario)


def test_a_pod_whose_touch_is_stripped_is_touched_for_each_write_and_no_more() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")

        def react(commit: Commit) -> None:
            if commit.caller == US and commit.kind is PODS:
                body = {"metadata": {"annotations": {NAMES.touched_at: None}}}
                name = commit.object["metadata"]["name"]
                asyncio.get_running_loop().call_soon(
                    lambda: world.core.patch(PODS, PROJECT, name, body, by=PLATFORM)
                )

        world.core.on_commit.append(react)
        async with running(world):
            for second in range(80):
                label(world, "2Ab0", str(second))
                await asyncio.sleep(1)
        assert len(world.secret_writes()) == 1
        assert len(world.pod_writes()) <= 2 * 2

    simulate(scenario)


def test_two_that_overlap_without_election_come_to_agree_on_an_equal_static_token() -> None:
    """Whose it is stays unclear to each until 2 s after the other's first write."""

    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
            hold(world, session, OLD)
        pair = [Replica(world, StaticFile(), f"replica-{n}/1", alone=True) for n in range(2)]
        async with running_replicas(*pair):
            await asyncio.sleep(60)
            assert most(world.secret_writes(), 60) <= 20
            before = len(world.secret_writes())
            await asyncio.sleep(1800)
            assert len(world.secret_writes()) == before

    simulate(scenario)
