"""A slow, failing or hanging target costs the others nothing: the whole controller."""

import asyncio
from collections import Counter
from typing import Any
from unittest import mock

import pytest
from msgspec.structs import replace

from reconciler.clock import Instant
from reconciler.controller.controller import Controller
from reconciler.controller.decide.bulkhead import BulkheadRun
from reconciler.errors import KubeError, PlatformUnavailable, ServerError, TransportError
from reconciler.kube.api import ApiResource, ListOptions, ObjectMeta, Page
from reconciler.kube.list_slots import PARALLEL, TURN_S
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.in_process_client import InProcessKube
from reconciler.lab.apiserver.kinds import SECRETS
from reconciler.net.circuit_breaker import PROBE_S
from reconciler.platform.models import PlatformSession
from reconciler.tokens.token_response import TokenResponse
from tests.unit.controller.succession import Succession
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


class SlowWrites:
    """A way to the API server on which writes of Secrets take long where `slow` says so.

    `slow` maps a namespace to the seconds that an answer takes, and the error that it then is.
    """

    def __init__(self, inner: Any) -> None:
        self._inner: InProcessKube = inner
        self.slow: dict[str, tuple[float, KubeError | None]] = {}
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def patch(
        self, resource: ApiResource[ObjectMeta], namespace: str, *args: Any, **more: Any
    ) -> Any:
        wait_s, error = self.slow.get(namespace, (0.0, None))
        if resource.plural != "secrets" or not wait_s:
            return await self._inner.patch(resource, namespace, *args, **more)
        self.asked[namespace] += 1
        self.under_way[namespace] += 1
        self.most[namespace] = max(self.most[namespace], self.under_way[namespace])
        try:
            await asyncio.sleep(wait_s)
        finally:
            self.under_way[namespace] -= 1
        if error is not None:
            raise error
        return await self._inner.patch(resource, namespace, *args, **more)


class SlowLists:
    """A way to the API server on which a list takes `list_s`, and `hangs_s` where it hangs."""

    def __init__(self, inner: Any) -> None:
        self._inner: InProcessKube = inner
        self.list_s = 0.0
        self.hangs_s = 60.0
        self.hanging: set[str] = set()
        self.under_way = self.most = 0
        self.ended_at: dict[str, Instant] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def list(self, resource: ApiResource[Any], scope: ListOptions, **more: Any) -> Page[Any]:
        namespace = scope.namespace or ""
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.hangs_s if namespace in self.hanging else self.list_s)
            if namespace in self.hanging:
                raise TransportError("no answer in time")
            return await self._inner.list(resource, scope, **more)
        finally:
            self.under_way -= 1
            self.ended_at[namespace] = Instant(asyncio.get_running_loop().time())


def slow_writes(world: World) -> SlowWrites:
    kube = SlowWrites(world.ports.kube)
    seam: Any = kube
    world.controller = Controller(replace(world.ports, kube=seam), world.endpoints, world.config)
    return kube


async def first_token_s(world: World, session: str, project: str = PROJECT) -> float:
    """Add a session and return the seconds until its Secret has a token of ours."""
    began_at = world.clock.monotonic()
    world.add(session, project=project)
    async with asyncio.timeout(600):
        while world.token(session, project) not in world.issuer.minted:
            await asyncio.sleep(0.05)
    return world.clock.monotonic() - began_at


async def expired_s(world: World, sessions: list[str], *, during_s: int) -> int:
    """Return for how many seconds, of all these together, a Secret held an expired token."""
    expired = 0
    for _ in range(during_s):
        await asyncio.sleep(1)
        expired += sum(world.remaining_s(session) <= 0 for session in sessions)
    return expired


HANGS = (10.0, TransportError("no answer in 10 s"))


class OneSlowFailure(FakePlatform):
    """Answers look-ups at once, but for the next `slow` ones, which fail after 2 s."""

    slow = 0

    async def session(self, session_id: str, project: str | None) -> PlatformSession | None:
        if self.slow:
            self.slow -= 1
            await asyncio.sleep(2.0)
            raise PlatformUnavailable("answered 503", status=503)
        return await super().session(session_id, project)


