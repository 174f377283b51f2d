"""A static token that is replaced: one write a Secret, under any leader, and never a loop."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from reconciler.clock import EPOCH, EpochTime
from reconciler.controller.compose import connect
from reconciler.controller.controller import Controller
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.runtime import ControllerConfig
from reconciler.lab.apiserver.kinds import SECRETS
from reconciler.leadership.api import LeadershipState
from reconciler.naming import SessionKey
from reconciler.tokens.static import RELOAD_S, StaticSource
from tests.unit.controller.build import is_confirmed
from tests.unit.controller.virtual import NAMES, PLATFORM, PROJECT, SwitchFence, World, simulate
from tests.unit.tokens.support import NEW, OLD, StaticFile, jwt

SESSIONS = 5
SOON_S = 2 * RELOAD_S + 5


async def release_nothing() -> None:
    """Nothing waits for this one to release."""


class Replica:
    """A controller that reads a static_file of its own; it leads between `lead` and `follow`."""

    def __init__(
        self,
        world: World,
        static_file: StaticFile,
        name: str = "replica-0/1",
        *,
        since_s: EpochTime = EPOCH,
        alone: bool = False,
        options: ControllerConfig | None = None,
    ) -> None:
        fence, office = SwitchFence(), LeadershipState(release_nothing)
        fence.term, fence.is_open = name, alone
        source = StaticSource(static_file.read, world.clock, since_s=since_s)
        ports = replace(
            world.ports,
            tokens=source,
            secret=OLD,
            fence=fence,
            leadership=world.ports.leadership if alone else office,
        )
        endpoints = connect(ports)
        self.seal = endpoints.confirmation_mac
        self.controller = Controller(ports, endpoints, options or world.config)
        self._fence, self._office = fence, office

    def lead(self) -> None:
        self._fence.is_open = True
        self._office.started("")

    def follow(self) -> None:
        self._fence.is_open = False
        self._office.stopped("")


@asynccontextmanager
async def running(*replicas: Replica) -> AsyncIterator[None]:
    """Run replicas until the block ends, then drain them."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for replica in replicas:
            group.create_task(replica.controller.run(stop))
        try:
            yield
        finally:
            stop.set()


def annotate(world: World, session_id: str, annotations: dict[str, str | None]) -> None:
    body = {"metadata": {"annotations": annotations}}
    world.core.patch(SECRETS, PROJECT, NAMES.secret_name(session_id), body, by=PLATFORM)


def populate(world: World) -> list[str]:
    names = [f"2Ab{number}" for number in range(SESSIONS)]
    for name in names:
        world.add(name)
    return names


def counts(world: World, since: int = 0) -> set[int]:
    """Return how often each Secret was written since a number of writes: one figure if alike."""
    written = Counter(c.object["metadata"]["name"] for c in world.secret_writes()[since:])
    return set(written.values())


def tokens(world: World) -> set[str]:
    return {world.token(f"2Ab{number}") for number in range(SESSIONS)}


def test_a_replaced_token_reaches_every_session_in_one_write_each() -> None:
    async def scenario(world: World) -> None:
        names, static_file = populate(world), StaticFile()
        async with running(Replica(world, static_file, alone=True)):
            await asyncio.sleep(3600)
            assert (tokens(world), counts(world)) == ({OLD}, {1})
            static_file.holds, before = NEW, len(world.secret_writes())
            await asyncio.sleep(SOON_S)
            assert (tokens(world), counts(world, before)) == ({NEW}, {1})
            world.add("2AbLater")
            await asyncio.sleep(7200)
            assert world.token("2AbLater") == NEW
        assert len(world.secret_writes()) == before + SESSIONS + 1
        shown = f"{world.logs} {[world.secret(name)['metadata'] for name in names]}"
        assert not [value for value in (OLD, NEW) if value in shown]
        reasons = Counter(line["reason"] for line in world.events("runner_token_refreshed"))
        assert reasons["token_replaced"] == SESSIONS

    simulate(scenario)


def test_neither_a_busy_planner_nor_the_millisecond_of_the_change_costs_or_adds_a_write() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        static_file = StaticFile()
        replica = Replica(world, static_file, alone=True)
        await asyncio.sleep(0.0003)
        async with running(replica):
            await asyncio.sleep(60)
            static_file.holds, before = NEW, len(world.secret_writes())
            for _ in range(int(SOON_S / 0.01)):
                replica.controller.sessions.context()  # as each event of a pod asks for it
                await asyncio.sleep(0.01)
            assert (tokens(world), counts(world, before)) == ({NEW}, {1})

    simulate(scenario)


