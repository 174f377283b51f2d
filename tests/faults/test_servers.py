"""Faults of whole processes: API server and etcd killed, stopped, out of space; full disks."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest

from tests.assets import find
from tests.assets.programs import OLDEST_APISERVER
from tests.cluster import etcd
from tests.cluster.admin import SECRETS
from tests.cluster.conftest import NEEDED, require, unavailable
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import ExpiryWatch, World, open_fleet
from tests.controller import COMMAND, Controller, running
from tests.faults.proxy import FaultProxy
from tests.faults.stage import (
    FAULT_S,
    LIMIT_S,
    MOST_A_SECOND,
    MOST_IN_A_BURST,
    SAMPLE_S,
    SESSIONS,
    SETTINGS,
    TTL_S,
    Peer,
    environment,
    open_proxy,
)

pytestmark = [pytest.mark.cluster, pytest.mark.realtime, pytest.mark.timeout(400)]

SURVIVABLE_S = 0.4 * TTL_S - 2.0
"""A fault that took longer, since the machine was busy, may cost tokens."""

Fault = Callable[[ControlPlane, Controller], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def held(begin: Callable[[], None], end: Callable[[], None]) -> AsyncIterator[None]:
    await asyncio.to_thread(begin)
    try:
        yield
        await asyncio.sleep(FAULT_S)
    finally:
        await asyncio.to_thread(end)


def compacted_and_restarted(
    plane: ControlPlane, _: Controller
) -> AbstractAsyncContextManager[None]:
    """A watch at a version from before gets a 410: history and watch cache begin after it."""

    def begin() -> None:
        etcd.compact(plane.etcd_url, plane.revision())
        plane.kill_apiserver()

    return restarted(plane, begin)


@asynccontextmanager
async def restarted(plane: ControlPlane, begin: Callable[[], None]) -> AsyncIterator[None]:
    await asyncio.to_thread(begin)
    yield
    await asyncio.to_thread(plane.start_apiserver)


FAULTS: dict[str, Fault] = {
    "API server killed, etcd stays": lambda plane, _: restarted(plane, plane.kill_apiserver),
    "API server stopped": lambda plane, _: held(plane.pause, plane.resume),
    "etcd stopped": lambda plane, _: held(plane.etcd.pause, plane.etcd.resume),
    "etcd compacted to now, API server killed": compacted_and_restarted,
    "etcd out of space": lambda plane, _: held(
        lambda: etcd.set_no_space(plane.etcd_url, on=True),
        lambda: etcd.set_no_space(plane.etcd_url, on=False),
    ),
    "product stopped": lambda _, controller: held(
        lambda: controller.process.send_signal(signal.SIGSTOP),
        lambda: controller.process.send_signal(signal.SIGCONT),
    ),
}


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    """A separate control plane: its faults would be those of other tests, too."""
    with ControlPlane(require(*NEEDED)) as control_plane:
        yield control_plane


async def overwrite(world: World) -> None:
    body = {"stringData": {"api-token": "obviously-fake-intruder"}}
    for runner in world.runners:
        await world.admin.patch(runner.namespace, SECRETS, runner.secret, body)


async def all_repaired(world: World) -> None:
    async with asyncio.timeout(LIMIT_S):
        for runner in world.runners:
            while await world.token(runner) not in world.issuer.issued:
                await asyncio.sleep(SAMPLE_S)


async def play(
    name: str, fault: Fault, world: World, controller: Controller, proxy: FaultProxy
) -> float:
    """Play one fault until its effects have ended; return how long it took."""
    began_at = monotonic()
    async with fault(world.control_plane, controller):
        pass
    ended_at = monotonic()
    await overwrite(world)
    await all_repaired(world)
    came = [at for at, _ in proxy.requests]
    rate = sum(began_at <= at < ended_at for at in came) / (ended_at - began_at)
    burst = max(Counter(int(at - ended_at) for at in came if at >= ended_at).values(), default=0)
    print(
        f"{name}: {ended_at - began_at:.1f} s, {rate:.1f} requests a second, then {burst} in one;"
        f" repaired after {monotonic() - ended_at:.1f} s"
    )
    assert rate <= MOST_A_SECOND, name
    assert burst <= MOST_IN_A_BURST, name
    return ended_at - began_at


async def test_no_fault_of_a_server_costs_a_token_or_makes_a_flood(
    plane: ControlPlane, tmp_path: Path
) -> None:
    async with (
        open_fleet(plane, tmp_path, sessions=SESSIONS, ttl_s=TTL_S) as world,
        open_proxy(world, Peer.API_SERVER).running() as proxy,
    ):
        watch = ExpiryWatch(world)
        settings = environment(world, Peer.API_SERVER, proxy.url)
        async with watch.polling(), running(settings) as controller:
            await controller.wait_for_event("startup_resync_finished", limit_s=LIMIT_S)
            await all_repaired(world)
            longest_s = 0.0
            for name, fault in FAULTS.items():
                longest_s = max(longest_s, await play(name, fault, world, controller, proxy))
            assert await controller.terminate() == 0
        assert "Traceback" not in "".join(controller.text)
        if longest_s < SURVIVABLE_S:
            assert watch.expired_s == 0.0


async def test_the_oldest_and_the_newest_api_server_behind_one_address(
    plane: ControlPlane, tmp_path: Path
) -> None:
    found = find([OLDEST_APISERVER])
    if not found:
        unavailable(f"no kube-apiserver {OLDEST_APISERVER.version}: run `make assets`")
    [oldest] = found.values()
    with plane.another(oldest) as url:
        async with open_fleet(plane, tmp_path, sessions=SESSIONS, ttl_s=TTL_S) as world:
            proxy, watch = open_proxy(world, Peer.API_SERVER), ExpiryWatch(world)
            proxy.upstreams.append(url)
            async with proxy.running(), watch.running():
                settings = environment(world, Peer.API_SERVER, proxy.url)
                async with running(settings) as controller:
                    await controller.wait_for_event("startup_resync_finished", limit_s=LIMIT_S)
                    end_at = monotonic() + TTL_S
                    while monotonic() < end_at:  # with connections to both, and new ones
                        await overwrite(world)
                        await all_repaired(world)
                        proxy.reset_connections()
                    assert await controller.terminate() == 0
                assert "Traceback" not in "".join(controller.text)
            assert not controller.events("history_rewound")
            assert watch.expired_s == 0.0


@pytest.mark.parametrize(
    "log", ["/dev/full", "$HOME/log"], ids=["a full disk", "a limit of the file's size"]
)
async def test_a_log_that_cannot_be_written_stops_no_refresh(
    log: str, plane: ControlPlane, tmp_path: Path
) -> None:
    async with open_fleet(plane, tmp_path, sessions=SESSIONS, ttl_s=TTL_S) as world:
        watch = ExpiryWatch(world)
        command = ("sh", "-c", f"ulimit -f 1; exec {COMMAND} run 2>{log}")
        settings = world.environment(**SETTINGS, HOME=str(tmp_path))
        async with watch.running(), running(settings, command=command) as controller:
            await all_repaired(world)
            old = set(world.issuer.issued)
            async with asyncio.timeout(LIMIT_S):
                for runner in world.runners:
                    while await world.token(runner) in old:
                        await asyncio.sleep(SAMPLE_S)
            assert await controller.terminate() == 0
        assert watch.expired_s == 0.0
