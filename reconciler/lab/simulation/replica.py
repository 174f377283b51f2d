"""One process of the controller in a simulated world, with its elector and its connections."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from reconciler.controller.controller import Controller, Options, Ports
from reconciler.controller.decide.confirmation_mac import Seal
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.fault_injection import Faults
from reconciler.lab.apiserver.in_process_client import DirectKube
from reconciler.lab.apiserver.write_log import Caller
from reconciler.lab.simulation.budget import EndpointBudgetChecker
from reconciler.lab.simulation.conditions import Conditions
from reconciler.lab.simulation.event_log import Journal
from reconciler.lab.simulation.fakes import Estate, StaticTokens, VirtualIssuer, VirtualPlatform
from reconciler.lab.simulation.invariants import US, CheckedKube
from reconciler.lab.simulation.scenario import PROPAGATION_S
from reconciler.lab.simulation.virtual_time import Domain, VirtualClock
from reconciler.leadership.elector import Candidate, Elector
from reconciler.leadership.lease import Identity
from reconciler.leadership.lease_gate import LeaseGate
from reconciler.leadership.rules import Timing
from reconciler.leadership.state import Office
from reconciler.leadership.thread import Heartbeat
from reconciler.naming import Names
from reconciler.net.circuit_breaker import Breaker
from reconciler.telemetry.trace import Tracer
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.source import OidcSource
from reconciler.tokens.static import StaticSource
from reconciler.tokens.token import Token
from reconciler.tokens.token_response import Grant

LATENCY_S = 0.005
"""Of every request to the API server."""

SEAL_SECRET = "simulation"

HOME = "reconciler"
"""Namespace of the controllers themselves."""

LEASE = "token-reconciler"

FILE_LAG_S = 85.0
"""A kubelet brings another token to a replica's file within this."""

TRACE_SEED = 1
"""Of the trace IDs, which a journal holds: the same seed gives the same bytes."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all replicas of a world share; `static` where tokens come from a file."""

    core: Core
    names: Names
    clock: VirtualClock
    conditions: Conditions
    namespaces: tuple[str, ...]
    faults: Faults
    issuer: VirtualIssuer
    static: StaticTokens | None
    budget: EndpointBudgetChecker
    estate: Estate
    journal: Journal
    random: Callable[[str], Random]


