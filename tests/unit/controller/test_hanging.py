"""A target that hangs costs only itself: a namespace, the platform, a watch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.controller.controller import Controller
from reconciler.controller.reconcile.bulkhead_shell import SlowTargets
from reconciler.controller.status.status_metrics import samples
from reconciler.errors import (
    PlatformUnavailable,
    ServerError,
    TooManyRequests,
    TransportError,
)
from reconciler.kube.api import ApiResource, ListOptions, ObjectMeta, Page
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.in_process_client import InProcessKube, InProcessWatch
from reconciler.lab.apiserver.kinds import SECRETS
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.models import PlatformSession
from reconciler.statuspage.components import components
from reconciler.telemetry import metrics
from tests.unit.controller.virtual import (
    INTRUDER,
    NAMES,
    PROJECT,
    FakePlatform,
    World,
    finished,
    running,
    simulate,
)

OTHER = "team-b"
HANGS_S = 10.0


class Kube:
    """A way to the API server with trouble in the namespace `OTHER` alone, once it is `on`."""

    def __init__(self, inner: Any) -> None:
        self._inner: InProcessKube = inner
        self.on = False
        self.hung = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class HangingWrites(Kube):
    async def patch(
        self, resource: ApiResource[ObjectMeta], namespace: str, *args: Any, **more: Any
    ) -> Any:
        if self.on and (resource.plural, namespace) == ("secrets", OTHER):
            self.hung += 1
            await asyncio.sleep(HANGS_S)
            raise TransportError("no answer")
        return await self._inner.patch(resource, namespace, *args, **more)


class UnreadableSecrets(Kube):
    """One Secret that the server cannot decrypt: no list, and no watch, of its namespace."""

    async def list(self, resource: ApiResource[Any], scope: ListOptions, **more: Any) -> Page[Any]:
        self._judge(resource, scope)
        return await self._inner.list(resource, scope, **more)

    @asynccontextmanager
    async def watch(
        self, resource: ApiResource[Any], scope: ListOptions, **more: Any
    ) -> AsyncIterator[InProcessWatch[Any]]:
        self._judge(resource, scope)
        async with self._inner.watch(resource, scope, **more) as opened:
            yield opened

    def _judge(self, resource: ApiResource[Any], scope: ListOptions) -> None:
        if self.on and (resource.plural, scope.namespace) == ("secrets", OTHER):
            raise ServerError("answered 500", status=500, reason="InternalError")


def trouble(world: World, kind: type[Kube]) -> Kube:
    kube = kind(world.ports.kube)
    world.controller = Controller(replace(world.ports, kube=kube), world.endpoints, world.config)
    return kube


def least_s(world: World, sessions: list[str]) -> float:
    return min(world.remaining_s(session) for session in sessions)


def test_writes_that_hang_in_one_namespace_leave_the_others_their_workers() -> None:
    async def scenario(world: World) -> None:
        kube = trouble(world, HangingWrites)
        world.add_project(OTHER)
        healthy = [f"2Aa{number}" for number in range(50)]
        for session in healthy:
            world.add(session)
        for number in range(100):
            world.add(f"2Ab{number}", project=OTHER)
        async with running(world):
            await finished(world, 1)
            kube.on = True
            for _ in range(100):
                await asyncio.sleep(15)
                assert least_s(world, healthy) > 270
            assert kube.hung > 0
            kube.on = False
            await asyncio.sleep(60)
            rest = [world.token(f"2Ab{n}", OTHER) for n in range(100)]
            assert min(world.left_s(token) for token in rest) > 0

    simulate(scenario, workers=4)


def test_a_slow_namespace_and_whom_it_holds_back_are_on_page_and_metrics() -> None:
    async def scenario(world: World) -> None:
        kube = trouble(world, HangingWrites)
        world.add_project(OTHER)
        kube.on = True
        for number in range(40):
            world.add(f"2Ab{number}", project=OTHER)
        async with running(world):
            await asyncio.sleep(8)
            survey = await world.controller.status_collector.snapshot(max_age_s=0.0)
            assert survey.slow.names == (OTHER,)
            assert survey.slow.parked > 20
            values = {
                sample.metric: sample.value
                for sample in samples(survey, per_session=False)
                if sample.metric in (metrics.SLOW_TARGETS, metrics.PARKED)
            }
            assert values == {metrics.SLOW_TARGETS: 1, metrics.PARKED: survey.slow.parked}
            [part] = [part for part in components(survey, "r") if part.name == "Slow"]
            assert part.note.startswith(f"{OTHER}; {survey.slow.parked} due sessions")
            kube.on = False
            await asyncio.sleep(120)
            survey = await world.controller.status_collector.snapshot(max_age_s=0.0)
            assert survey.slow == SlowTargets()
            assert "Slow" not in {part.name for part in components(survey, "r")}

    simulate(scenario, workers=4)


class HangingPlatform(FakePlatform):
    """Answers no look-up, once it is `on`; nor a probe, where `wholly`."""

    def __init__(self, breaker: CircuitBreaker, *, wholly: bool) -> None:
        super().__init__(breaker)
        self.on = False
        self.asked = 0
        self._wholly = wholly

    async def session(self, session_id: str, project: str | None) -> PlatformSession | None:
        if self.on:
            self.asked += 1
            await self._hang(project or "")
        return await super().session(session_id, project)

    async def probe(self) -> None:
        if self.on and self._wholly:
            await self._hang()

    async def _hang(self, project: str = "") -> None:
        await asyncio.sleep(HANGS_S)
        error = PlatformUnavailable("no answer")
        self.breaker.failed(error, part=project)
        raise error


@pytest.mark.parametrize("wholly", [True, False])
def test_a_platform_that_hangs_is_not_asked_by_every_worker(*, wholly: bool) -> None:
    async def scenario(world: World) -> None:
        platform = HangingPlatform(world.platform.breaker, wholly=wholly)
        world.platform = platform
        world.controller = Controller(
            world.ports, replace(world.endpoints, platform=platform), world.config
        )
        healthy = [f"2Aa{number}" for number in range(50)]
        for session in healthy:
            world.add(session)
        async with running(world):
            await finished(world, 1)
            platform.on = True
            for number in range(100):
                world.add_pod(f"9Forged{number}")
            for _ in range(100):
                await asyncio.sleep(15)
                assert least_s(world, healthy) > 270
            assert platform.breaker.is_open == wholly
            assert platform.breaker.stats().outages_total == wholly
            assert platform.asked < (10 if wholly else 600)

    simulate(scenario, workers=4)


def test_a_namespace_that_cannot_be_read_neither_shuts_the_breaker_nor_restarts_us() -> None:
    async def scenario(world: World) -> None:
        kube = trouble(world, UnreadableSecrets)
        world.add_project(OTHER)
        world.add("2Aa")
        world.add("2Ab", project=OTHER)
        async with running(world):
            await finished(world, 1)
            kube.on = True
            world.faults.drop_watches()
            for _ in range(300):
                await asyncio.sleep(10)
                assert world.controller.health.liveness_problem() == ""
                assert not world.endpoints.kube_breaker.is_open
                # Its token is renewed by its deadline, which needs no watch.
                assert world.left_s(world.token("2Ab", OTHER)) > 270

    simulate(scenario, namespaces=(PROJECT, OTHER))


def test_watches_that_say_nothing_keep_no_token_from_being_written() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(30)
            world.faults.silence_watches(silent=True)
            note = {"metadata": {"annotations": {"example.com/note": "x"}}}
            world.core.patch(SECRETS, PROJECT, NAMES.secret_name("2Aa"), note, by=INTRUDER)
            for _ in range(200):
                await asyncio.sleep(10)
                assert world.remaining_s("2Aa") > 270
            world.add("2Anew")
            async with asyncio.timeout(600):
                while world.token("2Anew") not in world.issuer.minted:
                    await asyncio.sleep(1)
            assert world.controller.stats.failures["Conflict"] < 10

    simulate(scenario)


def test_a_session_that_the_platform_commits_late_has_its_token_in_seconds() -> None:
    async def scenario(world: World) -> None:
        async with running(world):
            await asyncio.sleep(100)
            world.add("2Aa", known=False)
            await asyncio.sleep(3)
            assert world.token("2Aa") not in world.issuer.minted
            world.platform.sessions["2Aa"] = PlatformSession(
                id="2Aa", project_id=PROJECT, phase="Running"
            )
            async with asyncio.timeout(10):
                while world.token("2Aa") not in world.issuer.minted:
                    await asyncio.sleep(0.5)

    simulate(scenario)


@pytest.mark.parametrize("status", [429, 503])
def test_a_peer_that_asks_for_an_hour_is_asked_again_within_minutes(status: int) -> None:
    async def scenario(world: World) -> None:
        kind = TooManyRequests if status == 429 else ServerError
        later = InjectedFault(kind("later", status=status, retry_after_s=3600.0))
        async with running(world):
            await asyncio.sleep(10)
            world.faults.fail_next(later, verb="patch", resource="secrets")
            world.add("2Aa")
            async with asyncio.timeout(150):
                while world.token("2Aa") not in world.issuer.minted:
                    await asyncio.sleep(1)

    simulate(scenario)
