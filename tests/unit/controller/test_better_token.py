"""Sessions that wait for a better token than theirs: its arrival at the source wakes them."""

import asyncio

import pytest
from msgspec.structs import replace

from reconciler.controller.reconcile.run import ReconcileRun
from tests.unit.controller.virtual import World, finished, running, simulate

SESSIONS = 10
STEP_S = 0.5
"""Between looks at all Secrets."""


def populate(world: World) -> list[str]:
    ids = [f"2Ab{number:02}" for number in range(SESSIONS)]
    for session_id in ids:
        world.add(session_id)
    return ids


@pytest.mark.parametrize("ttl_s", [60, 900])
@pytest.mark.parametrize("is_busy", [False, True])
def test_a_cache_that_gives_each_token_until_its_end_costs_two_seconds_of_each(
    ttl_s: int, is_busy: bool
) -> None:
    """One second of each no reader can have: `exp` is a whole one, and the cache's time is not.

    The other is the pause before the next request after an answer that had expired.
    """

    async def scenario(world: World) -> None:
        world.issuer.ttl_s = ttl_s
        world.issuer.cached_s, world.issuer.is_busy = float(ttl_s), is_busy
        ids = populate(world)
        async with running(world):
            await finished(world, 1)
            minted, asked = len(world.issuer.minted), world.issuer.requests
            written = len(world.secret_writes())
            spent_s = dict.fromkeys(ids, 0.0)
            for _ in range(int(6 * ttl_s / STEP_S)):
                await asyncio.sleep(STEP_S)
                for session_id in ids:
                    spent_s[session_id] += STEP_S * (world.remaining_s(session_id) <= 0)
        tokens = len(world.issuer.minted) - minted
        assert tokens >= 5
        assert max(spent_s.values()) <= 2.0 * tokens
        assert len(world.secret_writes()) - written <= 2 * tokens * SESSIONS
        # The spare's eleven in each life, those for renewals from an age of 0.2 on, 0.02 of a life
        # apart, and three at the token's end.
        assert world.issuer.requests - asked <= 54 * tokens

    simulate(scenario)


def test_a_token_that_ends_sooner_than_theirs_wakes_none_of_those_who_wait() -> None:
    async def scenario(world: World) -> None:
        runs: list[ReconcileRun] = []
        world.ports = replace(world.ports, observers=(runs.append,))
        ids = populate(world)
        async with running(world):
            await finished(world, 1)
            world.issuer.ttl_s = 60
            await asyncio.sleep(600)  # at an age of 0.6 of a life all of them wait for a better one
            queue, source = world.controller.queue, world.source
            before, minted = len(runs), source.stats().issued_total
            assert queue.stats().schedule.blocked == {"issuer": SESSIONS}
            await asyncio.sleep(200)
            assert source.stats().issued_total - minted > 30
            # Each by its own retry, 30 s apart at most and 15 s on average.
            assert len(runs) - before <= 200 / 15 * 1.5 * SESSIONS
            await asyncio.sleep(120)
            assert min(map(world.remaining_s, ids)) > 0

    simulate(scenario)
