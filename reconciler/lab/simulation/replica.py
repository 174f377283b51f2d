"""One process of the controller in a simulated world, with its elector and its clients."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from reconciler.clock import LONG_AGO, Instant
from reconciler.controller.compose import compose
from reconciler.controller.ports import IssuerPort, Ports
from reconciler.controller.runtime import ControllerConfig
from reconciler.kube.api import Kube
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.fault_injection import FaultInjection
from reconciler.lab.apiserver.in_process_client import InProcessKube
from reconciler.lab.apiserver.write_log import Caller
from reconciler.lab.simulation.commit_checks import EndpointBudgetChecker
from reconciler.lab.simulation.conditions import Conditions
from reconciler.lab.simulation.event_log import EventLog
from reconciler.lab.simulation.fakes import (
    FakePlatformState,
    StaticTokens,
    VirtualIssuer,
    VirtualPlatform,
)
from reconciler.lab.simulation.invariants import US, CheckedKube
from reconciler.lab.simulation.time_knowledge import TimeKnowledge
from reconciler.lab.simulation.versions import OtherVersionKube, Version
from reconciler.lab.simulation.virtual_time import FreezableScope, VirtualClock
from reconciler.leadership.lease import Identity
from reconciler.leadership.lease_election import LeaseElection
from reconciler.leadership.lease_timing import ElectionTiming
from reconciler.naming import ALL_SESSIONS, Names, SessionKey, Shard
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.api import Bearer
from reconciler.telemetry.trace import Tracer
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.server_clock import PROOF
from reconciler.tokens.static import StaticSource
from reconciler.tokens.token_response import TokenResponse

LATENCY_S = 0.005
"""Latency of every request to the API server."""

MAC_SECRET = "simulation"

HOME = "reconciler"
"""Namespace of the controllers themselves."""

LEASE = "token-reconciler"

FILE_LAG_S = 85.0
"""Longest time from a change of the static token to that of a replica's file."""

TRACE_SEED = 1
"""Seed of the trace IDs, which the event log has: the same seed gives the same bytes."""


@dataclass(frozen=True, slots=True)
class SharedWorld:
    """What all replicas of a world share; `static` if tokens come from a file."""

    core: Core
    names: Names
    clock: VirtualClock
    conditions: Conditions
    namespaces: tuple[str, ...]
    faults: FaultInjection
    issuer: VirtualIssuer
    static: StaticTokens | None
    budget: EndpointBudgetChecker
    platform: FakePlatformState
    event_log: EventLog
    random: Callable[[str], Random]