def test_a_seal_is_made_anew_with_the_value_that_a_later_start_will_know() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        static_file = StaticFile()
        replica = Replica(world, static_file, alone=True)
        async with running(replica):
            await asyncio.sleep(60)
            world.platform.unreachable = True
            static_file.holds = NEW
            await asyncio.sleep(SOON_S)
        for secret in replica.controller.secrets.snapshot():
            key = SessionKey(secret.namespace, secret.session_id)
            assert is_confirmed(
                ConfirmationMac(NEW), secret.annotations.confirmation or "", key, secret.uid
            )

    simulate(scenario)


@pytest.mark.parametrize("later_s", [600, -600], ids=["later", "sooner"])
def test_a_jwt_is_replaced_by_one_that_ends_later_or_sooner(later_s: int) -> None:
    async def scenario(world: World) -> None:
        populate(world)
        issued_s = world.clock.wall() - 1000  # as long a life: both are believed
        first = jwt(iat=issued_s, exp=issued_s + 7200)
        second = jwt(iat=issued_s + later_s, exp=issued_s + later_s + 7200)
        static_file = StaticFile(first)
        async with running(Replica(world, static_file, alone=True)):
            await asyncio.sleep(60)
            assert (tokens(world), counts(world)) == ({first}, {1})
            static_file.holds, before = second, len(world.secret_writes())
            await asyncio.sleep(SOON_S)
            assert (tokens(world), counts(world, before)) == ({second}, {1})
            await asyncio.sleep(900)
        assert counts(world, before) == {1}

    simulate(scenario)


@pytest.mark.parametrize("startup", ["all", "stale"])
def test_a_jwt_taken_back_while_no_replica_ran_is_replaced_by_one_that_ends_sooner(
    startup: str,
) -> None:
    async def scenario(world: World) -> None:
        populate(world)
        now_s = world.clock.wall()
        sooner = jwt(iat=now_s - 2000, exp=now_s + 7000)
        taken_back = jwt(iat=now_s - 1000, exp=now_s + 8000)
        async with running(Replica(world, StaticFile(taken_back), alone=True)):
            await asyncio.sleep(60)
            assert tokens(world) == {taken_back}
        since_s, before = world.clock.wall(), len(world.secret_writes())
        await asyncio.sleep(30)
        again = Replica(world, StaticFile(sooner), "replica-0/2", since_s=since_s)
        async with running(again):
            again.lead()
            await asyncio.sleep(600)
        assert (tokens(world), counts(world, before)) == ({sooner}, {1})

    simulate(scenario, startup=startup)


@pytest.mark.parametrize("endless_first", [True, False])
def test_a_jwt_and_a_token_without_an_end_replace_each_other(endless_first: bool) -> None:
    async def scenario(world: World) -> None:
        populate(world)
        limited = jwt(iat=world.clock.wall(), exp=world.clock.wall() + 7200)
        first, second = (OLD, limited) if endless_first else (limited, NEW)
        static_file = StaticFile(first)
        async with running(Replica(world, static_file, alone=True)):
            await asyncio.sleep(60)
            static_file.holds, before = second, len(world.secret_writes())
            await asyncio.sleep(SOON_S + 600)
            assert (tokens(world), counts(world, before)) == ({second}, {1})

    simulate(scenario)


def test_a_jwt_that_died_in_its_file_is_replaced_without_a_restart() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        static_file = StaticFile(jwt(iat=world.clock.wall(), exp=world.clock.wall() + 900))
        async with running(Replica(world, static_file, alone=True)):
            await asyncio.sleep(1200)
            static_file.holds, before = NEW, len(world.secret_writes())
            await asyncio.sleep(SOON_S)
            assert (tokens(world), counts(world, before)) == ({NEW}, {1})

    simulate(scenario)


