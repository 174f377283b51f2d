"""`python -m tests.bench.memory`: what one session costs in memory, by component, and in stalls.

The whole controller runs its first start in a process of its own over generated objects: lists,
pages of the platform and answers to writes have the form of the real servers' and go through the
product's decoders. No object is kept here, so that the process holds what the product holds, less
the buffers of its sockets. One process measures its resident size and the event loop's stalls; a
second one traces each allocation to the product's module that made it.
"""

import argparse
import asyncio
import base64
import gc
import json
import os
import time
import tracemalloc
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, Generic, TypeVar
from unittest import mock

from reconciler.app.memory import freeze, map_large_blocks
from reconciler.app.telemetry import MetricsEndpoint, Telemetry, open_telemetry
from reconciler.clock import EpochTime, SystemClock, format_utc
from reconciler.controller.compose import compose
from reconciler.controller.ports import IssuerPort, Ports
from reconciler.controller.runtime import ControllerConfig
from reconciler.kube.api import ApiResource, Event, ListOptions, Page
from reconciler.leadership.api import AlwaysOpenFence, NoElection
from reconciler.naming import Names
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.api import OnPage
from reconciler.platform.models import PlatformPage, PlatformProject, PlatformSession, decode
from reconciler.platform.pagination import ListResult, PageQuery, ignore_page, read
from reconciler.telemetry.log_setup import configure_logs
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.token_response import TokenResponse
from reconciler.workqueue.items import Trigger

T = TypeVar("T")

NAMES = Names()
PROJECTS = 40
TTL_S = 900
MIB = 2**20
ROOT = Path(__file__).parents[2] / "reconciler"


def session_id(number: int) -> str:
    return f"2Ab{number:024d}"


