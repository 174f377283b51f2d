"""The issuer refuses our credentials for a while, and takes them again: what the fleet sees."""

import asyncio
from random import Random

import pytest
from msgspec.structs import replace

from reconciler.controller.controller import Controller
from reconciler.controller.runtime import REPEAT_S
from reconciler.net.circuit_breaker import PROBE_S
from reconciler.tokens.source import OidcSource
from tests.unit.controller.virtual import SwitchFence, World, finished, running, simulate

STEP_S = 0.5


async def started(world: World, ttl_s: int, sessions: int) -> list[str]:
    """Wait until so many sessions were refreshed, with tokens that live for `ttl_s`."""
    while not world.events("startup_resync_finished"):
        await asyncio.sleep(0.1)
    await asyncio.sleep(2 * ttl_s)
    return [f"2Ab{number:03}" for number in range(sessions)]


async def expired_seconds(world: World, sessions: list[str], seconds: float) -> float:
    """Return the seconds, over all sessions, that their Secrets hold an expired token."""
    total_s = 0.0
    for _ in range(int(seconds / STEP_S)):
        await asyncio.sleep(STEP_S)
        total_s += STEP_S * sum(world.remaining_s(session) <= 0 for session in sessions)
    return total_s


@pytest.mark.parametrize("kind", ["refused", "unreachable"])
@pytest.mark.parametrize(
    ("ttl_s", "seconds"), [(60, 47.0), (60, 50.0), (900, 780.0)], ids=["47", "50", "780"]
)
@pytest.mark.parametrize("offset_s", [0.0, 4.9])
def test_a_refusal_shorter_than_nine_tenths_of_a_life_costs_nothing(
    kind: str, ttl_s: int, seconds: float, offset_s: float
) -> None:
    async def scenario(world: World) -> None:
        world.issuer.ttl_s = ttl_s
        for number in range(40):
            world.add(f"2Ab{number:03}")
        async with running(world):
            sessions = await started(world, ttl_s, 40)
            await asyncio.sleep(offset_s)
            setattr(world.issuer, kind, True)
            asked = world.issuer.requests
            assert not world.endpoints.issuer_breaker.stats().refuses
            assert await expired_seconds(world, sessions, seconds) == 0.0
            if kind == "refused":
                assert world.issuer.requests - asked <= 2 + seconds / PROBE_S
                assert world.endpoints.issuer_breaker.stats().refuses
                assert abs(len(world.events("endpoint_refuses")) - seconds / 60) <= 1
            setattr(world.issuer, kind, False)
            assert await expired_seconds(world, sessions, ttl_s / 4) == 0.0
            assert min(world.remaining_s(session) for session in sessions) > 0.3 * ttl_s
        if kind == "refused":
            assert 1 <= len(world.events("issuer_refused")) <= 1 + seconds // REPEAT_S
        assert [line["endpoint"] for line in world.events("endpoint_recovered")] == ["issuer"]

    simulate(scenario)


def test_the_end_of_a_long_refusal_wakes_all_that_wait_and_serves_the_most_urgent_first() -> None:
    async def scenario(world: World) -> None:
        world.issuer.ttl_s = 60
        for number in range(200):
            world.add(f"2Ab{number:03}")
        async with running(world):
            sessions = await started(world, 60, 200)
            world.issuer.refused = True
            await asyncio.sleep(57.0)
            left = {session: world.remaining_s(session) for session in sessions}
            before = len(world.secret_writes())
            world.issuer.refused = False
            refused_at = world.clock.monotonic()
            async with asyncio.timeout(4.0):
                while min(world.remaining_s(session) for session in sessions) < 45:
                    await asyncio.sleep(0.05)
            assert world.clock.monotonic() - refused_at <= PROBE_S + 1.0
        written = [
            commit.object["metadata"]["name"].split("-")[1] for commit in world.secret_writes()
        ][before:]
        order = [left[f"2Ab{name.removeprefix('2ab')}"] for name in dict.fromkeys(written)]
        # 64 workers take the first; one pick in eight is the longest waiting instead.
        assert sum(order[:60]) / 60 <= sum(order) / len(order)

    simulate(scenario)


def test_a_replica_that_starts_in_a_refusal_asks_as_often_as_the_fleets_tokens_need() -> None:
    async def scenario(world: World) -> None:
        world.issuer.ttl_s = 60
        sessions = [f"2Ab{number:03}" for number in range(20)]
        for session in sessions:
            world.add(session)
        async with running(world):
            await finished(world, 1)
        world.issuer.refused = True
        fresh = OidcSource(
            world.issuer.ask,
            clock=world.clock,
            issuer_time=world.ports.issuer_time,
            breaker=world.endpoints.issuer_breaker,
            random=Random(9),
        )
        fence = SwitchFence()
        fence.term = "replica-1/2"
        ports = replace(world.ports, fence=fence)
        endpoints = replace(world.endpoints, source=fresh, background_tasks=(fresh.keep_standby,))
        async with running(world, Controller(ports, endpoints, world.config)):
            asked = world.issuer.requests
            assert await expired_seconds(world, sessions, 47.0) == 0.0
            assert world.issuer.requests - asked <= 2 + 47.0 / PROBE_S
            world.issuer.refused = False
            assert await expired_seconds(world, sessions, 15.0) == 0.0
            assert min(world.remaining_s(session) for session in sessions) > 20
        await fresh.close()

    simulate(scenario)