def test_a_session_that_was_paused_gets_the_new_token_when_it_goes_on() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        static_file = StaticFile()
        async with running(Replica(world, static_file, alone=True)):
            await asyncio.sleep(60)
            annotate(world, "2Ab0", {NAMES.paused: "true"})
            static_file.holds = NEW
            await asyncio.sleep(3600)
            assert tokens(world) == {OLD, NEW}
            annotate(world, "2Ab0", {NAMES.paused: None})
            await asyncio.sleep(1)
            assert tokens(world) == {NEW}
        assert counts(world) == {2}

    simulate(scenario)


def test_a_follower_writes_nothing_and_hands_nothing_old_on() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        first, second = StaticFile(), StaticFile()
        leader = Replica(world, first)
        follower = Replica(world, second, "replica-1/2")
        async with running(leader, follower):
            leader.lead()
            await asyncio.sleep(60)
            first.holds = NEW
            await asyncio.sleep(60)  # each has a file of its own, which a kubelet changes
            second.holds = NEW
            await asyncio.sleep(3600)
            assert (tokens(world), counts(world)) == ({NEW}, {2})
            leader.follow()
            follower.lead()
            await asyncio.sleep(7200)
        # A new term writes everything once, as ever.
        assert (tokens(world), counts(world)) == ({NEW}, {3})

    simulate(scenario)


def test_a_replica_whose_file_lags_behind_mends_what_it_wrote_when_it_changes() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        first, second = StaticFile(), StaticFile()
        leader = Replica(world, first)
        follower = Replica(world, second, "replica-1/2")
        async with running(leader, follower):
            leader.lead()
            await asyncio.sleep(60)
            first.holds = NEW
            await asyncio.sleep(SOON_S)
            leader.follow()
            follower.lead()
            await asyncio.sleep(60)
            second.holds = NEW
            await asyncio.sleep(7200)
            assert (tokens(world), counts(world)) == ({NEW}, {4})

    simulate(scenario)


@pytest.mark.parametrize(
    ("written_ago_s", "more"), [(9000.0, set()), (1800.0, {1})], ids=["as it was", "changed since"]
)
def test_a_stale_resync_writes_a_token_without_an_end_only_if_its_file_is_younger(
    written_ago_s: float, more: set[int]
) -> None:
    async def scenario(world: World) -> None:
        populate(world)
        options = replace(world.config, startup="stale")
        async with running(Replica(world, StaticFile(), alone=True)):
            await asyncio.sleep(3600)
        before, since_s = len(world.secret_writes()), world.clock.wall() - written_ago_s
        for term in ("replica-0/2", "replica-0/3"):
            again = Replica(world, StaticFile(), term, since_s=since_s, options=options)
            async with running(again):
                again.lead()
                await asyncio.sleep(3600)
                again.follow()
        assert counts(world, before) == more

    simulate(scenario)


def test_two_replicas_that_overlap_do_not_write_in_turns() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        first, second = StaticFile(), StaticFile()
        one = Replica(world, first, alone=True)
        two = Replica(world, second, "replica-1/1", alone=True)
        async with running(one, two):
            await asyncio.sleep(60)
            before = len(world.secret_writes())
            first.holds = NEW
            await asyncio.sleep(60)
            second.holds = NEW
            await asyncio.sleep(7200)
        assert tokens(world) == {NEW}
        assert max(counts(world, before)) <= 2

    simulate(scenario)


@pytest.mark.parametrize("step_s", [-3600.0, -30.0, 3600.0])
def test_a_stepping_wall_clock_costs_one_more_write_at_most(step_s: float) -> None:
    async def scenario(world: World) -> None:
        populate(world)
        static_file = StaticFile()
        async with running(Replica(world, static_file, alone=True)):
            await asyncio.sleep(60)
            static_file.holds = NEW
            await asyncio.sleep(60)
            before = len(world.secret_writes())
            world.clock.step_s = step_s
            await asyncio.sleep(7200)
        assert len(world.secret_writes()) - before <= SESSIONS

    simulate(scenario)


@pytest.mark.parametrize("ahead_s", [120.0, -120.0, 3000.0])
def test_a_token_whose_issuer_is_ahead_of_our_clock_is_written_once(ahead_s: float) -> None:
    async def scenario(world: World) -> None:
        populate(world)
        issued_s = int(world.clock.wall() + ahead_s)
        static_file = StaticFile(jwt(iat=issued_s, exp=issued_s + 86_400))
        async with running(Replica(world, static_file, alone=True)):
            await asyncio.sleep(600)
        assert counts(world) == {1}

    simulate(scenario)
