"""Electors on virtual time: real ones over the lab's core, each with a separate client."""

import asyncio
import math
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, suppress
from random import Random
from typing import Any

import structlog
from structlog.testing import LogCapture

from reconciler.clock import Clock, EpochTime, Instant
from reconciler.lab.apiserver.core import AT_ONCE, Core
from reconciler.lab.apiserver.fault_injection import FaultInjection, InjectedFault
from reconciler.lab.apiserver.in_process_client import InProcessKube
from reconciler.lab.apiserver.kinds import LEASES, NAMESPACES, Object
from reconciler.lab.apiserver.write_log import Caller, Commit
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.leadership.elector import ElectionConfig, LeaderElector
from reconciler.leadership.lease import Identity
from reconciler.leadership.lease_fence import LeaseFence
from reconciler.leadership.lease_timing import ElectionTiming

NAMESPACE, NAME = "home", "token-reconciler"
TIMING = ElectionTiming(15, 10.0, 2.0)
LATENCY_S = 0.01
HAND = Caller("somebody", "kubectl", "kubectl-edit")

Line = MutableMapping[str, Any]


class Ready:
    """A candidate with synced caches and a token of unknown life."""

    has_had_token = True
    lacks_token = False
    token_life_s = math.inf

    def not_synced(self) -> str:
        return ""


class OwnClock:
    """One machine's clock: its rate is off by a part, and it may sleep with its machine.

    `slept_s` is what it has gone on while nothing ran; the wall is the bench's.
    """

    def __init__(self, wall: Clock, loop: asyncio.AbstractEventLoop, rate: float) -> None:
        self.slept_s = 0.0
        self._wall = wall
        self._loop = loop
        self._rate = rate

    def monotonic(self) -> Instant:
        return Instant(7000.0 + self._rate * self._loop.time() + self.slept_s)

    def wall(self) -> EpochTime:
        return self._wall.wall()


class LateKube(InProcessKube):
    """A server with late responses, after it has acted: seconds by verb."""

    def __init__(self, core: Core, clock: Clock, *, caller: Caller, faults: FaultInjection) -> None:
        super().__init__(core, clock, caller=caller, faults=faults, latency_s=LATENCY_S)
        self.late_s: dict[str, float] = {}

    async def list(self, *args: Any, **more: Any) -> Any:
        return await self._late("list", super().list(*args, **more))

    async def patch(self, *args: Any, **more: Any) -> Any:
        return await self._late("patch", super().patch(*args, **more))

    async def _late(self, verb: str, answer: Awaitable[Any]) -> Any:
        found = await answer
        await asyncio.sleep(self.late_s.get(verb, 0.0))
        return found


class CountedFaults(FaultInjection):
    """Faults that keep a list of all requests: verb, and when it was sent."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self.requests: list[tuple[str, Instant]] = []
        self._now = now

    def fault_of(self, verb: str, resource: str) -> InjectedFault:
        self.requests.append((verb, Instant(self._now())))
        return super().fault_of(verb, resource)


class Replica:
    """One elector, its client, and the calls to its main loop.

    `age_s` is the age of the main loop's last heartbeat, `is_ready` whether its caches are synced,
    `has_token` whether its token source has given one, `token_life_s` how long that one lives,
    `lacks_token` whether it has got none for too long.
    """

    def __init__(self, bench: "Bench", name: str, pod_uid: str, nonce: str, rate: float) -> None:
        self.me = Identity(name, pod_uid, nonce)
        loop = asyncio.get_running_loop()
        self.faults = CountedFaults(loop.time)
        self.requests = self.faults.requests
        self.calls: list[tuple[str, Instant]] = []
        self.history_rewinds: list[str] = []
        self.age_s = 0.0
        self.is_ready = True
        self.has_token = True
        self.lacks_token = False
        self.token_life_s = math.inf
        self.clock = OwnClock(bench.clock, loop, rate)
        self.fence = LeaseFence(self.clock, name)
        caller = Caller(str(self.me), str(self.me), "token-reconciler")
        self.kube = LateKube(bench.core, self.clock, caller=caller, faults=self.faults)
        self.elector = LeaderElector(
            self.kube,
            ElectionConfig(
                NAMESPACE,
                NAME,
                self.me,
                bench.timing,
                self,
                lambda: self.age_s,
            ),
            self.fence,
            clock=self.clock,
            random=Random(str(self.me)),
            on_started_leading=lambda term: self.calls.append((f"began {term}", bench.now_s)),
            on_stopped_leading=lambda why: self.calls.append((f"ended {why}", bench.now_s)),
            on_history_rewound=self.history_rewinds.append,
        )
        self.task = asyncio.create_task(self.elector.run(), name=str(self.me))

    @property
    def has_had_token(self) -> bool:
        return self.has_token

    def not_synced(self) -> str:
        return "" if self.is_ready else "caches are not synced"

    @property
    def leads(self) -> bool:
        return self.fence.is_open

    @property
    def words(self) -> list[str]:
        """The calls to the main loop, in order."""
        return [text for text, _ in self.calls]

    def writes(self, since_s: Instant) -> list[str]:
        """Return the verbs of writes that were sent since then."""
        return [
            verb for verb, at_s in self.requests if at_s >= since_s and verb in ("create", "patch")
        ]

    async def kill(self) -> None:
        """End it as kill -9 does: no callback is called."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