class Cluster:
    """Sessions of one age in `PROJECTS` namespaces, as an API server sends their metadata."""

    def __init__(self, sessions: int) -> None:
        self._sessions = sessions
        self._began = format_utc(EpochTime(time.time() - 3600))
        self._version = 1_000_000
        self.versions = array("Q", [1000] * sessions)
        self.writes = 0
        self._events: list[tuple[asyncio.Queue[bytes], str]] = []

    def _metadata(self, kind: str, number: int) -> dict[str, Any]:
        project, session = f"team-{number % PROJECTS:04d}", session_id(number)
        name = NAMES.secret_name(session) if kind == "secrets" else f"session-{session.lower()}-pod"
        data: dict[str, Any] = {".": {}, f"f:{NAMES.secret_key}": {}}
        fields = {"f:data": data} if kind == "secrets" else {"f:spec": {"f:containers": {}}}
        return {
            "name": name,
            "namespace": project,
            "uid": f"{number:08x}-0000-4000-8000-{hash(kind) & 0xFFFFFFFFFFFF:012x}",
            "resourceVersion": str(self.versions[number] if kind == "secrets" else 900),
            "creationTimestamp": self._began,
            "labels": {
                NAMES.session_id: session,
                NAMES.project_id: project,
                NAMES.managed: "true",
                NAMES.managed_by_label: NAMES.managed_by,
            },
            "managedFields": [
                {
                    "manager": "ambient-control-plane",
                    "operation": "Update",
                    "apiVersion": "v1",
                    "time": self._began,
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {**fields, "f:metadata": {"f:labels": {".": {}}}, "f:type": {}},
                }
            ],
        }

    async def list(
        self,
        resource: ApiResource[T],
        scope: ListOptions,
        *,
        limit: int = 0,
        continue_token: str = "",
        version: str = "",
        limit_s: float = 30.0,
    ) -> Page[T]:
        await asyncio.sleep(0)
        start = int(continue_token or 0)
        end = min(self._sessions, start + (limit or self._sessions))
        meta = {"resourceVersion": str(self._version)}
        if end < self._sessions:
            meta["continue"] = str(end)
        with PEERS.playing():
            numbers = range(start, end)
            items = [partial(self._metadata(resource.plural, number)) for number in numbers]
            body = json.dumps({"metadata": meta, "items": items}).encode()
            del items
        return resource.decode_page(body)

    @asynccontextmanager
    async def watch(
        self, resource: ApiResource[T], scope: ListOptions, *, version: str, timeout_s: int
    ) -> AsyncIterator["_Watch[T]"]:
        lines: asyncio.Queue[bytes] = asyncio.Queue()
        entry = lines, resource.plural
        self._events.append(entry)
        try:
            yield _Watch(resource, lines)
        finally:
            self._events.remove(entry)

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
        await asyncio.sleep(0.002)
        if permit is not None:
            permit()
        with PEERS.playing():
            answer = self._patched(resource.plural, name, body)
        return resource.decode(answer)

    def _patched(self, plural: str, name: str, body: Mapping[str, Any]) -> bytes:
        number = int(name.split("-")[1][3:])
        meta = self._metadata(plural, number)
        self._version += 1
        if plural == "secrets":
            self.versions[number] = self._version
            self.writes += 1
            ours = {"manager": NAMES.field_manager, "time": format_utc(EpochTime(time.time()))}
            meta["managedFields"].append(meta["managedFields"][0] | ours)
        meta["resourceVersion"] = str(self._version)
        meta["annotations"] = body["metadata"]["annotations"]
        self._send(plural, meta)
        return json.dumps(partial(meta)).encode()

    def _send(self, plural: str, meta: dict[str, Any]) -> None:
        """Send the event of a change on the kind's watches."""
        line = json.dumps({"type": "MODIFIED", "object": partial(meta)}).encode()
        for lines, kind in self._events:
            if kind == plural:
                lines.put_nowait(line)

    async def get(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("no object is read")

    async def create(self, resource: ApiResource[T], *_: Any, **__: Any) -> T:
        await asyncio.sleep(0.002)
        meta = {"name": "event", "namespace": "team-0000", "uid": "1", "resourceVersion": "1"}
        return resource.decode(json.dumps(partial(meta)).encode())

    async def ready(self, *, limit_s: float = 5.0) -> None: ...


class _Watch(Generic[T]):
    def __init__(self, resource: ApiResource[T], lines: "asyncio.Queue[bytes]") -> None:
        self._resource = resource
        self._lines = lines

    async def receive(self, *, idle_s: float) -> Event[T] | None:
        return self._resource.decode_event(await self._lines.get())


def partial(metadata: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}


class Platform:
    """The platform's lists, a page in 10 ms."""

    allowed = 8

    def __init__(self, sessions: int, breaker: CircuitBreaker) -> None:
        self._sessions = sessions
        self.breaker = breaker

    async def list_projects(self) -> ListResult[PlatformProject]:
        rows = [PlatformProject(id=f"team-{number:04d}") for number in range(PROJECTS)]
        return ListResult(rows, 0, 1, 0, complete=True, error=None)

    async def list_running(
        self, project: str | None, on_page: OnPage = ignore_page
    ) -> ListResult[PlatformSession]:
        assert project is not None
        numbers = range(int(project[5:]), self._sessions, PROJECTS)

        async def fetch(query: PageQuery) -> PlatformPage[PlatformSession]:
            await asyncio.sleep(0.01)
            with PEERS.playing():
                body = self._page(project, numbers, query)
            return decode(PlatformPage[PlatformSession], body)

        return await read(fetch, on_page=on_page)

    def _page(self, project: str, numbers: range, query: PageQuery) -> bytes:
        _, keyset, last = query.search.partition("id > '2Ab")
        start = int(last[:-1]) // PROJECTS + 1 if keyset else 0
        rows = [
            {
                "id": session_id(number),
                "kind": "Session",
                "project_id": project,
                "phase": "Running",
                "kube_namespace": project,
                "prompt": "x" * 800,
            }
            for number in numbers[start : start + query.size]
        ]
        return json.dumps({"total": len(numbers) - start, "items": rows}).encode()

    async def session(self, session_id: str, project: str | None) -> PlatformSession | None:
        await asyncio.sleep(0.01)
        return PlatformSession(id=session_id, project_id=project or "", phase="Running")

    async def probe(self) -> None: ...


def issuer(clock: SystemClock) -> Any:
    async def ask() -> TokenResponse:
        sent_at, now_s = clock.monotonic(), int(clock.wall())
        claims = {"iat": now_s, "exp": now_s + TTL_S, "jti": "obviously-fake"}
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return TokenResponse(
            f"eyJhbGciOiJub25lIn0.{payload}.c2ln",
            sent_at,
            clock.monotonic(),
            date_s=EpochTime(now_s),
        )

    return ask


def ports(sessions: int, cluster: Cluster, clock: SystemClock, telemetry: Telemetry) -> Ports:
    """Return the ports of a leader, all of them to peers that are played in this process."""
    return Ports(
        kube=cluster,
        tokens=IssuerPort(issuer(clock)),
        secret="obviously-fake-client-secret",
        connect_platform=lambda *, bearer, breaker: Platform(sessions, breaker),
        issuer_time=IssuerTime(clock),
        clock=clock,
        random=Random(7),
        fence=AlwaysOpenFence("replica-0"),
        leadership=NoElection(),
        tracer=telemetry.tracer,
        observers=telemetry.observers,
    )


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


class Peers:
    """Counts the CPU seconds in which this process plays its peers."""

    cpu_s = 0.0

    @contextmanager
    def playing(self) -> Iterator[None]:
        began_s = time.thread_time()
        try:
            yield
        finally:
            self.cpu_s += time.thread_time() - began_s


PEERS = Peers()


class Steps:
    """The longest callback of the event loop since the last reading, in CPU time of its thread.

    Nothing else runs during one. Other processes on the same cores do not count, and neither do the
    peers that are played here.
    """

    def __init__(self) -> None:
        self._worst_s = 0.0
        self._where = ""

    @contextmanager
    def timed(self) -> Iterator[None]:
        run = asyncio.Handle._run

        def timed(handle: Any) -> None:
            began_s, played_s = time.thread_time(), PEERS.cpu_s
            run(handle)
            took_s = time.thread_time() - began_s - (PEERS.cpu_s - played_s)
            if took_s > self._worst_s:
                self._worst_s, self._where = took_s, _where(handle)

        with mock.patch.object(asyncio.Handle, "_run", timed):
            yield

    def take(self) -> str:
        """Return the milliseconds, and where the callback's coroutine waits now."""
        found, self._worst_s = f"{self._worst_s * 1000:.1f} ms, {self._where}", 0.0
        return found


def _where(handle: Any) -> str:
    """Return the coroutine that a callback ran, and the innermost one that it waits in."""
    task = getattr(handle._callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return repr(handle)
    names: list[str] = []
    waits_in: Any = task.get_coro()
    while hasattr(waits_in, "cr_await"):
        names.append(waits_in.__qualname__)
        waits_in = waits_in.cr_await
    return f"{names[0]} in {names[-1]}" if names else repr(task)


class Collections:
    """The longest collection of cyclic garbage, in CPU time; the event loop waits for its end."""

    def __init__(self) -> None:
        self._began_s = self.worst_s = 0.0

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began_s = time.thread_time()
        else:
            self.worst_s = max(self.worst_s, time.thread_time() - self._began_s)


async def _first_start(sessions: int, steps: Steps, *, trace: bool) -> dict[str, Any]:
    clock, cluster = SystemClock(), Cluster(sessions)
    figures: dict[str, Any] = {}
    async with open_telemetry(clock, replica="replica-0") as telemetry:
        synced = asyncio.Event()

        def on_synced() -> None:
            freeze()
            synced.set()

        config = ControllerConfig(names=NAMES, on_synced=on_synced)
        controller = compose(ports(sessions, cluster, clock, telemetry), config)
        metrics = MetricsEndpoint(
            telemetry.metrics_registry,
            controller.status_collector,
            controller.events.stats,
            clock,
        )
        if trace:
            tracemalloc.start()
        stop, collections = asyncio.Event(), Collections()
        figures["start_mib"] = rss_mib()
        async with asyncio.TaskGroup() as group:
            began_at = time.monotonic()
            group.create_task(controller.run(stop))
            await synced.wait()
            figures["synced_s"] = time.monotonic() - began_at
            figures["synced_mib"], figures["synced_longest_step"] = rss_mib(), steps.take()
            while not cluster.writes:
                await asyncio.sleep(0.01)
            figures["first_refresh_s"] = time.monotonic() - began_at - figures["synced_s"]
            gc.callbacks.append(collections)
            began_s, played_s = time.thread_time(), PEERS.cpu_s
            left = sessions - cluster.writes
            await controller.startup.finished.wait()
            used_s = time.thread_time() - began_s - (PEERS.cpu_s - played_s)
            figures["refresh_cpu_us"] = used_s / left * 1e6
            figures["resync_s"] = time.monotonic() - began_at - figures["synced_s"]
            figures["resynced_mib"], figures["resync_longest_step"] = rss_mib(), steps.take()
            await metrics.scrape()
            figures["scraped_mib"], figures["scrape_longest_step"] = rss_mib(), steps.take()
            if trace:
                figures["components"] = _components(sessions)
                tracemalloc.stop()
            controller.sessions.clear_context()
            await controller.resync.plan_all("token_replaced", news=Trigger.REQUESTED)
            figures["plan_all_longest_step"] = steps.take()
            gc.callbacks.remove(collections)
            figures["collection_cpu_ms"] = collections.worst_s * 1000
            stop.set()
    return {
        name: round(value, 1) if isinstance(value, float) else value
        for name, value in figures.items()
    }


def _components(sessions: int) -> dict[str, int]:
    """Return bytes a session by the module that allocated them."""
    gc.collect()
    found: Counter[str] = Counter()
    for each in tracemalloc.take_snapshot().statistics("filename"):
        path = Path(each.traceback[0].filename)
        name = path.relative_to(ROOT) if ROOT in path.parents else Path(*path.parts[-2:])
        found[str(name)] += each.size
    return {
        name: round(size / sessions) for name, size in found.most_common() if size > sessions * 8
    }


def _work(sessions: int, trace: bool, answer: Connection) -> None:
    configure_logs("ERROR", "json")
    gc.freeze()  # as a run does, and what follows
    map_large_blocks()
    steps = Steps()
    with steps.timed():
        answer.send(asyncio.run(_first_start(sessions, steps, trace=trace)))


def measure(sessions: int, *, trace: bool) -> dict[str, Any]:
    """Return the figures of both processes, or of the first one alone."""
    figures: dict[str, Any] = {"sessions": sessions}
    context = get_context("spawn")
    for traced in (False, True)[: 1 + trace]:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(sessions, traced, theirs), daemon=True)
        process.start()
        theirs.close()
        found = ours.recv()
        process.join()
        figures |= {"components": found["components"]} if traced else found
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--components", action="store_true", help="trace each allocation, too")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.sessions, trace=arguments.components), indent=2))
