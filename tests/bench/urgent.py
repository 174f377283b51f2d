"""`python -m tests.bench.urgent`: an urgent session's wait while the watch of pods has a backlog.

The whole controller runs in one process over generated objects, as in `tests.bench.memory`. Its
watch of pods never runs dry: each read has a chunk of events at once, as from a server that is
ahead. At the same time another writer overwrites one Secret after another. The wait, from the
Secret's event to the PATCH, is CPU of the event loop's thread: all that the loop did in between.
Other processes on the same cores do not count, and neither do the peers that are played here.
"""

import argparse
import asyncio
import gc
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar

from reconciler.app.memory import freeze, map_large_blocks
from reconciler.app.telemetry import open_telemetry
from reconciler.clock import EpochTime, SystemClock, format_utc
from reconciler.controller.compose import compose
from reconciler.controller.runtime import ControllerConfig
from reconciler.kube.api import ApiResource, Event, ListOptions
from reconciler.telemetry.log_setup import configure_logs
from tests.bench.figures import quantile
from tests.bench.memory import NAMES, PEERS, Cluster, partial, ports

T = TypeVar("T")

CHUNK = 400
"""Events of pods that one read brings: 256 KiB, the buffer of a connection."""


class StormCluster(Cluster):
    """A cluster in which all pods change without a pause, once `storm` is set."""

    def __init__(self, sessions: int) -> None:
        super().__init__(sessions)
        self.storm = asyncio.Event()
        self.changes = 0
        self.waits_s: list[float] = []
        self._annotations: dict[int, Mapping[str, Any]] = {}
        self._overwritten: dict[int, float] = {}
        self._numbers = itertools.cycle(range(sessions))
        self._lines = [self._pod_line(number) for number in range(sessions)]

    def _pod_line(self, number: int) -> bytes:
        meta = self._metadata("pods", number) | {"resourceVersion": "VERSION"}
        return json.dumps({"type": "MODIFIED", "object": partial(meta)}).encode()

    def pod_changes(self) -> list[bytes]:
        """Return the next chunk of the pods' watch."""
        self.changes += CHUNK
        lines = []
        for number in itertools.islice(self._numbers, CHUNK):
            self._version += 1
            lines.append(self._lines[number].replace(b"VERSION", b"%d" % self._version))
        return lines

    @asynccontextmanager
    async def watch(
        self, resource: ApiResource[T], scope: ListOptions, *, version: str, timeout_s: int
    ) -> AsyncIterator[Any]:
        async with super().watch(resource, scope, version=version, timeout_s=timeout_s) as found:
            yield _Backlog(resource, self) if resource.plural == "pods" else found

    def overwrite(self, number: int) -> None:
        """Send the event of another writer's write to a Secret's data."""
        with PEERS.playing():
            self._version += 1
            self.versions[number] = self._version
            meta = self._metadata("secrets", number)
            meta["annotations"] = self._annotations[number]
            meta["managedFields"][0]["time"] = format_utc(EpochTime(time.time()))
            self._send("secrets", meta)
        self._overwritten[number] = _own_cpu_s()

    async def patch(
        self,
        resource: ApiResource[T],
        namespace: str,
        name: str,
        body: Mapping[str, Any],
        *,
        limit_s: float = 10.0,
        permit: Any = None,
    ) -> T:
        if resource.plural == "secrets":
            number = int(name.split("-")[1][3:])
            self._annotations[number] = body["metadata"]["annotations"]
            if (began_s := self._overwritten.pop(number, None)) is not None:
                self.waits_s.append(_own_cpu_s() - began_s)
        return await super().patch(resource, namespace, name, body, limit_s=limit_s, permit=permit)


class _Backlog:
    """A watch of pods on which a read never waits, but lets the event loop run once."""

    def __init__(self, resource: ApiResource[Any], cluster: StormCluster) -> None:
        self._resource = resource
        self._cluster = cluster
        self._lines: list[bytes] = []

    async def receive(self, *, idle_s: float) -> Event[Any] | None:
        if not self._lines:
            await self._cluster.storm.wait()
            await asyncio.sleep(0)
            with PEERS.playing():
                self._lines = self._cluster.pod_changes()
        return self._resource.decode_event(self._lines.pop())


def _own_cpu_s() -> float:
    return time.thread_time() - PEERS.cpu_s


async def _measure(sessions: int, urgent: int) -> dict[str, float]:
    clock, cluster = SystemClock(), StormCluster(sessions)
    async with open_telemetry(clock, replica="replica-0") as telemetry:
        config = ControllerConfig(names=NAMES, on_synced=freeze, touch=False)
        controller = compose(ports(sessions, cluster, clock, telemetry), config)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(controller.run(stop))
            await controller.startup.finished.wait()
            cluster.storm.set()
            used_s, before = _own_cpu_s(), cluster.changes
            for number in Random(1).sample(range(sessions), urgent):
                due_s = _own_cpu_s() + 0.02
                while _own_cpu_s() < due_s:
                    await asyncio.sleep(0)
                cluster.overwrite(number)
            while len(cluster.waits_s) < urgent:
                await asyncio.sleep(0)
            used_s, changes = _own_cpu_s() - used_s, cluster.changes - before
            cluster.storm.clear()
            stop.set()
    waits_ms = [wait_s * 1e3 for wait_s in cluster.waits_s]
    return {
        "changes_per_cpu_s": round(changes / used_s),
        **{
            f"urgent_{name}_cpu_ms": round(quantile(waits_ms, share), 2)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0))
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.urgent", description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--urgent", type=int, default=200)
    arguments = parser.parse_args()
    configure_logs("ERROR", "json")
    gc.freeze()  # as a run does, and what follows
    map_large_blocks()
    print(json.dumps(asyncio.run(_measure(arguments.sessions, arguments.urgent)), indent=2))
