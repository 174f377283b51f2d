"""/livez fails for what only a restart can mend, and for nothing that the peers do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.controller.controller import Controller
from reconciler.controller.status.health import STUCK_S
from reconciler.errors import TransportError
from reconciler.informer.reflector import LIST_S
from reconciler.kube.api import ApiResource, ListOptions, Page
from reconciler.lab.apiserver.in_process_client import InProcessKube, InProcessWatch
from tests.unit.controller.virtual import PROJECT, World, finished, running, simulate

OTHER = "team-b"


class Hanging:
    """A Kube whose lists and watches in some namespaces take their whole limit, or never end."""

    def __init__(self, inner: Any) -> None:
        self._inner: InProcessKube = inner
        self.namespaces: set[str | None] = set()
        self.limit_s: float | None = LIST_S
        self.hung = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def _hang(self, scope: ListOptions) -> None:
        if scope.namespace not in self.namespaces:
            return
        self.hung += 1
        if self.limit_s is None:
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(self.limit_s)
        raise TransportError(f"list in {scope.namespace}: no answer in {self.limit_s} s")

    async def list(self, resource: ApiResource[Any], scope: ListOptions, **more: Any) -> Page[Any]:
        await self._hang(scope)
        return await self._inner.list(resource, scope, **more)

    @asynccontextmanager
    async def watch(
        self, resource: ApiResource[Any], scope: ListOptions, **more: Any
    ) -> AsyncIterator[InProcessWatch[Any]]:
        if scope.namespace in self.namespaces:
            raise TransportError("connection reset")
        async with self._inner.watch(resource, scope, **more) as opened:
            yield opened


def hanging(world: World) -> Hanging:
    kube = Hanging(world.ports.kube)
    world.controller = Controller(replace(world.ports, kube=kube), world.endpoints, world.config)
    return kube


async def begin_to_hang(world: World, kube: Hanging, *namespaces: str | None) -> None:
    """Have lists hang from now on, and none go on by its watch."""
    kube.namespaces = set(namespaces)
    world.faults.drop_watches()
    for reflector in world.controller.informers.reflectors:
        if reflector.stats().namespace in kube.namespaces:
            reflector.distrust()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("watched", "broken"),
    [((PROJECT, OTHER), OTHER), ((PROJECT,), PROJECT), ((), None)],
    ids=["one of two", "the only one", "all in one"],
)
def test_lists_that_time_out_restart_no_replica(watched: tuple[str, ...], broken: Any) -> None:
    async def scenario(world: World) -> None:
        world.add_project(OTHER)
        world.add("2Ab0")
        kube = hanging(world)
        async with running(world):
            await finished(world, 1)
            await begin_to_hang(world, kube, broken)
            for _ in range(int(4 * STUCK_S) // 10):
                await asyncio.sleep(10)
                # The breaker does not excuse it: others may be answered all the while.
                world.endpoints.kube_breaker.succeeded()
                assert world.controller.health.liveness_problem() == ""
            assert kube.hung > 10
            assert world.remaining_s("2Ab0") > 300

    simulate(scenario, namespaces=watched)


def test_a_list_that_never_ends_is_what_a_restart_mends() -> None:
    async def scenario(world: World) -> None:
        world.add_project(OTHER)
        kube = hanging(world)
        async with running(world):
            await finished(world, 1)
            kube.limit_s = None
            await begin_to_hang(world, kube, OTHER)
            await asyncio.sleep(STUCK_S - 10)
            assert world.controller.health.liveness_problem() == ""
            await asyncio.sleep(400)
            assert "team-b" in world.controller.health.liveness_problem()

    simulate(scenario, namespaces=(PROJECT, OTHER))


def test_a_quiet_cluster_is_no_stall() -> None:
    async def scenario(world: World) -> None:
        async with running(world):
            for _ in range(720):
                await asyncio.sleep(10)
                assert world.controller.health.liveness_problem() == ""

    simulate(scenario)
