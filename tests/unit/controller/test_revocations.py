"""An answer of the platform ends a confirmation, an outage does not; hours of virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from reconciler.clock import Instant
from reconciler.controller.controller import Controller
from reconciler.controller.state.confirmations import REVOKED_AGAIN_S
from reconciler.controller.triggers.revocation_check import UNANSWERED_S
from reconciler.errors import PlatformError, PlatformUnavailable
from reconciler.lab.apiserver.kinds import PODS, SECRETS
from reconciler.leadership.api import NoElection
from reconciler.platform.api import OnPage
from reconciler.platform.models import PlatformSession
from reconciler.platform.pagination import ListResult, ignore_page
from tests.unit.controller.virtual import (
    INTRUDER,
    NAMES,
    PROJECT,
    SwitchFence,
    World,
    running,
    simulate,
)

RESYNC_S = 360.0
LONG_S = 14_400.0
"""Sixteen lives of a token: what is given without end is given often in it."""


async def settled(world: World) -> None:
    async with asyncio.timeout(60):
        while not world.events("startup_resync_finished"):
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)


def populate(world: World, count: int = 3) -> None:
    for number in range(count):
        world.add(f"2Ab{number}")


@asynccontextmanager
async def served(world: World, count: int = 3) -> AsyncIterator[None]:
    """Run the world's controller with `count` sessions; enter after its startup resync."""
    populate(world, count)
    async with running(world):
        await settled(world)
        yield


def writes_to(world: World, session_id: str) -> int:
    """Count the tokens that were written to a session."""
    name = NAMES.secret_name(session_id)
    values = [
        commit.object["data"][NAMES.secret_key]
        for commit in world.secret_writes()
        if commit.object["metadata"]["name"] == name
    ]
    return sum(new != old for new, old in zip(values, ["", *values], strict=False))


def seal_of(world: World, session_id: str) -> str | None:
    found: str | None = world.secret(session_id)["metadata"]["annotations"].get(NAMES.confirmation)
    return found


def put_back(world: World, session_id: str, seal: str | None) -> None:
    body = {"metadata": {"annotations": {NAMES.confirmation: seal}}}
    world.core.patch(SECRETS, PROJECT, NAMES.secret_name(session_id), body, by=INTRUDER)


def successor(world: World, name: str = "replica-1") -> Controller:
    """Return another replica of the same world with an empty memory."""
    fence = SwitchFence()
    fence.term = f"{name}/1"
    return Controller(replace(world.ports, fence=fence), world.endpoints, world.config)


def test_a_session_that_the_platform_deleted_gets_nothing_though_its_pod_is_kept() -> None:
    async def scenario(world: World) -> None:
        async with served(world):
            del world.platform.sessions["2Ab0"]
            await asyncio.sleep(2 * RESYNC_S)
            before = writes_to(world, "2Ab0")
            assert seal_of(world, "2Ab0") is None
            await asyncio.sleep(LONG_S)
            assert writes_to(world, "2Ab0") == before
            assert world.remaining_s("2Ab0") < 0
            assert min(world.remaining_s(f"2Ab{n}") for n in (1, 2)) > 270
        [line] = [each for each in world.events("session_revoked") if "2Ab0" in each.values()]
        assert (line["namespace"], line["log_level"]) == (PROJECT, "warning")

    simulate(scenario)


def test_a_pod_that_comes_back_days_after_its_session_was_deleted_gets_nothing() -> None:
    async def scenario(world: World) -> None:
        async with served(world):
            world.delete_pod("2Ab0")
            del world.platform.sessions["2Ab0"]
            await asyncio.sleep(2 * RESYNC_S)
            before = writes_to(world, "2Ab0")
            assert seal_of(world, "2Ab0") is None
            await asyncio.sleep(LONG_S)
            world.add_pod("2Ab0")
            await asyncio.sleep(LONG_S)
            assert writes_to(world, "2Ab0") == before
        # A replica without memory gives it none either, though no look-up is possible.
        world.platform.unreachable = True
        async with running(world, successor(world)):
            await asyncio.sleep(3600)
            assert writes_to(world, "2Ab0") == before
            assert min(world.remaining_s(f"2Ab{n}") for n in (1, 2)) > 270

    simulate(scenario)


