"""An API server that has just started refuses every account until it knows its bindings."""

import asyncio
from collections.abc import Callable

import pytest

from reconciler.clock import Instant
from reconciler.controller.decide.write_errors import DENIED_PROBE_S
from reconciler.errors import Forbidden, TransportError
from reconciler.informer.protocol import FORBIDDEN_S, REGAIN_FOR_S, REGAIN_S
from reconciler.kube.authorization import PATIENCE_S
from reconciler.lab.apiserver.fault_injection import InjectedFault
from tests.unit.controller.virtual import World, running, simulate


async def settled(world: World) -> None:
    async with asyncio.timeout(60):
        while not world.events("startup_resync_finished"):
            await asyncio.sleep(0.1)


async def expired_s(world: World, sessions: list[str], seconds: float, *, step_s: float) -> float:
    """Return the expired-token seconds of so much virtual time."""
    total_s = 0.0
    for _ in range(round(seconds / step_s)):
        await asyncio.sleep(step_s)
        total_s += step_s * sum(world.remaining_s(session) < 0 for session in sessions)
    return total_s


@pytest.mark.parametrize(
    ("ttl_s", "unauthorized_s"), [(60, 0.2), (60, 3.0), (60, 10.0), (900, 180.0)], ids=str
)
def test_a_restart_of_the_api_server_expires_no_token(ttl_s: int, unauthorized_s: float) -> None:
    async def scenario(world: World) -> None:
        world.issuer.ttl_s = ttl_s
        sessions = [f"2Ab{number}" for number in range(100)]
        for session in sessions:
            world.add(session)
        async with running(world):
            await settled(world)
            await asyncio.sleep(ttl_s)
            restart = asyncio.create_task(world.faults.restart(unauthorized_s=unauthorized_s))
            seconds = 2 * ttl_s + unauthorized_s
            assert await expired_s(world, sessions, seconds, step_s=ttl_s / 200) == 0
            await restart
            if unauthorized_s < PATIENCE_S:
                said = [line["event"] for line in world.logs]
                assert not [event for event in said if event.endswith("_forbidden")]

    simulate(scenario)


def refused(*plurals: str, verb: str = "") -> Callable[[str, str], InjectedFault | None]:
    """Refuse requests for these kinds."""
    denied = InjectedFault(Forbidden("no", status=403, reason="Forbidden"))
    return lambda asked, plural: denied if plural in plurals and verb in ("", asked) else None


def test_a_right_that_is_taken_is_called_missing_after_a_while_and_waits_slowly_then() -> None:
    async def scenario(world: World) -> None:
        for number in range(20):
            world.add(f"2Ab{number}")
        async with running(world):
            await settled(world)
            await asyncio.sleep(30)
            asked = count_patches(world)
            world.faults.rule = asked
            for number in range(20):
                world.overwrite(f"2Ab{number}")
            await asyncio.sleep(PATIENCE_S - 1.0)
            assert not world.events("write_forbidden")
            await asyncio.sleep(30)
            assert len(world.events("write_forbidden")) == 1
            # Within the first 15 s 6 tries, half as far apart as they may be, and 6 at 5 s.
            assert asked.total <= 20 * 15
            before = asked.total
            await asyncio.sleep(900)
            assert asked.total - before <= 900 / (DENIED_PROBE_S / 2)

    simulate(scenario)


class count_patches:
    """Refuse the patches of Secrets and count them."""

    def __init__(self, world: World) -> None:
        self.total = 0

    def __call__(self, verb: str, plural: str) -> InjectedFault | None:
        if (verb, plural) != ("patch", "secrets"):
            return None
        self.total += 1
        return InjectedFault(Forbidden("no", status=403, reason="Forbidden"))