class Replica:
    """One process in one place, from its start to its death.

    `process` is what stands still when it is frozen, `main` what does when its main loop is
    stalled; `faults` strike its connections alone.

    Args:
        place: Number of its pod; the next process there is its successor.
        pod: Which pod of that place.
        number: Of all processes of the world.
        rate: Of its monotonic clock.
    """

    def __init__(
        self, around: Surroundings, *, place: int, pod: int, number: int, skew_s: float, rate: float
    ) -> None:
        self.place = place
        self.clock = VirtualClock(asyncio.get_running_loop(), rate=rate)
        self.clock.step_s = skew_s
        self.faults = Faults(around.faults)
        self.process, self.main = Domain(), Domain()
        self.me = Identity(f"replica-{place}", f"pod-{pod}", f"{number:08x}")
        self.gate = LeaseGate(self.clock, self.me.term(0))
        self._journal = around.journal
        self.started_at = asyncio.get_running_loop().time()
        self.resumed_at = -math.inf
        """When its main loop went on after it had stood still."""
        self.heard_at = asyncio.get_running_loop().time()
        """When the issuer answered it last."""
        self._budget = around.budget
        self._oidc: OidcSource | None = None
        self._seal = Seal(SEAL_SECRET)
        self.platform, self.controller = self._build(around, number)
        self._elector_task = self.process.create_task(self._elector.run(), name="elector")
        self._task = self.main.create_task(self.controller.run(asyncio.Event()), name="controller")
        for task in (self._task, self._elector_task):
            task.add_done_callback(self._ended)

    def _build(self, around: Surroundings, number: int) -> tuple[VirtualPlatform, Controller]:
        clock, random = self.clock, around.random(f"replica {number}")
        kube_breaker, platform_breaker, issuer_breaker = (
            Breaker(name, clock, random) for name in ("kube", "platform", "issuer")
        )
        issuer_time = IssuerTime(clock)
        platform = VirtualPlatform(
            around.estate,
            platform_breaker,
            around.random(f"platform {number}").uniform,
            clock=clock,
            process=str(self.me),
            budget=around.budget,
        )
        source, upkeep = self._token_source(around, number, issuer_time, issuer_breaker, random)
        heartbeat = Heartbeat(clock)
        office = Office(self._resign)
        controller = Controller(
            Ports(
                kube=CheckedKube(
                    self._kube(around, str(self.me)), around.names, around.journal, self._tried
                ),
                platform=platform,
                source=source,
                issuer_time=issuer_time,
                clock=clock,
                random=random,
                gate=self.gate,
                leadership=office,
                kube_breaker=kube_breaker,
                platform_breaker=platform_breaker,
                issuer_breaker=issuer_breaker,
                upkeep=(upkeep, heartbeat.run),
                # Numbers of its own, which log lines show: not the order of the others' draws.
                tracer=Tracer(clock, Random(TRACE_SEED)),
            ),
            self._options(around),
        )
        if isinstance(source, StaticSource):
            source.on_replaced = self._replaced
        else:
            source.on_replaced = lambda _: controller.reconsider()
        self._elector = Elector(
            self._kube(around, f"{self.me} elector"),
            Candidate(
                namespace=HOME,
                name=LEASE,
                me=self.me,
                timing=Timing(),
                age_s=heartbeat.age_s,
                warm=lambda: not controller.not_synced(),
                has_token=lambda: controller.has_had_token,
                lacks_token=lambda: controller.lacks_token,
                token_life_s=lambda: controller.token_life_s,
            ),
            self.gate,
            clock=clock,
            random=around.random(f"elector {number}"),
            began=lambda term: self._tell(office.begin, term),
            ended=lambda why: self._tell(office.end, why),
            rewound=lambda why: self._tell(partial(controller.rewound, HOME), why),
        )
        return platform, controller

    def _token_source(
        self,
        around: Surroundings,
        number: int,
        issuer_time: IssuerTime,
        breaker: Breaker,
        random: Random,
    ) -> tuple[OidcSource | StaticSource, Callable[[], Coroutine[Any, Any, None]]]:
        """Return the token source, and what keeps it up."""
        static = around.static
        if static is None:

            async def ask() -> Grant:
                self._budget.asked(str(self.me), "issuer")
                grant = await around.issuer.ask(self.clock)
                self.heard_at = asyncio.get_running_loop().time()
                return grant

            self._oidc = OidcSource(
                ask, clock=self.clock, issuer_time=issuer_time, breaker=breaker, random=random
            )
            return self._oidc, self._oidc.keep_spare
        lag_s = around.random(f"file {number}").uniform(0.0, FILE_LAG_S)
        since_s = self.clock.wall() - static.age_s(lag_s)
        source = StaticSource(lambda: static.read(lag_s), self.clock, since_s=since_s)
        self._seal.renew(static.read(lag_s))
        return source, source.keep_read

    async def _replaced(self, token: Token) -> None:
        """Do as the product does when its file holds another token."""
        self._seal.renew(token.reveal())
        await self.controller.reconsider()

    def _options(self, around: Surroundings) -> Options:
        mode = around.conditions.namespaces
        return Options(
            names=around.names,
            seal=self._seal,
            propagation_s=PROPAGATION_S,
            namespaces=around.namespaces if mode == "named" else (),
            finds_namespaces=mode == "found",
            workers=around.conditions.workers,
        )

    def _tried(self, what: str) -> None:
        self._budget.tried(str(self.me), what)

    def _kube(self, around: Surroundings, who: str) -> DirectKube:
        agent = f"token-reconciler/simulated ({who})"
        caller = Caller(US, agent, around.names.field_manager)
        return DirectKube(
            around.core, around.clock, caller=caller, faults=self.faults, latency_s=LATENCY_S
        )

    def _tell(self, what: Callable[[str], None], text: str) -> None:
        """Carry out on the main loop what its elector says, even if that loop is stalled now."""
        self.main.call_soon(lambda: what(text))

    @property
    def asks_issuer(self) -> bool:
        """Whether its tokens come from an issuer."""
        return self._oidc is not None

    def freeze(self) -> None:
        """Stop the process where it is."""
        self.process.freeze()
        self.main.freeze()

    def thaw(self) -> None:
        self.process.thaw()
        self.resume()

    def resume(self) -> None:
        """End a stall of the main loop."""
        self.main.thaw()
        self.resumed_at = asyncio.get_running_loop().time()

    async def kill(self) -> None:
        """End everything at once: nothing is drained, nothing released."""
        self.thaw()
        tasks = [self._task, self._elector_task]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if self._oidc is not None:
            await self._oidc.close()

    async def _resign(self) -> None:
        self._elector.resign()
        await asyncio.wait([self._elector_task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            error = task.exception()
            self._journal.violate("no_crash", f"{task.get_name()} ended: {type(error).__name__}")
