"""The platform is a shared peer: runners' own calls go through the same pool of connections."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest import mock

from msgspec.structs import replace

from reconciler.controller.controller import Controller
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.decide.refresh_plan import LIST_WAIT_S
from reconciler.controller.reconcile import worker
from reconciler.controller.reconcile.run import ReconcileRun
from reconciler.platform.api import OnPage
from reconciler.platform.models import PlatformSession
from reconciler.platform.pagination import ListResult, ignore_page
from reconciler.platform.session_list import list_running_sessions
from tests.unit.controller.pooled_platform import Pool, PooledPlatform
from tests.unit.controller.succession import Succession
from tests.unit.controller.virtual import PROJECT, World, finished, running, simulate

SESSIONS = 200
PARALLEL = 8


class Runners:
    """One call after another to the platform; `longest_s` is what the slowest took."""

    def __init__(self, world: World, pool: Pool) -> None:
        self._clock = world.clock
        self._pool = pool
        self.longest_s = 0.0
        self.failed = 0

    async def call_for(self, seconds: float) -> None:
        until_at = self._clock.monotonic() + seconds
        while (began_at := self._clock.monotonic()) < until_at:
            try:
                async with self._pool.serve():
                    pass
            except TimeoutError:
                self.failed += 1
            self.longest_s = max(self.longest_s, self._clock.monotonic() - began_at)
            await asyncio.sleep(0.05)


@asynccontextmanager
async def led(
    world: World, *, sessions: int = SESSIONS, list_s: float = 0.5, seal: str = "another"
) -> AsyncIterator[tuple[PooledPlatform, Runners]]:
    """Have a follower begin to lead over sessions whose seals, if any, it cannot read."""
    pool = Pool()
    platform = PooledPlatform(
        world.endpoints.platform_breaker, world.clock, pool, parallel=PARALLEL, limit_s=600.0
    )
    platform.projects_there, platform.list_s = [PROJECT], list_s
    leadership = Succession()
    ports = replace(world.ports, leadership=leadership)
    mac = ConfirmationMac(f"obviously-fake-{seal}")
    endpoints = replace(world.endpoints, platform=platform, confirmation_mac=mac)
    for number in range(sessions):
        session = PlatformSession(id=f"2Ab{number}", project_id=PROJECT, phase="Running")
        platform.sessions[session.id] = session
    async with running(world, Controller(ports, endpoints, world.config)):
        await asyncio.sleep(5)
        leadership.begin()
        yield platform, Runners(world, pool)


async def add_old(world: World, sessions: int = SESSIONS) -> None:
    """Add sessions that were never refreshed, and whose pods are not young any more."""
    for number in range(sessions):
        world.add(f"2Ab{number}")
    await asyncio.sleep(120)


def are_refreshed(world: World, numbers: range) -> bool:
    return {world.token(f"2Ab{number}") for number in numbers} <= set(world.issuer.minted)


def test_a_first_start_waits_for_the_list_and_leaves_the_platform_to_the_runners() -> None:
    async def scenario(world: World) -> None:
        await add_old(world)
        async with led(world) as (platform, runners):
            await runners.call_for(15)
            assert len(world.events("startup_resync_finished")) == 1
            assert are_refreshed(world, range(SESSIONS))
            assert platform.pool.failed == runners.failed == 0
            assert runners.longest_s < 0.1
            assert platform.lookups == 0  # the list has confirmed everybody
            assert platform.pool.most <= PARALLEL + 1

    simulate(scenario)


def test_sessions_that_the_first_list_lacks_are_asked_for_within_the_platforms_limit() -> None:
    async def scenario(world: World) -> None:
        await add_old(world)
        async with led(world) as (platform, runners):
            for number in range(0, SESSIONS, 2):
                session = platform.sessions[f"2Ab{number}"]
                platform.sessions[session.id] = dataclasses.replace(session, phase="Creating")
            await runners.call_for(15)
            assert are_refreshed(world, range(SESSIONS))
            assert platform.lookups == SESSIONS / 2
            assert platform.pool.failed == runners.failed == 0
            assert runners.longest_s < 0.1
            assert platform.pool.most == PARALLEL + 1

    simulate(scenario)


def test_a_first_list_that_takes_long_is_not_waited_for_by_those_that_may_expire() -> None:
    async def scenario(world: World) -> None:
        await add_old(world)
        async with led(world, list_s=200.0) as (platform, runners):
            await runners.call_for(10)
            assert platform.lookups == 0
            await runners.call_for(20)
            assert platform.lookups == SESSIONS
            assert are_refreshed(world, range(SESSIONS))
            assert platform.pool.failed == runners.failed == 0
            assert platform.pool.most <= PARALLEL + 1

    simulate(scenario)


def test_a_pod_that_appears_during_the_first_list_does_not_wait_for_it() -> None:
    async def scenario(world: World) -> None:
        await add_old(world, 20)
        async with led(world, sessions=20, list_s=60.0) as (platform, _):
            await asyncio.sleep(1)
            world.add("2Anew")
            platform.sessions["2Anew"] = world.platform.sessions["2Anew"]
            async with asyncio.timeout(3):
                while world.token("2Anew") not in world.issuer.minted:
                    await asyncio.sleep(0.1)
            assert platform.lookups == 1

    simulate(scenario)


def test_a_session_whose_token_ends_before_the_first_list_is_asked_for_before() -> None:
    """Its seal is void, as after a change of the client's secret; what it holds is known."""

    async def scenario(world: World) -> None:
        sessions = range(20)
        for number in sessions:
            world.add(f"2Ab{number}")
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(10)
        left_s = min(world.remaining_s(f"2Ab{number}") for number in sessions)
        await asyncio.sleep(left_s - 200)
        async with led(world, sessions=20, list_s=500.0) as (platform, _):
            await asyncio.sleep(60)
            assert platform.lookups == 0
            await asyncio.sleep(60)  # 80 s are left: less than the allowance
            assert platform.lookups == 20
            assert min(world.remaining_s(f"2Ab{number}") for number in sessions) > 600

    simulate(scenario)