class Bench:
    """One core, some replicas, and the log; whenever time passes, at most one fence may be open."""

    def __init__(self, timing: ElectionTiming, logs: list[Line]) -> None:
        self._loop = asyncio.get_running_loop()
        self.clock = VirtualClock(self._loop)
        self.core = Core(self.clock, seed="leases")
        self.timing = timing
        self.logs = logs
        self.replicas: list[Replica] = []
        self.commits: list[Commit] = []
        self.core.on_commit.append(self._committed)
        self.core.create(NAMESPACES, "", {"metadata": {"name": NAMESPACE}})

    def _committed(self, commit: Commit) -> None:
        if commit.kind is LEASES:
            self.commits.append(commit)

    @property
    def now_s(self) -> Instant:
        return Instant(self._loop.time())

    @property
    def leaders(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.leads]

    @property
    def lease(self) -> Object:
        return self.core.get(LEASES, NAMESPACE, NAME)

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self.lease["spec"])

    def start(
        self,
        name: str = "",
        *,
        pod_uid: str | None = None,
        rate: float = 1.0,
        ready: bool = True,
        has_token: bool = True,
        lacks_token: bool = False,
        prepare: Callable[[Replica], None] = lambda _: None,
    ) -> Replica:
        """Start a replica.

        Args:
            pod_uid: Of a separate pod unless given.
            prepare: Called before its first step.
        """
        count = len(self.replicas)
        name = name or f"replica-{count}"
        uid = f"pod-{count}" if pod_uid is None else pod_uid
        replica = Replica(self, name, uid, f"n{count}", rate)
        replica.is_ready, replica.has_token, replica.lacks_token = ready, has_token, lacks_token
        prepare(replica)
        self.replicas.append(replica)
        return replica

    async def wait_for(self, what: str, condition: Callable[[], bool], limit_s: float) -> Instant:
        """Return the virtual instant at which `condition` is true, found to a millisecond."""
        until_s = self.now_s + limit_s
        while not condition():
            assert self.now_s < until_s, f"not within {limit_s} s: {what}; log: {self.logs[-5:]}"
            await self.sleep(0.001)
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)
        held = [str(replica.me) for replica in self.leaders]
        assert len(held) <= 1, f"two holders at {self.now_s} s: {held}"

    async def watch_over(self, seconds: float) -> None:
        """Let virtual time pass and look at the fences twenty times a second."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            await self.sleep(min(0.05, until_s - self.now_s))

    async def start_leader(self) -> Replica:
        """Start a replica and return it when it leads."""
        leader = self.start()
        await self.led(leader)
        return leader

    async def start_pair(self) -> tuple[Replica, Replica]:
        """Start a leader, then a follower, and return both when they are settled."""
        leader = await self.start_leader()
        follower = self.start()
        await self.watch_over(1.0)
        return leader, follower

    async def led(self, replica: Replica, limit_s: float = 5.0) -> Instant:
        return await self.wait_for(f"{replica.me} leads", lambda: replica.leads, limit_s)

    def edit(self, **spec: Any) -> None:
        """Change the Lease by hand."""
        self.core.patch(LEASES, NAMESPACE, NAME, {"spec": spec}, by=HAND)

    def delete(self) -> None:
        self.core.delete(LEASES, NAMESPACE, NAME, AT_ONCE, by=HAND)

    def events(self, name: str) -> list[Line]:
        return [line for line in self.logs if line["event"] == name]

    def warnings(self) -> list[str]:
        return [line["event"] for line in self.logs if line["log_level"] == "warning"]


Scenario = Callable[[Bench], Awaitable[None]]


def on_virtual_time(
    test: Scenario | None = None, *, timing: ElectionTiming = TIMING
) -> Callable[..., Any]:
    """Run a test on a fresh virtual loop with a fresh bench."""

    def decorate(test: Scenario) -> Callable[[], None]:
        def run() -> None:
            run_virtual(_main(test, timing))

        run.__name__ = getattr(test, "__name__", "")
        run.__doc__ = test.__doc__
        return run

    return decorate(test) if test is not None else decorate


async def _main(test: Scenario, timing: ElectionTiming) -> None:
    capture = LogCapture()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    async with AsyncExitStack() as stack:
        stack.callback(structlog.reset_defaults)
        bench = Bench(timing, capture.entries)
        stack.push_async_callback(_end, bench)
        await test(bench)


async def _end(bench: Bench) -> None:
    """Stop every elector; one that has failed fails the test."""
    for replica in bench.replicas:
        if not replica.task.done():
            await replica.kill()
        elif not replica.task.cancelled():
            replica.task.result()