def test_a_session_that_was_deleted_while_no_replica_ran_is_revoked_by_the_next_one() -> None:
    async def scenario(world: World) -> None:
        async with served(world):
            pass
        del world.platform.sessions["2Ab0"]
        await asyncio.sleep(3600)
        async with running(world, successor(world)):
            await asyncio.sleep(RESYNC_S)
            before = writes_to(world, "2Ab0")
            assert before <= 2  # the startup resync needs no platform
            assert seal_of(world, "2Ab0") is None
            await asyncio.sleep(LONG_S)
            assert writes_to(world, "2Ab0") == before

    simulate(scenario)


def test_a_session_that_was_deleted_while_no_replica_ran_gives_a_later_pod_nothing() -> None:
    async def scenario(world: World) -> None:
        async with served(world):
            pass
        world.delete_pod("2Ab0")
        del world.platform.sessions["2Ab0"]
        await asyncio.sleep(3600)  # its token has expired: a write would be made at once
        async with running(world, successor(world)):
            await asyncio.sleep(5)
            before = writes_to(world, "2Ab0")
            world.add_pod("2Ab0")  # long before this one is looked up
            await asyncio.sleep(LONG_S)
            assert writes_to(world, "2Ab0") == before

    simulate(scenario)


def test_a_leader_does_not_rely_on_what_it_knew_in_an_earlier_term() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        directory = world.controller.confirmations
        async with running(world):
            await settled(world)
            pod, secret = world.controller.sessions.objects(world.controller.pods.snapshot()[0].key)
            assert pod is not None
            assert directory.confirmation(pod.key, pod, None).value == "yes"
        del world.platform.sessions["2Ab0"]
        async with running(world, successor(world)):
            await asyncio.sleep(2 * RESYNC_S)
            assert seal_of(world, "2Ab0") is None
        world.platform.unreachable = True
        assert directory.confirmation(pod.key, pod, None).value == "unknown"
        assert (
            directory.confirmation(pod.key, pod, secret).value == "yes"
        )  # by the Secret's confirmation

    simulate(scenario)


class Turns(NoElection):
    """Leads while the test has it lead."""

    def __init__(self) -> None:
        self.is_ours = asyncio.Event()
        self.is_over = asyncio.Event()

    @property
    def leads(self) -> bool:  # type: ignore[override]  # Alone leads always
        return self.is_ours.is_set()

    async def wait_started(self) -> None:
        await self.is_ours.wait()

    async def wait_stopped(self) -> None:
        await self.is_over.wait()


@asynccontextmanager
async def former_leader(world: World) -> AsyncIterator[tuple[Controller, Turns]]:
    """Run a replica that has led, and whose term has ended ten seconds before."""
    populate(world)
    turns = Turns()
    turns.is_ours.set()
    replica = Controller(replace(world.ports, leadership=turns), world.endpoints, world.config)
    async with running(world, replica):
        await settled(world)
        turns.is_ours.clear()
        turns.is_over.set()
        await asyncio.sleep(10)
        yield replica, turns


def test_a_second_term_writes_nothing_to_sessions_that_another_leader_revoked() -> None:
    async def scenario(world: World) -> None:
        async with former_leader(world) as (_, turns):
            before = writes_to(world, "2Ab0")
            put_back(world, "2Ab0", None)  # as the leader in between took it off
            world.platform.unreachable = True
            turns.is_over.clear()
            turns.is_ours.set()
            await asyncio.sleep(3600)
            assert writes_to(world, "2Ab0") == before
            assert min(world.remaining_s(f"2Ab{n}") for n in (1, 2)) > 270

    simulate(scenario)


def test_a_former_leader_counts_no_exposure_of_a_session_that_the_next_one_revoked() -> None:
    async def scenario(world: World) -> None:
        async with former_leader(world) as (replica, _):
            put_back(world, "2Ab0", None)  # as the next leader takes it off
            await asyncio.sleep(1800)
            assert world.remaining_s("2Ab0") < 0
            snapshot = await replica.status_collector.snapshot(max_age_s=0.0)
            exposed = {session.key.session_id for session in snapshot.exposed}
            assert exposed == {"2Ab1", "2Ab2"}  # which nothing serves here

    simulate(scenario)


@pytest.mark.parametrize("with_pod", [True, False])
def test_a_session_that_is_made_again_under_the_same_id_is_served_again(with_pod: bool) -> None:
    async def scenario(world: World) -> None:
        async with served(world):
            row = world.platform.sessions.pop("2Ab0")
            if not with_pod:
                world.delete_pod("2Ab0")
            await asyncio.sleep(3600)
            assert seal_of(world, "2Ab0") is None
            world.platform.sessions["2Ab0"] = row
            if not with_pod:
                world.add_pod("2Ab0")
            await asyncio.sleep(10 if not with_pod else RESYNC_S)
            assert world.remaining_s("2Ab0") > 270
            assert seal_of(world, "2Ab0") is not None
            await asyncio.sleep(3600)
            assert world.remaining_s("2Ab0") > 270

    simulate(scenario)


