"""Chaos carried out: each name of the table is a deed, done at its time and undone at its end."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.selectors import Selection
from reconciler.lab.chaos.faults import Chaos
from reconciler.lab.cluster.cluster import LabCluster
from reconciler.lab.cluster.fixtures import LabSession
from reconciler.lab.cluster.replicas import Replica, Replicas
from reconciler.lab.demo.leader_terms import leader_terms

SHARE = 0.25
"""Part of the sessions that a deed against sessions strikes, at least one."""
SHORT_TTL = 0.6
SLOW_S = 1.0
SLOW_TTL = 1 / 60
"""What an answer takes longer, in lives of a token: limits on requests shrink with them, too."""
SHOWN_S = 2.0
"""What takes no time is shown as active for this long."""
FORGED_NAMESPACE = "not-a-project"

Deed = AbstractAsyncContextManager[None]


class ChaosActions:
    """Does one run's chaos.

    `active` holds what goes on now, `forged` the forgers' namespaces, `losses_at` when leaders were
    struck (the box's monotonic clock).
    """

    def __init__(self, box: LabCluster, replicas: Replicas) -> None:
        self.active: list[Chaos] = []
        self.forged: list[str] = []
        self.losses_at: list[float] = []
        self._box = box
        self._replicas = replicas
        self._table: dict[str, Callable[[Chaos], Deed]] = {
            "restart-all": lambda _: _at_once(replicas.restart),
            "kill-leader": lambda _: _at_once(self._kill_leader),
            "freeze-leader": lambda _: self._freeze_leader(),
            "clock-step": lambda _: self._step_clocks(),
            "issuer-outage": lambda _: self._issuer_outage(),
            "issuer-short-ttl": lambda _: self._short_ttl(),
            "api-outage": lambda _: self._api_outage(),
            "api-slow": lambda _: self._api_slow(),
            "api-throttle": lambda _: self._api_throttle(),
            "watch-silence": lambda _: self._watch_silence(),
            "watch-close": lambda _: _at_once(box.server.close_watches),
            "compaction": lambda _: _at_once(self._compact),
            "platform-outage": lambda _: self._platform_outage(),
            "delete-secret": lambda _: self._each(box.delete_secret),
            "stale-secret": lambda _: self._each(lambda s: box.put_token(s, s.first_token)),
            "new-sessions": lambda _: _at_once(self._begin_more),
            "restart-session": self._restart_sessions,
            "forged-pod": lambda _: _at_once(self._forge),
        }

    def __repr__(self) -> str:
        return f"<Deeds {len(self.active)} going on>"

    async def carry_out(self, chaos: Chaos) -> None:
        """Wait for the start, do it, and undo it at the end.

        Cancel: what was begun is undone.
        """
        await asyncio.sleep(chaos.start_s)
        self.active.append(chaos)
        try:
            async with self._table[chaos.name](chaos):
                await asyncio.sleep(chaos.length_s)
            if not chaos.length_s:
                await asyncio.sleep(SHOWN_S)
        finally:
            self.active.remove(chaos)

    def tokens_in_forged(self) -> int:
        """Count the Secrets with any value in the forgers' namespaces."""
        core = self._box.core
        return sum(
            bool(secret.get("data"))
            for namespace in self.forged
            for secret in core.list(kinds.SECRETS, Selection(namespace)).items
        )

    def leader(self) -> Replica | None:
        """Return the controller that holds the Lease, as the API server sees it."""
        found = leader_terms(self._box.ledger.lease_turns)
        return self._replicas.leader(found[-1].process) if found else None

    @asynccontextmanager
    async def _issuer_outage(self) -> AsyncIterator[None]:
        faults = self._box.issuer.faults
        faults.away = True
        try:
            yield
        finally:
            faults.away = False

    @asynccontextmanager
    async def _short_ttl(self) -> AsyncIterator[None]:
        faults = self._box.issuer.faults
        faults.ttl_s = float(int(SHORT_TTL * self._box.ttl_s))
        try:
            yield
        finally:
            faults.ttl_s = None

    @asynccontextmanager
    async def _api_outage(self) -> AsyncIterator[None]:
        servers = (self._box.server, self._box.node_server)
        for server in servers:
            await server.away()
        try:
            yield
        finally:
            for server in servers:
                await server.back()

    @asynccontextmanager
    async def _api_slow(self) -> AsyncIterator[None]:
        faults = self._box.server.faults
        faults.slow_s = min(SLOW_S, SLOW_TTL * self._box.ttl_s)
        try:
            yield
        finally:
            faults.slow_s = 0.0

    @asynccontextmanager
    async def _api_throttle(self) -> AsyncIterator[None]:
        faults = self._box.server.faults
        faults.throttle(retry_after_s=1, share=0.5)
        try:
            yield
        finally:
            faults.throttled = False

    @asynccontextmanager
    async def _watch_silence(self) -> AsyncIterator[None]:
        self._box.server.silence_watches(silent=True)
        try:
            yield
        finally:
            self._box.server.silence_watches(silent=False)

    @asynccontextmanager
    async def _platform_outage(self) -> AsyncIterator[None]:
        self._box.platform.faults.away = True
        try:
            yield
        finally:
            self._box.platform.faults.away = False

    def _kill_leader(self) -> None:
        leader = self.leader()
        if leader is not None:
            self.losses_at.append(self._box.clock.monotonic())
            leader.kill(with_pod=True)

    @asynccontextmanager
    async def _freeze_leader(self) -> AsyncIterator[None]:
        leader = self.leader()
        if leader is None:
            yield
            return
        self.losses_at.append(self._box.clock.monotonic())
        leader.freeze()
        try:
            yield
        finally:
            leader.thaw()

    @asynccontextmanager
    async def _step_clocks(self) -> AsyncIterator[None]:
        clocks = list(enumerate(self._replicas.all))
        for number, replica in clocks:
            replica.step_clock(forward=number % 2 == 0)
        try:
            yield
        finally:
            for number, replica in clocks:
                replica.step_clock(forward=number % 2 == 1)

    def _compact(self) -> None:
        self._box.core.compact()
        self._box.server.reset_connections()

    def _some(self) -> list[LabSession]:
        """Choose the sessions to strike among those that are whole."""
        box = self._box
        whole = [
            session
            for session in box.sessions.values()
            if session.known
            and box.has(kinds.PODS, session.namespace, session.pod)
            and box.has(kinds.SECRETS, session.namespace, session.secret)
        ]
        count = min(len(whole), max(1, math.ceil(SHARE * len(whole))))
        return box.random.sample(whole, count)

    def _each(self, deed: Callable[[LabSession], None]) -> Deed:
        def strike() -> None:
            for session in self._some():
                deed(session)

        return _at_once(strike)

    def _begin_more(self) -> None:
        for session in self._some():
            self._box.begin(session.namespace)

    @asynccontextmanager
    async def _restart_sessions(self, chaos: Chaos) -> AsyncIterator[None]:
        """Stop sessions at the start; all begin again together at the end."""
        struck = self._some()
        async with asyncio.TaskGroup() as group:
            for session in struck:
                group.create_task(self._box.stop(session))
            yield
        for session in struck:
            self._box.resume(session)

    def _forge(self) -> None:
        """Label a pod as a session that the platform does not know, and one with a Secret too."""
        box = self._box
        box.add_namespace(FORGED_NAMESPACE)
        self.forged.append(FORGED_NAMESPACE)
        for with_secret in (False, True):
            session = box.new_session(FORGED_NAMESPACE)
            session.known = False
            if with_secret:
                box.add_secret(session, "")
            box.add_pod(session)


@asynccontextmanager
async def _at_once(deed: Callable[[], object]) -> AsyncIterator[None]:
    deed()
    yield
