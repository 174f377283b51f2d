"""Whole runs against a small cluster that writes, forgets and fails at random, from a seed."""

import asyncio
from bisect import bisect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler.clock import Instant
from reconciler.errors import Gone, KubeError, ProtocolError, ServerError, TransportError
from reconciler.informer.reflector import ObjectHandlers, Reflector
from reconciler.informer.store import Change, Store
from reconciler.kube.api import ApiResource, Event, Kube, ListOptions, ObjectMeta, Page, Watch
from reconciler.kube.decoding import metadata_resource
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.naming import Names
from reconciler.net.circuit_breaker import CircuitBreaker
from tests.unit.informer.fake_kube import FakeKube
from tests.unit.informer.objects import bookmark, event, meta, page

FAULTS: list[KubeError | ProtocolError] = [
    TransportError("reset"),
    ServerError("500", status=500),
    ProtocolError("garbage"),
    Gone("410", status=410),
]
PULSE_S = 60.0


@dataclass
class RandomCluster(FakeKube, Kube):
    """Keeps versions as the API server does: one counter, a history that may be compacted."""

    lists: list[Any] = field(default_factory=list)
    random: Random = field(default_factory=Random)
    objects: dict[str, ObjectMeta] = field(default_factory=dict)
    history: list[Event[ObjectMeta]] = field(default_factory=list)
    version: int = 10
    compacted: int = 0
    fault_rate: float = 0.0
    opened: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self) -> ObjectMeta:
        """Create, change, delete or recreate one object; return its last state."""
        name = self.random.choice("abcdefgh")
        old = self.objects.get(name)
        self.version += self.random.randint(1, 3)
        if old is not None and self.random.random() < 0.4:
            new = meta(name, self.version, uid=old.uid)
            del self.objects[name]
            self.history.append(event("DELETED", new))
        else:
            new = meta(name, self.version, uid=old.uid if old else f"uid-{self.version}")
            self.objects[name] = new
            self.history.append(event("MODIFIED" if old else "ADDED", new))
        self.moved.set()
        self.moved = asyncio.Event()
        return new

    def fault(self) -> None:
        if self.random.random() < self.fault_rate:
            raise self.random.choice(FAULTS)

    async def list(self, *args: object, version: str = "", **kwargs: object) -> Page[Any]:
        await asyncio.sleep(self.random.uniform(0.01, 2.0))
        self.fault()
        answer = page(self.version, *self.objects.values())
        await asyncio.sleep(self.random.uniform(0.01, 2.0))
        return answer

    @asynccontextmanager
    async def watch(
        self, resource: ApiResource[Any], scope: ListOptions, *, version: str, timeout_s: int
    ) -> AsyncIterator[Watch[Any]]:
        self.opened += 1
        await asyncio.sleep(self.random.uniform(0.01, 0.5))
        self.fault()
        if int(version) < self.compacted:
            raise Gone("compacted", status=410)
        yield RandomWatch(self, int(version), timeout_s)


class RandomWatch(Watch[ObjectMeta]):
    """Sends the history after a version, a bookmark a minute, and now and then a fault."""

    def __init__(self, cluster: RandomCluster, version: int, timeout_s: int) -> None:
        self._cluster = cluster
        self._version = version
        self._ends_at = asyncio.get_running_loop().time() + timeout_s

    async def receive(self, *, idle_s: float) -> Event[ObjectMeta] | None:
        cluster = self._cluster
        while True:
            if cluster.random.random() < cluster.fault_rate / 20:
                raise cluster.random.choice(FAULTS)
            place = bisect(cluster.history, self._version, key=lambda item: int(item.version))
            if place < len(cluster.history):
                await asyncio.sleep(cluster.random.choice([0.0, 0.0, 0.3]))
                self._version = int(cluster.history[place].version)
                return cluster.history[place]
            left_s = self._ends_at - asyncio.get_running_loop().time()
            if left_s <= 0:
                return None
            try:
                async with asyncio.timeout(min(PULSE_S, left_s)):
                    await cluster.moved.wait()
            except TimeoutError:
                self._version = cluster.version
                return bookmark(cluster.version)


@dataclass
class Mirror:
    """What a caller knows from changes alone."""

    objects: dict[str, ObjectMeta] = field(default_factory=dict)

    def hear(self, change: Change) -> None:
        item = change.new or change.old
        assert item is not None
        assert self.objects.pop(item.name, None) == change.old
        if change.new is not None:
            self.objects[item.name] = change.new


async def live_through(seed: int, hours: float, fault_rate: float) -> tuple[Reflector, list[int]]:
    """Write for so many hours under faults, some writes being our own, then let it settle."""
    random = Random(seed)
    clock = VirtualClock(asyncio.get_running_loop())
    cluster = RandomCluster(random=random, fault_rate=fault_rate)
    store, mirror = Store("pods"), Mirror()
    breaker = CircuitBreaker("kube", clock, random)
    resource = metadata_resource("pods", Names())
    reflector = Reflector(
        cluster,
        resource,
        ListOptions(),
        store,
        clock,
        random,
        breaker,
        ObjectHandlers(mirror.hear),
    )
    running = asyncio.create_task(reflector.run())
    while clock.monotonic() < Instant(hours * 3600):
        await asyncio.sleep(random.expovariate(1 / 5))
        written = cluster.write()
        if written.name in cluster.objects and random.random() < 0.5:
            await asyncio.sleep(random.uniform(0.0, 1.0))
            change = store.apply_write_response(written)
            if change is not None:
                mirror.hear(change)
        if random.random() < fault_rate / 5:
            cluster.compacted = cluster.version
    cluster.fault_rate = 0.0
    await asyncio.sleep(120.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert mirror.objects == cluster.objects
    assert {item.name: item for item in store.snapshot()} == cluster.objects
    stats = reflector.stats()
    assert stats.callback_crashes == 0
    return reflector, [stats.protocol.lists, cluster.opened]


@pytest.mark.parametrize("seed", range(6))
def test_after_any_faults_the_store_and_the_callers_end_equal_to_the_cluster(seed: int) -> None:
    with capture_logs():
        reflector, _ = run_virtual(live_through(seed, hours=1.0, fault_rate=0.3))
    assert reflector.stats().protocol.errors > 10


@pytest.mark.parametrize("seed", range(3))
def test_safety_lists_beside_a_busy_stream_raise_no_false_alarm(seed: int) -> None:
    with capture_logs():
        reflector, (lists, watches) = run_virtual(live_through(seed, hours=6.0, fault_rate=0.0))
    stats = reflector.stats().protocol
    assert stats.drift_found == 0
    assert stats.errors == 0
    assert 6 <= lists <= 13
    assert watches < 120