def test_a_platform_that_was_restored_to_before_its_sessions_gets_them_back_with_them() -> None:
    async def scenario(world: World) -> None:
        async with served(world, 40):
            rows = dict(world.platform.sessions)
            for number in range(1, 40):
                del world.platform.sessions[f"2Ab{number}"]
            await asyncio.sleep(1200)
            assert seal_of(world, "2Ab7") is None
            world.platform.sessions.update(rows)
            await asyncio.sleep(RESYNC_S + 10)
            assert min(world.remaining_s(f"2Ab{n}") for n in range(40)) > 270

    simulate(scenario)


class Silent:
    """What replaces the platform's answer about one session."""

    def __init__(self, error: Exception | None = None, hangs_s: float = 0.0) -> None:
        self._error = error
        self._hangs_s = hangs_s

    async def session(self, session_id: str, project: str | None) -> PlatformSession | None:
        await asyncio.sleep(self._hangs_s)
        if self._error is not None:
            raise self._error
        return None


@pytest.mark.parametrize(
    "silent",
    [
        Silent(PlatformUnavailable("answered 404, not in the platform's words", status=404)),
        Silent(PlatformError("answered 403", status=403)),
        Silent(PlatformUnavailable("no answer within 10 s"), hangs_s=10.0),
    ],
    ids=["a router's 404", "403", "hangs"],
)
def test_what_is_no_answer_about_a_session_revokes_nothing(silent: Silent) -> None:
    async def scenario(world: World) -> None:
        async with served(world, 30):
            world.platform.session = silent.session  # type: ignore[method-assign]
            for number in range(29):
                del world.platform.sessions[f"2Ab{number}"]
            for _ in range(720):
                await asyncio.sleep(10)
                assert min(world.remaining_s(f"2Ab{n}") for n in range(30)) > 180
            assert all(seal_of(world, f"2Ab{n}") for n in range(30))
        assert not world.events("session_revoked")

    simulate(scenario)


def test_an_outage_after_the_list_lacked_a_session_revokes_nothing() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        listed = world.platform.list_running

        async def list_running(
            project: str | None, on_page: OnPage = ignore_page
        ) -> ListResult[PlatformSession]:
            found = await listed(project, on_page)
            world.platform.unreachable = len(found.items) == 2
            return found

        world.platform.list_running = list_running  # type: ignore[method-assign]
        async with running(world):
            await settled(world)
            row = world.platform.sessions.pop("2Ab0")
            await asyncio.sleep(LONG_S)
            assert world.platform.unreachable
            assert min(world.remaining_s(f"2Ab{n}") for n in range(3)) > 270
            world.platform.sessions["2Ab0"], world.platform.unreachable = row, False
            await asyncio.sleep(3600)
            assert min(world.remaining_s(f"2Ab{n}") for n in range(3)) > 270
        assert not world.events("session_revoked")

    simulate(scenario)


def test_one_not_found_revokes_nothing_and_a_found_ends_it() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        asked: list[Instant] = []

        async def session(session_id: str, project: str | None) -> PlatformSession | None:
            asked.append(world.clock.monotonic())
            row = PlatformSession(id=session_id, project_id=PROJECT, phase="Stopped")
            return row if len(asked) % 2 == 0 else None  # every first answer from a stale copy

        async with running(world):
            await settled(world)
            world.platform.session = session  # type: ignore[method-assign]
            del world.platform.sessions["2Ab0"]
            for _ in range(720):
                await asyncio.sleep(10)
                assert world.remaining_s("2Ab0") > 270
        assert len(asked) > 4
        assert not world.events("session_revoked")

    simulate(scenario)


def test_removed_labels_do_not_turn_an_answer_into_not_found() -> None:
    async def scenario(world: World) -> None:
        async with served(world):
            bare = {"metadata": {"labels": {NAMES.project_id: None}}}
            world.core.patch(SECRETS, PROJECT, NAMES.secret_name("2Ab0"), bare, by=INTRUDER)
            world.core.patch(PODS, PROJECT, "session-2ab0-runner", bare, by=INTRUDER)
            stopped = PlatformSession(id="2Ab0", project_id=PROJECT, phase="Stopping")
            world.platform.sessions["2Ab0"] = stopped
            asked: set[str | None] = set()

            async def session(session_id: str, project: str | None) -> PlatformSession | None:
                asked.add(project)
                return world.platform.sessions.get(session_id)

            world.platform.session = session  # type: ignore[method-assign]
            for _ in range(360):
                await asyncio.sleep(10)
                assert world.remaining_s("2Ab0") > 270
        assert asked == {PROJECT}
        assert not world.events("session_revoked")

    simulate(scenario)


