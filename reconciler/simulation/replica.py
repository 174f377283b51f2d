"""One process of the controller in a simulated world, with its elector and its connections."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from reconciler.breaker import Breaker
from reconciler.control.controller import Controller, Options, Ports
from reconciler.control.seal import Seal
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.direct import DirectKube
from reconciler.lab.apiserver.injection import Faults
from reconciler.lab.apiserver.ledger import Caller
from reconciler.lab.virtual_time import Domain, VirtualClock
from reconciler.leader.elector import Candidate, Elector
from reconciler.leader.gate import LeaseGate
from reconciler.leader.heartbeat import Heartbeat
from reconciler.leader.identity import Identity
from reconciler.leader.office import Office
from reconciler.leader.rules import Timing
from reconciler.names import Names
from reconciler.simulation.invariants import CheckedKube
from reconciler.simulation.journal import Journal
from reconciler.simulation.peers import Estate, VirtualIssuer, VirtualPlatform
from reconciler.simulation.scenario import PROPAGATION_S
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.source import OidcSource

LATENCY_S = 0.005
"""Of every request to the API server."""

SEAL_SECRET = "simulation"  # noqa: S105 - nobody is kept out by it

HOME = "reconciler"
"""Namespace of the controllers themselves."""

LEASE = "token-reconciler"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all replicas of a world share."""

    core: Core
    names: Names
    clock: VirtualClock
    faults: Faults
    issuer: VirtualIssuer
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
        self._source, self.platform, self.controller = self._build(around, number)
        self._elector_task = self.process.create_task(self._elector.run(), name="elector")
        self._task = self.main.create_task(self.controller.run(asyncio.Event()), name="controller")
        for task in (self._task, self._elector_task):
            task.add_done_callback(self._ended)

    def _build(
        self, around: Surroundings, number: int
    ) -> tuple[OidcSource, VirtualPlatform, Controller]:
        clock, random = self.clock, around.random(f"replica {number}")
        kube_breaker, platform_breaker, issuer_breaker = (
            Breaker(name, clock, random) for name in ("kube", "platform", "issuer")
        )
        issuer_time = IssuerTime(clock)
        platform = VirtualPlatform(
            around.estate, platform_breaker, around.random(f"platform {number}").uniform
        )
        source = OidcSource(
            around.issuer.ask,
            clock=clock,
            issuer_time=issuer_time,
            breaker=issuer_breaker,
            random=random,
        )
        heartbeat = Heartbeat(clock)
        office = Office(self._resign)
        controller = Controller(
            Ports(
                kube=CheckedKube(self._kube(around, str(self.me)), around.names, around.journal),
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
                upkeep=(source.keep_spare, heartbeat.run),
            ),
            Options(names=around.names, seal=Seal(SEAL_SECRET), propagation_s=PROPAGATION_S),
        )
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
            ),
            self.gate,
            clock=clock,
            random=around.random(f"elector {number}"),
            began=lambda term: self._tell(office.begin, term),
            ended=lambda why: self._tell(office.end, why),
        )
        return source, platform, controller

    def _kube(self, around: Surroundings, who: str) -> DirectKube:
        agent = f"token-reconciler/simulated ({who})"
        caller = Caller("reconciler", agent, around.names.field_manager)
        return DirectKube(
            around.core, around.clock, caller=caller, faults=self.faults, latency_s=LATENCY_S
        )

    def _tell(self, what: Callable[[str], None], text: str) -> None:
        """Carry out on the main loop what its elector says, even if that loop is stalled now."""
        self.main.call_soon(lambda: what(text))

    def freeze(self) -> None:
        """Stop the process where it is."""
        self.process.freeze()
        self.main.freeze()

    def thaw(self) -> None:
        self.process.thaw()
        self.main.thaw()

    async def kill(self) -> None:
        """End everything at once: nothing is drained, nothing released."""
        self.thaw()
        tasks = [self._task, self._elector_task]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._source.close()

    async def _resign(self) -> None:
        self._elector.resign()
        await asyncio.wait([self._elector_task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            error = task.exception()
            self._journal.violate("no_crash", f"{task.get_name()} ended: {type(error).__name__}")