def test_a_slow_platform_is_asked_less_at_one_time_and_more_again_when_it_is_prompt() -> None:
    async def scenario(world: World) -> None:
        pool = Pool()
        platform = PooledPlatform(world.endpoints.platform_breaker, world.clock, pool, parallel=8)
        platform.projects_there = [f"p{number}" for number in range(100)]

        async def busiest(list_s: float) -> int:
            platform.list_s, pool.most = list_s, 0
            await list_running_sessions(platform, parallel=8)
            return pool.most

        assert await busiest(0.1) == 8
        await busiest(3.0)
        assert await busiest(3.0) <= 2  # the list of projects is prompt
        assert await busiest(0.1) == 8

    simulate(scenario)


def test_a_replica_that_leads_from_its_start_does_not_wait_for_a_first_list_that_takes_long() -> (
    None
):
    async def scenario(world: World) -> None:
        await add_old(world, 40)
        list_running = world.platform.list_running

        async def slow(
            project: str | None, on_page: OnPage = ignore_page
        ) -> ListResult[PlatformSession]:
            await asyncio.sleep(300)
            return await list_running(project, on_page)

        world.platform.list_running = slow  # type: ignore[method-assign]
        async with running(world):
            await asyncio.sleep(LIST_WAIT_S - 2)
            assert world.platform.lookups == 0
            await asyncio.sleep(12)
            assert are_refreshed(world, range(40))
            assert world.platform.lookups == 40
            await asyncio.sleep(300)
            assert len(world.events("startup_resync_finished")) == 1
            assert world.platform.lookups == 40

    simulate(scenario)


def test_sessions_that_wait_for_a_full_platform_run_seldom_until_there_is_room() -> None:
    async def scenario(world: World) -> None:
        runs: list[ReconcileRun] = []
        world.ports = replace(world.ports, observers=(runs.append,))
        await add_old(world, SESSIONS)
        is_open = asyncio.Event()
        session = world.platform.session

        async def hung(session_id: str, project: str | None) -> PlatformSession | None:
            await is_open.wait()
            return await session(session_id, project)

        async def endless(
            project: str | None, on_page: OnPage = ignore_page
        ) -> ListResult[PlatformSession]:
            await is_open.wait()
            return ListResult([], 0, 0, 0, complete=False, error=None)

        world.platform.session = hung  # type: ignore[method-assign]
        world.platform.list_running = endless  # type: ignore[method-assign]
        async with running(world):
            await asyncio.sleep(60)
            before = len(runs)
            await asyncio.sleep(600)
            # Once in 60 s each would be 2000 runs; of 200, one in a second is 600.
            assert len(runs) - before < 700
            is_open.set()
            await asyncio.sleep(30)
            assert are_refreshed(world, range(SESSIONS))

    with mock.patch.object(worker, "PARKED_PER_S", 1.0):
        simulate(scenario)