@pytest.mark.parametrize("how", ["one project fails", "rows shift"])
def test_an_incomplete_list_causes_no_look_up_and_revokes_nothing(how: str) -> None:
    async def scenario(world: World) -> None:
        listed = world.platform.list_running

        async def list_running(
            project: str | None, on_page: OnPage = ignore_page
        ) -> ListResult[PlatformSession]:
            if project == "team-b" and how == "one project fails":
                raise PlatformError("answered 500", status=500)
            found = await listed(project, on_page)
            return found if project != "team-b" else replace(found, complete=False)

        world.platform.list_running = list_running  # type: ignore[method-assign]
        world.add_project("team-b")
        for number in range(3):
            world.add(f"2Bb{number}", project="team-b")
        async with served(world):
            lookups = world.platform.lookups
            for number in (0, 1):
                del world.platform.sessions[f"2Bb{number}"]
            await asyncio.sleep(LONG_S)
            assert world.platform.lookups == lookups
            for number in range(3):
                assert world.left_s(world.token(f"2Bb{number}", "team-b")) > 270
        assert not world.events("session_revoked")

    simulate(scenario)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("others_run", [True, False])
def test_the_last_session_of_a_project_is_revoked_while_another_project_cannot_be_listed(
    restarted: bool, others_run: bool
) -> None:
    async def scenario(world: World) -> None:
        listed = world.platform.list_running

        async def list_running(
            project: str | None, on_page: OnPage = ignore_page
        ) -> ListResult[PlatformSession]:
            if project == "team-c":
                raise PlatformError("answered 500", status=500)
            return await listed(project, on_page)

        world.platform.list_running = list_running  # type: ignore[method-assign]
        world.add_project("team-b")
        world.add_project("team-c")
        world.add("2Bb0", project="team-b")
        async with served(world):
            if not restarted:
                delete_sessions(world, others_run)
                await asyncio.sleep(LONG_S)
        if restarted:
            delete_sessions(world, others_run)
            async with running(world, successor(world)):
                await asyncio.sleep(LONG_S)
        is_revoked = bool(world.events("session_revoked"))
        has_seal = NAMES.confirmation in world.secret("2Bb0", "team-b")["metadata"]["annotations"]
        is_expired = world.left_s(world.token("2Bb0", "team-b")) < 0
        assert (is_revoked, has_seal, is_expired) == (others_run, not others_run, others_run)

    simulate(scenario)


def delete_sessions(world: World, others_run: bool) -> None:
    """Delete the session of team-b, or every session: empty lists alone say nothing."""
    for session_id in tuple(world.platform.sessions):
        if session_id == "2Bb0" or not others_run:
            del world.platform.sessions[session_id]


def test_a_confirmation_that_a_tenant_restores_has_no_effect_and_is_removed_rarely() -> None:
    async def scenario(world: World) -> None:
        async with served(world):
            seal = seal_of(world, "2Ab0")
            del world.platform.sessions["2Ab0"]
            await asyncio.sleep(2 * RESYNC_S)
            before, tokens = len(world.secret_writes()), writes_to(world, "2Ab0")
            others = writes_to(world, "2Ab1") + writes_to(world, "2Ab2")
            for _ in range(3600):
                put_back(world, "2Ab0", seal)
                await asyncio.sleep(1)
            assert writes_to(world, "2Ab0") == tokens
            others = writes_to(world, "2Ab1") + writes_to(world, "2Ab2") - others
            assert len(world.secret_writes()) - before - others <= 3600 / REVOKED_AGAIN_S + 1

    simulate(scenario)


def test_sessions_that_no_list_has_are_looked_up_at_a_bounded_rate() -> None:
    async def scenario(world: World) -> None:
        populate(world, 200)
        asked: list[Instant] = []

        async def session(session_id: str, project: str | None) -> PlatformSession | None:
            asked.append(world.clock.monotonic())
            return PlatformSession(id=session_id, project_id=PROJECT, phase="Stopped")

        async with running(world):
            await settled(world)
            world.platform.session = session  # type: ignore[method-assign]
            for number in range(199):
                del world.platform.sessions[f"2Ab{number}"]
                world.delete_pod(f"2Ab{number}")
            await asyncio.sleep(3600)
            assert 199 <= len(asked) <= 2 * 199  # each about once an hour
            assert max(sum(at <= each < at + 10 for each in asked) for at in asked) <= 15
        assert not world.events("session_revoked")

    simulate(scenario)