def test_a_webhook_that_hangs_and_one_slow_look_up_delay_no_new_session_elsewhere() -> None:
    async def scenario(world: World) -> None:
        platform = OneSlowFailure(world.platform.breaker)
        world.platform = platform
        world.endpoints = replace(world.endpoints, platform=platform)
        kube = slow_writes(world)
        world.add_project(OTHER)
        for number in range(2000):
            world.add(f"2Ab{number}", project=OTHER)
        async with running(world):
            await finished(world, 1)
            kube.slow[OTHER] = HANGS
            await asyncio.sleep(700)  # by now every session there is urgent, or past it
            assert kube.asked[OTHER] > 0
            platform.slow = 1
            waits = [await first_token_s(world, f"2Aa{number}") for number in range(20)]
            # The first one's look-up fails after 2 s; it is retried on its own back-off.
            assert waits[0] < 2.0 + 1.5
            assert max(waits[1:]) < 1.5
            # What hangs is asked all the time, by one request at least, and by few.
            assert kube.under_way[OTHER] >= 1
            # It recovers: everything there is written again, and nothing waits for a timer.
            kube.slow.clear()
            await asyncio.sleep(30)
            rest = [world.token(f"2Ab{n}", OTHER) for n in range(2000)]
            assert min(world.left_s(token) for token in rest) > 0.5 * 900

    simulate(scenario)


def test_one_slow_failure_in_a_namespace_delays_its_next_write_by_nothing() -> None:
    async def scenario(world: World) -> None:
        kube = slow_writes(world)
        world.add_project(OTHER)
        for number in range(500):
            world.add(f"2Ab{number}", project=OTHER)
        async with running(world):
            await finished(world, 1)
            kube.slow[OTHER] = HANGS
            await asyncio.sleep(700)
            kube.slow[PROJECT] = (3.0, ServerError("answered 503", status=503))
            world.add("2Aa0")
            await asyncio.sleep(2)
            assert kube.under_way[PROJECT] == 1
            del kube.slow[PROJECT]
            await asyncio.sleep(1.5)  # it has failed by now
            assert kube.under_way[PROJECT] == 0
            assert await first_token_s(world, "2Aa1") < 1.5

    simulate(scenario, workers=8)


def test_a_worker_keeps_its_place_from_run_to_run() -> None:
    """A worker that gave it back would wake another one, which finds none."""

    async def scenario(world: World) -> None:
        for number in range(100):
            world.add(f"2Ab{number}")
        shell, begun = world.controller.bulkhead, 0
        begin = shell.begin

        async def counted() -> BulkheadRun:
            nonlocal begun
            begun += 1
            return await begin()

        with mock.patch.object(shell, "begin", counted):
            async with running(world):
                await finished(world, 1)
        assert len(world.events("runner_token_refreshed")) == 100
        assert begun <= shell.runs_at_most

    simulate(scenario, workers=4)


def test_writes_that_succeed_slowly_in_one_namespace_expire_no_token_in_another() -> None:
    async def scenario(world: World) -> None:
        kube = slow_writes(world)
        world.add_project(OTHER)
        healthy = [f"2Aa{number}" for number in range(50)]
        for session in healthy:
            world.add(session)
        for number in range(500):
            world.add(f"2Ab{number}", project=OTHER)
        async with running(world):
            await finished(world, 1)
            kube.slow[OTHER] = (9.0, None)
            assert await expired_s(world, healthy, during_s=4000) == 0
            assert kube.most[OTHER] <= 4

    simulate(scenario, workers=4)


@pytest.mark.parametrize("down_s", [120])
def test_while_the_api_server_is_down_it_is_asked_by_one_probe_and_by_no_worker(
    down_s: int,
) -> None:
    """Reflectors go on at their own pace; workers ask nothing, however urgent their sessions."""

    async def scenario(world: World) -> None:
        for number in range(50):
            world.add(f"2Ab{number}")
        asked: Counter[tuple[str, str]] = Counter()

        def judge(verb: str, plural: str) -> InjectedFault:
            asked[verb, plural] += 1
            return InjectedFault(TransportError("no route"))

        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(500)
            world.faults.rule = judge
            world.faults.drop_watches()
            async with asyncio.timeout(60):
                while not world.endpoints.kube_breaker.is_open:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            asked.clear()
            await asyncio.sleep(down_s)
            # Some became due in the meantime, and each was tried again and again.
            assert world.controller.stats.failures["TransportError"] > 50
            probes = asked.pop(("ready", ""))
            assert down_s / PROBE_S - 1 <= probes <= 2 * down_s / PROBE_S
            workers = {what for what in asked if what[0] in ("patch", "create", "get")}
            assert workers == set()
            assert {verb for verb, _ in asked} <= {"list", "watch"}
            assert asked.total() <= 4 * (3 + down_s / 8)

    simulate(scenario)


