"""One process of the controller in a simulated world, with its elector and its clients."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from reconciler.clock import LONG_AGO, Instant
from reconciler.controller.controller import Controller, Dependencies
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.runtime import ControllerConfig
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
from reconciler.lab.simulation.scenario import PROPAGATION_S
from reconciler.lab.simulation.virtual_time import FreezableScope, VirtualClock
from reconciler.leadership.api import LeadershipState
from reconciler.leadership.elector import ElectionConfig, LeaderElector
from reconciler.leadership.lease import Identity
from reconciler.leadership.lease_fence import LeaseFence
from reconciler.leadership.lease_timing import ElectionTiming
from reconciler.leadership.thread import Heartbeat
from reconciler.naming import ALL_SESSIONS, Names, Shard
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.telemetry.trace import Tracer
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.source import OidcSource
from reconciler.tokens.static import StaticSource
from reconciler.tokens.token import Token
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
    ) -> None:
        self.index = index
        self.shard = shard
        self.lease = LEASE if shard.count == 1 else f"{LEASE}-{shard.index}"
        self.clock = VirtualClock(asyncio.get_running_loop(), rate=rate)
        self.clock.step_s = skew_s
        self.faults = FaultInjection(shared.faults)
        self.process, self.main = FreezableScope(), FreezableScope()
        self.me = Identity(f"replica-{index}", f"pod-{pod}", f"{number:08x}")
        self.fence = LeaseFence(self.clock, self.me.term(0))
        self._event_log = shared.event_log
        self.started_at = asyncio.get_running_loop().time()
        self.resumed_at: Instant = LONG_AGO
        """When its main loop resumed after a stall."""
        self.issuer_answered_at = asyncio.get_running_loop().time()
        """When it got the issuer's last answer."""
        self._budget = shared.budget
        self._oidc: OidcSource | None = None
        self._mac = ConfirmationMac(MAC_SECRET)
        self.platform, self.controller = self._build(shared, number)
        self._elector_task = self.process.create_task(self._elector.run(), name="elector")
        self._stop = asyncio.Event()
        self._task = self.main.create_task(self.controller.run(self._stop), name="controller")
        for task in (self._task, self._elector_task):
            task.add_done_callback(self._ended)

    def _build(self, shared: SharedWorld, number: int) -> tuple[VirtualPlatform, Controller]:
        clock, random = self.clock, shared.random(f"replica {number}")
        kube_breaker, platform_breaker, issuer_breaker = (
            CircuitBreaker(name, clock, random) for name in ("kube", "platform", "issuer")
        )
        issuer_time = IssuerTime(clock)
        platform = VirtualPlatform(
            shared.platform,
            platform_breaker,
            shared.random(f"platform {number}").uniform,
            clock=clock,
            process=str(self.me),
            budget=shared.budget,
        )
        source, background_task = self._token_source(
            shared, number, issuer_time, issuer_breaker, random
        )
        heartbeat = Heartbeat(clock)
        leadership = LeadershipState(self._release_lease)
        controller = Controller(
            Dependencies(
                kube=CheckedKube(
                    self._kube(shared, str(self.me)), shared.names, shared.event_log, self._tried
                ),
                platform=platform,
                source=source,
                issuer_time=issuer_time,
                clock=clock,
                random=random,
                fence=self.fence,
                leadership=leadership,
                kube_breaker=kube_breaker,
                platform_breaker=platform_breaker,
                issuer_breaker=issuer_breaker,
                background_tasks=(background_task, heartbeat.run),
                # Its own random numbers, since log lines have them: other parts draw from `random`.
                tracer=Tracer(clock, Random(TRACE_SEED)),
            ),
            self._options(shared),
        )
        if isinstance(source, StaticSource):
            source.on_replaced = self._replaced
        else:
            source.on_replaced = lambda _: controller.plan_all()
        self._elector = LeaderElector(
            self._kube(shared, f"{self.me} elector"),
            ElectionConfig(
                namespace=HOME,
                name=self.lease,
                identity=self.me,
                timing=ElectionTiming(),
                heartbeat_age_s=heartbeat.age_s,
                is_ready=lambda: not controller.not_synced(),
                has_token=lambda: controller.has_had_token,
                lacks_token=lambda: controller.lacks_token,
                token_life_s=lambda: controller.token_life_s,
            ),
            self.fence,
            clock=clock,
            random=shared.random(f"elector {number}"),
            on_started_leading=lambda term: self._run_on_main_loop(leadership.started, term),
            on_stopped_leading=lambda reason: self._run_on_main_loop(leadership.stopped, reason),
            on_history_rewound=lambda reason: self._run_on_main_loop(
                partial(controller.relist_all, HOME), reason
            ),
        )
        return platform, controller

    def _token_source(
        self,
        shared: SharedWorld,
        number: int,
        issuer_time: IssuerTime,
        breaker: CircuitBreaker,
        random: Random,
    ) -> tuple[OidcSource | StaticSource, Callable[[], Coroutine[Any, Any, None]]]:
        """Return the token source, and its background task."""
        static = shared.static
        if static is None:

            async def ask() -> TokenResponse:
                self._budget.asked(str(self.me), "issuer")
                response = await shared.issuer.ask(self.clock)
                self.issuer_answered_at = asyncio.get_running_loop().time()
                return response

            self._oidc = OidcSource(
                ask, clock=self.clock, issuer_time=issuer_time, breaker=breaker, random=random
            )
            return self._oidc, self._oidc.keep_standby
        lag_s = shared.random(f"file {number}").uniform(0.0, FILE_LAG_S)
        since_s = self.clock.wall() - static.age_s(lag_s)
        source = StaticSource(lambda: static.read(lag_s), self.clock, since_s=since_s)
        self._mac.set_key(static.read(lag_s))
        return source, source.watch_file

    async def _replaced(self, token: Token) -> None:
        """Do as the product does when its file has another token."""
        self._mac.set_key(token.reveal())
        await self.controller.plan_all()

    def _options(self, shared: SharedWorld) -> ControllerConfig:
        mode = shared.conditions.namespaces
        return ControllerConfig(
            names=shared.names,
            confirmation_mac=self._mac,
            propagation_s=PROPAGATION_S,
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

    def _run_on_main_loop(self, what: Callable[[str], None], text: str) -> None:
        """Schedule a callback of the elector on the main loop, which may be stalled now."""
        self.main.call_soon(lambda: what(text))

    @property
    def asks_issuer(self) -> bool:
        """Whether its tokens come from an issuer."""
        return self._oidc is not None

    def freeze(self) -> None:
        """Stop the process and its main loop."""
        self.process.freeze()
        self.main.freeze()

    def thaw(self) -> None:
        self.process.thaw()
        self.resume()

    def resume(self) -> None:
        """End a stall of the main loop."""
        self.main.thaw()
        self.resumed_at = Instant(asyncio.get_running_loop().time())

    async def kill(self) -> None:
        """End all tasks at once; no work is drained, the Lease is not released."""
        self.thaw()
        tasks = [self._task, self._elector_task]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if self._oidc is not None:
            await self._oidc.close()

    async def terminate(self) -> None:
        """End as after SIGTERM: drain, release the Lease, stop."""
        for task in (self._task, self._elector_task):
            task.remove_done_callback(self._ended)
        self._stop.set()
        await self._task
        self._elector_task.cancel()
        await asyncio.wait([self._elector_task])
        if self._oidc is not None:
            await self._oidc.close()

    async def _release_lease(self) -> None:
        self._elector.release()
        await asyncio.wait([self._elector_task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            error = task.exception()
            self._event_log.add_violation(
                "no_crash", f"{task.get_name()} ended: {type(error).__name__}"
            )