def test_a_confirmation_that_a_tenant_restores_while_there_is_no_pod_does_not_stay() -> None:
    async def scenario(world: World) -> None:
        async with served(world):
            seal = seal_of(world, "2Ab0")
            world.delete_pod("2Ab0")
            del world.platform.sessions["2Ab0"]
            await asyncio.sleep(2 * RESYNC_S)
            for wait_s in (10.0, 10.0, 2 * REVOKED_AGAIN_S):
                assert seal_of(world, "2Ab0") is None
                put_back(world, "2Ab0", seal)
                await asyncio.sleep(wait_s)
                put_back(world, "2Ab0", seal)
                await asyncio.sleep(REVOKED_AGAIN_S + 60)
            assert seal_of(world, "2Ab0") is None
            before = writes_to(world, "2Ab0")
        world.platform.unreachable = True
        async with running(world, successor(world)):
            await asyncio.sleep(60)
            world.add_pod("2Ab0")
            await asyncio.sleep(3600)
            assert writes_to(world, "2Ab0") == before

    simulate(scenario)


@pytest.mark.parametrize(
    "error",
    [PlatformError("this ID cannot be sent", reason="invalid_id"), PlatformUnavailable("a 500")],
    ids=["unsendable", "failing"],
)
def test_a_session_that_cannot_be_looked_up_does_not_delay_the_revocation_of_others(
    error: PlatformError,
) -> None:
    async def scenario(world: World) -> None:
        populate(world, 36)
        ask, asked = world.platform.session, []
        silent = {f"2Ab{number}" for number in range(30)}

        async def session(session_id: str, project: str | None) -> PlatformSession | None:
            asked.append(session_id)
            if session_id in silent:
                raise error
            return await ask(session_id, project)

        async with running(world):
            await settled(world)
            world.platform.session = session  # type: ignore[method-assign]
            for number in range(35):
                world.delete_pod(f"2Ab{number}")
                del world.platform.sessions[f"2Ab{number}"]
            await asyncio.sleep(3 * RESYNC_S)
            assert [n for n in range(36) if seal_of(world, f"2Ab{n}")] == [*range(30), 35]
            # Those without an answer are asked about again, and not without a pause.
            before = len(asked)
            await asyncio.sleep(3600)
            assert 1 <= asked[before:].count("2Ab0") <= 2 * 3600 / UNANSWERED_S

    simulate(scenario)


def test_a_project_label_that_cannot_be_sent_does_not_keep_a_session_from_being_revoked() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        ask = world.platform.session

        async def session(session_id: str, project: str | None) -> PlatformSession | None:
            if project is not None and "." in project:
                raise PlatformError("this ID cannot be sent", reason="invalid_id")
            return await ask(session_id, project)

        world.platform.session = session  # type: ignore[method-assign]
        async with running(world):
            await settled(world)
        del world.platform.sessions["2Ab0"]
        body = {"metadata": {"labels": {NAMES.project_id: "team.a"}}}
        world.core.patch(SECRETS, PROJECT, NAMES.secret_name("2Ab0"), body, by=INTRUDER)
        world.core.patch(PODS, PROJECT, "session-2ab0-runner", body, by=INTRUDER)
        async with running(world, successor(world)):
            await asyncio.sleep(2 * RESYNC_S)
            before = writes_to(world, "2Ab0")
            assert before <= 2  # the startup resync needs no platform
            assert seal_of(world, "2Ab0") is None
            await asyncio.sleep(LONG_S)
            assert writes_to(world, "2Ab0") == before

    simulate(scenario)


def test_a_look_up_that_hangs_delays_no_token_of_a_session_that_was_confirmed() -> None:
    async def scenario(world: World) -> None:
        async with served(world):
            del world.platform.sessions["2Ab0"]

            async def hangs(session_id: str, project: str | None) -> PlatformSession | None:
                await asyncio.Event().wait()
                return None

            world.platform.session = hangs  # type: ignore[method-assign]
            for _ in range(int(LONG_S / 60)):
                await asyncio.sleep(60)
                assert world.remaining_s("2Ab0") > 300

    simulate(scenario, resync_s=RESYNC_S)