NAMESPACES = [f"team-{number}" for number in range(40)]


def test_a_takeover_relists_many_namespaces_in_slices_and_writes_beside_them() -> None:
    """Each namespace's lists take 12 s, and those of four hang."""

    async def scenario(world: World) -> None:
        kube = SlowLists(world.ports.kube)
        seam: Any = kube
        leadership = Succession()
        ports = replace(world.ports, kube=seam, leadership=leadership)
        for name in NAMESPACES:
            world.add_project(name)
            world.add(f"2A{name}", project=name)
        async with running(world, Controller(ports, world.endpoints, world.config)):
            await asyncio.sleep(60)
            kube.list_s, kube.hanging, kube.most = 12.0, set(NAMESPACES[:4]), 0
            kube.ended_at.clear()
            leadership.begin()
            async with asyncio.timeout(5):
                while len(world.events("runner_token_refreshed")) < len(NAMESPACES):
                    await asyncio.sleep(0.1)
            healthy = set(NAMESPACES[4:])
            slices = 2 * len(NAMESPACES) / PARALLEL
            await asyncio.sleep(slices * TURN_S + kube.list_s)
            assert healthy <= set(kube.ended_at)
            # Those that gave their slot to the next are in flight in addition to those with a slot.
            assert kube.most <= PARALLEL * (1 + kube.list_s / TURN_S) + 2 * len(kube.hanging)

    simulate(scenario, namespaces=tuple(NAMESPACES))


def test_writes_just_too_fast_to_be_slow_in_one_namespace_delay_no_new_session_elsewhere() -> None:
    """More of them than the workers can make: most keys of that namespace are urgent."""

    async def scenario(world: World) -> None:
        kube = slow_writes(world)
        world.add_project(OTHER)
        for number in range(1500):
            world.add(f"2Ab{number}", project=OTHER)
        async with running(world):
            await finished(world, 1)
            kube.slow[OTHER] = (0.95, None)
            await asyncio.sleep(1100)  # by now hundreds there have expired
            waits = [await first_token_s(world, f"2Aa{number}") for number in range(5)]
            assert max(waits) < 0.5
            assert kube.under_way[OTHER] >= 1

    simulate(scenario, workers=2)


class SlowLookups(FakePlatform):
    """Takes a moment for each look-up."""

    takes_s = 0.05

    async def session(self, session_id: str, project: str | None) -> PlatformSession | None:
        await asyncio.sleep(self.takes_s)
        return await super().session(session_id, project)


def test_pods_without_a_session_in_one_namespace_delay_no_new_session_in_another() -> None:
    async def scenario(world: World) -> None:
        platform = SlowLookups(world.platform.breaker)
        world.platform = platform
        world.endpoints = replace(world.endpoints, platform=platform)
        world.add_project(OTHER)
        async with running(world):
            await finished(world, 1)
            for number in range(1000):
                world.add_pod(f"9Forged{number}", project=OTHER)
            asked = platform.lookups
            assert await first_token_s(world, "2Aa0") < 0.5
            assert platform.lookups - asked < 100

    simulate(scenario)


def test_a_run_that_waits_for_a_slow_issuer_keeps_no_other_from_the_available_token() -> None:
    async def scenario(world: World) -> None:
        for number in range(20):
            world.add(f"2Ab{number}")
        ask = world.issuer.ask

        async def slow() -> TokenResponse:
            await asyncio.sleep(9)
            return await ask()

        async with running(world):
            await finished(world, 1)
            world.source._send_request = slow
            await asyncio.sleep(300)
            best = world.source.best()
            while best is None or not 820 < best.remaining_s(world.clock.monotonic()) < 850:
                await asyncio.sleep(1)
                best = world.source.best()
            asked = world.issuer.requests
            body = {"metadata": {"annotations": {NAMES.requested_at: "now"}}}
            world.core.patch(SECRETS, PROJECT, NAMES.secret_name("2Ab0"), body, by=INTRUDER)
            await asyncio.sleep(2)
            world.overwrite("2Ab1")
            await asyncio.sleep(1)
            assert world.token("2Ab1") in world.issuer.minted
            assert world.issuer.requests == asked  # it has not answered yet
            await asyncio.sleep(10)
            assert world.issuer.requests == asked + 1

    simulate(scenario)
