"""A new leader with an older token than its predecessor's last one: its startup resync writes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
from msgspec.structs import replace

from reconciler.clock import EpochTime
from reconciler.controller.controller import STANDBY_AFTER_S, Controller
from reconciler.controller.reconcile.run import ReconcileRun
from reconciler.controller.triggers.resync import LEADER_START
from reconciler.tokens.source import OidcSource
from reconciler.tokens.token_response import TokenResponse
from tests.unit.controller.succession import Succession
from tests.unit.controller.virtual import SwitchFence, World, finished, running, simulate

SESSIONS = 50


async def first_term(world: World, ask: Callable[[], Awaitable[TokenResponse]]) -> OidcSource:
    """Have a leader refresh the fleet and release; return the source of an older token."""
    own = OidcSource(
        ask,
        clock=world.clock,
        issuer_time=world.ports.issuer_time,
        breaker=world.endpoints.issuer_breaker,
        random=Random(8),
    )
    await own.refresh()
    await asyncio.sleep(3)
    for number in range(SESSIONS):
        world.add(f"2Ab{number}")
    async with running(world):
        await finished(world, 1)
    await asyncio.sleep(3)  # a term begins by the second of a Date header
    return own


@asynccontextmanager
async def second_term(world: World, own: OidcSource) -> AsyncIterator[None]:
    """Run another replica, which leads at once, with its own tokens."""
    fence = SwitchFence()
    fence.term = "replica-1/2"
    ports = replace(world.ports, fence=fence)
    endpoints = replace(world.endpoints, source=own, background_tasks=(own.keep_standby,))
    try:
        async with running(world, Controller(ports, endpoints, world.config)):
            await finished(world, 2)
            yield
    finally:
        await own.close()


def test_every_session_is_refreshed_at_once_for_one_more_token() -> None:
    async def scenario(world: World) -> None:
        own = await first_term(world, world.issuer.ask)
        async with second_term(world, own):
            assert world.events("startup_resync_finished")[1]["refreshed"] == SESSIONS
            assert len(world.secret_writes()) == 2 * SESSIONS
            assert world.issuer.requests == 3

    simulate(scenario)


def test_an_issuer_that_repeats_itself_is_asked_once_and_no_expiry_moves_back() -> None:
    async def scenario(world: World) -> None:
        old, asked = world.issuer.mint(900), 0

        async def repeat() -> TokenResponse:
            nonlocal asked
            asked += 1
            at = world.clock.monotonic()
            await asyncio.sleep(0.02)
            return TokenResponse(
                old, at, world.clock.monotonic(), date_s=EpochTime(int(world.clock.wall()))
            )

        own = await first_term(world, repeat)
        async with second_term(world, own):
            await asyncio.sleep(30)
            assert world.events("startup_resync_finished")[1]["unchanged"] == SESSIONS
            assert len(world.secret_writes()) == SESSIONS
            assert asked == 2

    simulate(scenario)


def test_with_the_issuer_unreachable_what_is_there_stays_until_it_is_back() -> None:
    async def scenario(world: World) -> None:
        own = await first_term(world, world.issuer.ask)
        world.issuer.unreachable = True
        async with second_term(world, own):
            assert world.events("startup_resync_finished")[1]["unchanged"] == SESSIONS
            assert len(world.secret_writes()) == SESSIONS
            world.issuer.unreachable = False
            async with asyncio.timeout(60):
                while len(world.secret_writes()) < 2 * SESSIONS:
                    await asyncio.sleep(1)

    simulate(scenario)


@pytest.mark.parametrize(("after_s", "planned"), [(0.5, False), (2.0, True)])
def test_a_replica_that_leads_at_once_plans_its_sessions_once(
    after_s: float, planned: bool
) -> None:
    """A standby has planned them before: they run at once when it begins to lead."""

    async def scenario(world: World) -> None:
        assert (after_s > STANDBY_AFTER_S) is planned
        for number in range(SESSIONS):
            world.add(f"2Ab{number}")
        runs: list[ReconcileRun] = []
        leadership = Succession()
        ports = replace(world.ports, leadership=leadership, observers=(runs.append,))
        async with running(world, Controller(ports, world.endpoints, world.config)):
            await asyncio.sleep(after_s)
            leadership.begin()
            await finished(world, 1)
        first = {run.key: run.work.reasons for run in reversed(runs)}
        assert len(first) == SESSIONS
        assert all((LEADER_START in reasons) is planned for reasons in first.values())

    simulate(scenario)