class SimulatedReplica:
    """One process of a replica, from its start to its end.

    Attributes:
        process: The tasks that stop when the process is frozen.
        main: The tasks that stop when its main loop stalls.
        faults: Faults of its connections only.

    Args:
        index: Number of the replica; the next process with this number is its successor.
        shard: The part of all sessions that it works on, with a Lease of its own.
        pod: Number of the pod of that replica.
        number: Number of the process in the world.
        rate: Rate of its monotonic clock.
        version: The version of its image.
    """

    def __init__(
        self,
        shared: SharedWorld,
        *,
        index: int,
        pod: int,
        number: int,
        skew_s: float,
        rate: float,
        shard: Shard = ALL_SESSIONS,
        version: Version = "this",
    ) -> None:
        self.index = index
        self.version: Version = version
        self.shard = shard
        self.lease = LEASE if shard.count == 1 else f"{LEASE}-{shard.index}"
        self.clock = VirtualClock(asyncio.get_running_loop(), rate=rate)
        self.clock.step_s = skew_s
        self.faults = FaultInjection(shared.faults)
        self.process, self.main = FreezableScope(), FreezableScope()
        self.me = Identity(f"replica-{index}", f"pod-{pod}", f"{number:08x}")
        # Its main loop may be stalled; calls are made when it resumes.
        election = LeaseElection(
            self.me, self.clock, call_soon=self.main.call_soon, release=self._release_lease
        )
        self.fence = election.fence
        self._event_log = shared.event_log
        self.started_at = asyncio.get_running_loop().time()
        self.resumed_at: Instant = LONG_AGO
        """When its main loop resumed after a stall."""
        self.issuer_answered_at = Instant(self.started_at)
        """When it got the last answer of the issuer that it could set its clock by.

        Its clock may drift by more than the 2 s in which tokens agree. It then sets it by the third
        different token: at once without a cache, and with one not before the cache has given three.
        """
        self.time_knowledge = TimeKnowledge()
        self._received: deque[tuple[str, Instant]] = deque(maxlen=PROOF)
        self.longest_s = 0.0
        """The longest life of a token that it got."""
        self.confirmed: dict[SessionKey, str] = {}
        """Sessions in the platform's answers to this process, with their projects."""
        self.asks_issuer = shared.static is None
        self._budget = shared.budget
        self.controller = compose(self._ports(shared, number, election), self._config(shared))
        self._elector = election.make_elector(
            self._kube(shared, f"{self.me} elector"),
            self.controller.health,
            namespace=HOME,
            lease=self.lease,
            timing=ElectionTiming(),
            random=shared.random(f"elector {number}"),
            on_history_rewound=self.controller.informers.distrust,
        )
        self._elector_task = self.process.create_task(self._elector.run(), name="elector")
        self._stop = asyncio.Event()
        self._task = self.main.create_task(self.controller.run(self._stop), name="controller")
        for task in (self._task, self._elector_task):
            task.add_done_callback(self._ended)

    def _ports(self, shared: SharedWorld, number: int, election: LeaseElection) -> Ports:
        kube: Kube = self._kube(shared, str(self.me))
        if self.version != "this":
            kube = OtherVersionKube(kube, shared.names, self.version)
        tokens, secret = self._tokens(shared, number)
        return Ports(
            kube=CheckedKube(kube, shared.names, shared.event_log, self._tried),
            tokens=tokens,
            secret=secret,
            connect_platform=partial(self._connect_platform, shared, number),
            issuer_time=IssuerTime(self.clock),
            clock=self.clock,
            random=shared.random(f"replica {number}"),
            fence=self.fence,
            leadership=election.leadership,
            background_tasks=(election.heartbeat.run,),
            # Its own random numbers, since log lines have them: other parts draw from `random`.
            tracer=Tracer(self.clock, Random(TRACE_SEED)),
        )

    def _tokens(self, shared: SharedWorld, number: int) -> tuple[IssuerPort | StaticSource, str]:
        """Return where tokens come from, and the secret of the confirmations."""
        if (static := shared.static) is None:
            return IssuerPort(partial(self._request_token, shared)), MAC_SECRET
        lag_s = shared.random(f"file {number}").uniform(0.0, FILE_LAG_S)
        since_s = self.clock.wall() - static.age_s(lag_s)
        read = partial(static.read, lag_s)
        return StaticSource(read, self.clock, since_s=since_s), read()

    async def _request_token(self, shared: SharedWorld) -> TokenResponse:
        self._budget.asked(str(self.me), "issuer")
        response = await shared.issuer.ask(self.clock)
        self._note_answer(response, shared.issuer)
        self.longest_s = max(self.longest_s, shared.issuer.life_s(response.value))
        return response

    def _note_answer(self, response: TokenResponse, issuer: VirtualIssuer) -> None:
        if issuer.corrupt:  # it names no time
            return
        self.time_knowledge.observe(
            response.times,
            true_s=issuer.now_s(),
            date_s=response.date_s,
            wall_s=self.clock.wall(),
        )
        now_at, value = Instant(asyncio.get_running_loop().time()), response.value
        if all(value != token for token, _ in self._received):
            self._received.append((value, now_at))
        self.issuer_answered_at = self._received[0][1] if issuer.cached_s else now_at

    def _connect_platform(
        self, shared: SharedWorld, number: int, *, bearer: Bearer, breaker: CircuitBreaker
    ) -> VirtualPlatform:
        del bearer  # the simulated platform serves every caller
        return VirtualPlatform(
            shared.platform,
            breaker,
            shared.random(f"platform {number}").uniform,
            clock=self.clock,
            process=str(self.me),
            budget=shared.budget,
            confirmed=self.confirmed,
        )

    def _config(self, shared: SharedWorld) -> ControllerConfig:
        mode = shared.conditions.namespaces
        return ControllerConfig(
            names=shared.names,
            propagation_s=shared.conditions.propagation_s,
            touch=shared.conditions.touch,
            namespaces=shared.namespaces if mode == "named" else (),
            finds_namespaces=mode == "found",
            workers=shared.conditions.workers,
            shard=self.shard,
        )

    def _tried(self, what: str) -> None:
        self._budget.tried(str(self.me), what)

    def _kube(self, shared: SharedWorld, who: str) -> InProcessKube:
        agent = f"token-reconciler/simulated ({who})"
        caller = Caller(US, agent, shared.names.field_manager)
        return InProcessKube(
            shared.core, shared.clock, caller=caller, faults=self.faults, latency_s=LATENCY_S
        )

    @property
    def may_have_proof(self) -> bool:
        """Whether it got tokens enough to prove the issuer's time."""
        return len(self._received) == PROOF

    def freeze(self) -> None:
        """Stop the process and its main loop."""
        self.process.freeze()
        self.main.freeze()

    def thaw(self) -> None:
        """End one `freeze`."""
        self.process.thaw()
        self.resume()

    def resume(self) -> None:
        """End one stall of the main loop."""
        self.main.thaw()
        self.resumed_at = Instant(asyncio.get_running_loop().time())

    async def kill(self) -> None:
        """End all tasks at once; no work is drained, the Lease is not released."""
        self.process.release()
        self.main.release()
        tasks = [self._task, self._elector_task]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def terminate(self) -> None:
        """End as after SIGTERM: drain, release the Lease, stop."""
        for task in (self._task, self._elector_task):
            task.remove_done_callback(self._ended)
        self._stop.set()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and self._task.exception() is not None:
            self._ended(self._task)
        self._elector_task.cancel()
        await asyncio.wait([self._elector_task])

    async def _release_lease(self) -> None:
        self._elector.release()
        await asyncio.wait([self._elector_task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            error = task.exception()
            self._event_log.add_violation(
                "no_crash", f"{task.get_name()} ended: {type(error).__name__}"
            )
