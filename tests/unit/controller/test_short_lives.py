"""Tokens that live no longer than the propagation allowance: retries are bound by the life left."""

import asyncio
from random import Random

import pytest

from reconciler.errors import KubeError, ServerError, TooManyRequests, TransportError
from reconciler.lab.apiserver.fault_injection import InjectedFault
from tests.unit.controller.virtual import World, running, simulate

STEP_S = 0.5
"""Between looks at all Secrets."""


async def expired_seconds(world: World, sessions: list[str], seconds: float) -> float:
    """Return the seconds, over all sessions, that their Secrets hold an expired token."""
    total_s = 0.0
    for _ in range(int(seconds / STEP_S)):
        await asyncio.sleep(STEP_S)
        total_s += STEP_S * sum(world.remaining_s(session) <= 0 for session in sessions)
    return total_s


@pytest.mark.parametrize(
    "error",
    [
        TooManyRequests("busy", status=429, retry_after_s=1.0),
        ServerError("oops", status=500),
        TransportError("reset"),
    ],
    ids=["429", "500", "reset"],
)
def test_four_writes_in_ten_that_fail_cost_no_token_of_60_seconds(error: KubeError) -> None:
    async def scenario(world: World) -> None:
        world.issuer.ttl_s = 60
        sessions = [f"2Ab{number:02}" for number in range(50)]
        for session in sessions:
            world.add(session)
        async with running(world):
            while not world.events("startup_resync_finished"):
                await asyncio.sleep(0.1)
            draws, tries = Random(11), 0

            def judge(verb: str, plural: str) -> InjectedFault | None:
                nonlocal tries
                if (verb, plural) != ("patch", "secrets"):
                    return None
                tries += 1
                return InjectedFault(error) if draws.random() < 0.4 else None

            world.faults.rule = judge
            assert await expired_seconds(world, sessions, 600.0) == 0.0
        # 25 renewals a session at least, and 1.7 tries for each on average.
        assert tries < 50 * 600 / 12 * 3

    simulate(scenario)