def test_a_right_that_is_given_back_wakes_all_that_wait_for_it() -> None:
    async def scenario(world: World) -> None:
        sessions = [f"2Ab{number}" for number in range(20)]
        for session in sessions:
            world.add(session)
        async with running(world):
            await settled(world)
            await asyncio.sleep(30)
            world.faults.rule = refused("secrets", verb="patch")
            for session in sessions:
                world.overwrite(session)
            await asyncio.sleep(600)
            assert len(world.events("write_forbidden")) == 1
            world.faults.rule = None
            async with asyncio.timeout(2.5):  # each of 20 alone would come after 20-40 s
                while len(world.events("authorized_again")) < 1:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(2)
            assert all(world.token(session) in world.issuer.minted for session in sessions)

    simulate(scenario)


def test_events_wait_for_a_server_that_authorizes_no_account_yet() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
            stats = world.controller.events.stats
            world.overwrite("2Ab0")
            await asyncio.sleep(5)
            assert (stats.created, stats.updated) == (1, 0)
            world.faults.fail_next(InjectedFault(TransportError("reset")), verb="create")
            world.faults.rule = refused("events")
            world.add("2Ab1")
            world.delete_secret("2Ab1")
            await asyncio.sleep(8)
            assert (stats.created, stats.updated) == (1, 0)
            assert len(world.controller.events) > 0
            world.faults.rule = None
            await asyncio.sleep(5)
            assert stats.created > 1
            assert len(world.controller.events) == 0
            assert stats.dropped == stats.forbidden == 0

    simulate(scenario)


def test_a_watch_that_works_again_wakes_the_other_that_is_refused() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
            asked: list[tuple[str, Instant]] = []
            is_refused = True

            def judge(verb: str, plural: str) -> InjectedFault | None:
                if verb not in ("list", "watch"):
                    return None
                asked.append((plural, world.clock.monotonic()))
                denied = Forbidden("no", status=403, reason="Forbidden")
                return InjectedFault(denied) if is_refused else None

            world.faults.rule = judge
            world.faults.drop_watches()
            await asyncio.sleep(PATIENCE_S + 10.0)
            assert len(world.events("watch_forbidden")) == 2
            is_refused = False
            asked.clear()
            async with asyncio.timeout(60):
                while len({plural for plural, _ in asked}) < 2:
                    await asyncio.sleep(0.1)
            (first, first_at), (second, second_at) = asked[:2]
            assert {first, second} == {"pods", "secrets"}
            assert second_at - first_at < 0.1

    simulate(scenario)


@pytest.mark.parametrize("unauthorized_s", [60.0, 240.0])
def test_an_authorizer_that_takes_minutes_is_noticed_within_seconds_of_its_being_ready(
    unauthorized_s: float,
) -> None:
    async def scenario(world: World) -> None:
        world.issuer.ttl_s = 60
        sessions = [f"2Ab{number}" for number in range(20)]
        for session in sessions:
            world.add(session)
        async with running(world):
            await settled(world)
            await asyncio.sleep(60)
            await world.faults.restart(unauthorized_s=unauthorized_s)
            ready_at = world.clock.monotonic()
            async with asyncio.timeout(120):
                while min(map(world.remaining_s, sessions)) <= 0:
                    await asyncio.sleep(0.1)
            assert world.clock.monotonic() - ready_at <= REGAIN_S[1] + 0.5

    simulate(scenario)


def test_an_informer_whose_right_is_taken_asks_each_five_seconds_and_slowly_in_the_end() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
            await asyncio.sleep(30)
            asked: list[Instant] = []

            def judge(verb: str, plural: str) -> InjectedFault | None:
                if plural != "pods" or verb not in ("list", "watch"):
                    return None
                asked.append(world.clock.monotonic())
                return InjectedFault(Forbidden("no", status=403, reason="Forbidden"))

            world.faults.rule = judge
            world.faults.drop_watches()
            await asyncio.sleep(PATIENCE_S + 10.0)
            before = len(asked)
            await asyncio.sleep(300)
            assert 300 / REGAIN_S[1] - 1 <= len(asked) - before <= 300 / REGAIN_S[0] + 1
            await asyncio.sleep(REGAIN_FOR_S)
            before = len(asked)
            await asyncio.sleep(600)
            assert len(asked) - before <= 600 / FORBIDDEN_S[0] + 1
            assert len(world.events("watch_forbidden")) == 1

    simulate(scenario)
