"""A project whose requests alone fail is no outage of the platform: the whole controller."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from reconciler.controller.controller import Controller
from reconciler.net.circuit_breaker import PROBE_S, THRESHOLD
from reconciler.platform.errors import ErrorAnswer
from reconciler.platform.models import PlatformSession
from tests.unit.controller.pooled_platform import Pool, PooledPlatform
from tests.unit.controller.virtual import PROJECT, World, finished, running, simulate

FAILING = "team-b"
LOOKUPS_A_MINUTE = 20
"""Of one session: what its own retry, 30 s at most between two, and a few recoveries add up to."""


class PartialPlatform(PooledPlatform):
    """Answers 503, or nothing in time, to what names a project of `failing` ("" = none)."""

    failing: frozenset[str] = frozenset()
    hangs_s = 0.0

    def __init__(self, world: World) -> None:
        breaker = world.endpoints.platform_breaker
        super().__init__(breaker, world.clock, Pool(), limit_s=5.0)
        self.asked: Counter[str] = Counter()
        self.probes = 0

    async def _answer(self, path: str, project: str | None) -> ErrorAnswer:
        self.asked[path] += 1
        self.probes += path == "/sessions" and project is None
        whose = project if project in self.projects_there else ""
        if whose in self.failing:
            await asyncio.sleep(self.hangs_s)
            return ErrorAnswer(503, b"", None)
        return await super()._answer(path, project)


@asynccontextmanager
async def partial(world: World, *, sessions: int = 20) -> AsyncIterator[PartialPlatform]:
    """Run a controller over two projects; the sessions of `FAILING` wait for the platform."""
    platform = PartialPlatform(world)
    world.add_project(FAILING)
    platform.projects_there = [PROJECT, FAILING]
    world.add("2Aa0")
    platform.sessions["2Aa0"] = PlatformSession(id="2Aa0", project_id=PROJECT, phase="Running")
    async with running(
        world, Controller(world.ports, replace(world.endpoints, platform=platform), world.config)
    ):
        await finished(world, 1)
        platform.failing = frozenset({FAILING})
        for number in range(sessions):
            world.add(f"2Ab{number}", project=FAILING)
        yield platform


def are_refreshed(world: World, sessions: int = 20) -> bool:
    return {world.token(f"2Ab{n}", FAILING) for n in range(sessions)} <= set(world.issuer.minted)


@pytest.mark.parametrize("hangs_s", [0.0, 60.0])
def test_a_project_that_alone_fails_is_no_outage_and_its_sessions_are_asked_for_at_their_pace(
    hangs_s: float,
) -> None:
    async def scenario(world: World) -> None:
        async with partial(world) as platform:
            platform.hangs_s = hangs_s
            for _ in range(10):
                platform.asked.clear()
                await asyncio.sleep(60)
                asked = [n for path, n in platform.asked.items() if path.startswith("/sessions/")]
                assert max(asked) <= LOOKUPS_A_MINUTE
                assert platform.asked["/sessions"] <= 2 * 60 / PROBE_S
            assert platform.breaker.stats().outages_total == 0
            assert not world.events("endpoint_down")
            platform.failing = frozenset()
            for number in range(20):
                session = PlatformSession(id=f"2Ab{number}", project_id=FAILING, phase="Running")
                platform.sessions[session.id] = session
            await asyncio.sleep(60)
            assert are_refreshed(world)

    simulate(scenario)


@pytest.mark.parametrize("both", [True, False])
def test_a_platform_that_answers_what_names_a_project_alone_or_nothing_does_not_flap(
    *, both: bool
) -> None:
    """What names no project fails, and with `both` what names one too: that is an outage, once."""

    async def scenario(world: World) -> None:
        async with partial(world) as platform:
            platform.failing = frozenset({"", FAILING, PROJECT} if both else {"", FAILING})
            await asyncio.sleep(10)
            assert platform.breaker.is_open or not both
            await asyncio.sleep(600)
            assert platform.breaker.stats().outages_total <= 1
            assert len(world.events("endpoint_recovered")) == 0
            asked = platform.asked.copy()
            platform.failing = frozenset()
            await asyncio.sleep(2 * PROBE_S)
            assert not platform.breaker.is_open
            assert platform.asked != asked

    simulate(scenario)


def test_several_projects_that_fail_are_no_outage_while_the_platform_answers_the_rest() -> None:
    async def scenario(world: World) -> None:
        async with partial(world) as platform:
            platform.failing = frozenset({FAILING, PROJECT})
            for number in range(10):
                world.add(f"2Aa{number + 1}")
            await asyncio.sleep(600)
            assert platform.breaker.stats().outages_total == 0

    simulate(scenario)


def test_an_outage_that_only_look_ups_of_one_project_meet_is_noticed_by_a_probe() -> None:
    async def scenario(world: World) -> None:
        async with partial(world, sessions=THRESHOLD) as platform:
            platform.failing = frozenset({"", FAILING, PROJECT})
            await asyncio.sleep(2 * PROBE_S + 2.0)
            assert platform.breaker.is_open
            assert "probe" in platform.breaker.last_error
            before = platform.asked.copy()
            await asyncio.sleep(60)
            lookups = [path for path in platform.asked if path.startswith("/sessions/")]
            assert all(platform.asked[path] == before[path] for path in lookups)

    simulate(scenario)
