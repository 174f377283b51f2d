"""The faults of a demo, executed: each begins at its start and is reverted at its end."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from reconciler.clock import Instant
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.selectors import Selection
from reconciler.lab.chaos.schedule import ScheduledFault
from reconciler.lab.cluster.cluster import LabCluster
from reconciler.lab.cluster.fixtures import LabSession
from reconciler.lab.cluster.replicas import Replica, Replicas
from reconciler.lab.demo.leader_terms import leader_terms
from reconciler.lab.fault_catalogue import Fault

SHARE = 0.25
"""Part of the sessions that a fault of sessions affects, at least one."""
SHORT_TTL = 0.6
"""Life of a token during `issuer-short-ttl`, as a part of its usual life."""
SLOW_S = 1.0
SLOW_TTL = 1 / 60
"""Added to each answer during `api-slow`: the smaller of `SLOW_S` and this part of a token's life,
since the time limits of requests shrink with that life, too."""
SHOWN_S = 2.0
"""The live view shows an instantaneous fault as active for this long."""
FORGED_NAMESPACE = "not-a-project"

Action = AbstractAsyncContextManager[None]


class ChaosActions:
    """Injects the faults of one run.

    Attributes:
        active: Faults that are in effect now.
        forged: Namespaces with forged pods.
        losses_at: When leaders were killed or frozen, on the cluster's monotonic clock.
    """

    def __init__(self, cluster: LabCluster, replicas: Replicas) -> None:
        self.active: list[ScheduledFault] = []
        self.forged: list[str] = []
        self.losses_at: list[Instant] = []
        self._cluster = cluster
        self._replicas = replicas
        self._actions: dict[Fault, Callable[[ScheduledFault], Action]] = {
            Fault.RESTART_ALL: lambda _: _at_once(replicas.restart),
            Fault.KILL_LEADER: lambda _: _at_once(self._kill_leader),
            Fault.FREEZE_LEADER: lambda _: self._freeze_leader(),
            Fault.CLOCK_STEP: lambda _: self._step_clocks(),
            Fault.ISSUER_OUTAGE: lambda _: self._issuer_outage(),
            Fault.ISSUER_SHORT_TTL: lambda _: self._short_ttl(),
            Fault.API_OUTAGE: lambda _: self._api_outage(),
            Fault.API_SLOW: lambda _: self._api_slow(),
            Fault.API_THROTTLE: lambda _: self._api_throttle(),
            Fault.WATCH_SILENCE: lambda _: self._watch_silence(),
            Fault.WATCH_CLOSE: lambda _: _at_once(cluster.server.close_watches),
            Fault.COMPACTION: lambda _: _at_once(self._compact),
            Fault.PLATFORM_OUTAGE: lambda _: self._platform_outage(),
            Fault.DELETE_SECRET: lambda _: self._each(cluster.delete_secret),
            Fault.STALE_SECRET: lambda _: self._each(lambda s: cluster.put_token(s, s.first_token)),
            Fault.NEW_SESSIONS: lambda _: _at_once(self._begin_sessions),
            Fault.RESTART_SESSION: self._restart_sessions,
            Fault.FORGED_POD: lambda _: _at_once(self._forge),
        }

    def __repr__(self) -> str:
        return f"<ChaosActions {len(self.active)} active>"

    @property
    def names(self) -> frozenset[Fault]:
        """The faults that can be injected."""
        return frozenset(self._actions)

    async def inject(self, fault: ScheduledFault) -> None:
        """Wait for the fault's start, inject it, and revert it at its end.

        Cancel: a fault that began is reverted.
        """
        await asyncio.sleep(fault.start_s)
        self.active.append(fault)
        try:
            async with self._actions[fault.name](fault):
                await asyncio.sleep(fault.length_s)
            if not fault.length_s:
                await asyncio.sleep(SHOWN_S)
        finally:
            self.active.remove(fault)

    def tokens_in_forged(self) -> int:
        """Return the number of Secrets with a value in the namespaces of forged pods."""
        core = self._cluster.core
        return sum(
            bool(secret.get("data"))
            for namespace in self.forged
            for secret in core.list(kinds.SECRETS, Selection(namespace)).items
        )

    def leader(self) -> Replica | None:
        """Return the controller that holds the Lease, as the API server sees it."""
        found = leader_terms(self._cluster.write_log.holder_changes)
        return self._replicas.leader(found[-1].process) if found else None

    @asynccontextmanager
    async def _issuer_outage(self) -> AsyncIterator[None]:
        faults = self._cluster.issuer.faults
        faults.unreachable = True
        try:
            yield
        finally:
            faults.unreachable = False

    @asynccontextmanager
    async def _short_ttl(self) -> AsyncIterator[None]:
        faults = self._cluster.issuer.faults
        faults.ttl_s = float(int(SHORT_TTL * self._cluster.ttl_s))
        try:
            yield
        finally:
            faults.ttl_s = None

    @asynccontextmanager
    async def _api_outage(self) -> AsyncIterator[None]:
        servers = (self._cluster.server, self._cluster.node_server)
        for server in servers:
            await server.stop_listening()
        try:
            yield
        finally:
            for server in servers:
                await server.listen()

    @asynccontextmanager
    async def _api_slow(self) -> AsyncIterator[None]:
        faults = self._cluster.server.faults
        faults.slow_s = min(SLOW_S, SLOW_TTL * self._cluster.ttl_s)
        try:
            yield
        finally:
            faults.slow_s = 0.0

    @asynccontextmanager
    async def _api_throttle(self) -> AsyncIterator[None]:
        faults = self._cluster.server.faults
        faults.throttle(retry_after_s=1, share=0.5)
        try:
            yield
        finally:
            faults.throttled = False

    @asynccontextmanager
    async def _watch_silence(self) -> AsyncIterator[None]:
        self._cluster.server.silence_watches(silent=True)
        try:
            yield
        finally:
            self._cluster.server.silence_watches(silent=False)

    @asynccontextmanager
    async def _platform_outage(self) -> AsyncIterator[None]:
        self._cluster.platform.faults.unreachable = True
        try:
            yield
        finally:
            self._cluster.platform.faults.unreachable = False

    def _kill_leader(self) -> None:
        leader = self.leader()
        if leader is not None:
            self.losses_at.append(self._cluster.clock.monotonic())
            leader.kill(with_pod=True)

    @asynccontextmanager
    async def _freeze_leader(self) -> AsyncIterator[None]:
        leader = self.leader()
        if leader is None:
            yield
            return
        self.losses_at.append(self._cluster.clock.monotonic())
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
        self._cluster.core.compact()
        self._cluster.server.reset_connections()

    def _some(self) -> list[LabSession]:
        """Choose the affected sessions among those that have a pod and a Secret."""
        cluster = self._cluster
        complete = [
            session
            for session in cluster.sessions.values()
            if session.known
            and cluster.has(kinds.PODS, session.namespace, session.pod)
            and cluster.has(kinds.SECRETS, session.namespace, session.secret)
        ]
        count = min(len(complete), max(1, math.ceil(SHARE * len(complete))))
        return cluster.random.sample(complete, count)

    def _each(self, action: Callable[[LabSession], None]) -> Action:
        def act() -> None:
            for session in self._some():
                action(session)

        return _at_once(act)

    def _begin_sessions(self) -> None:
        for session in self._some():
            self._cluster.begin_session(session.namespace)

    @asynccontextmanager
    async def _restart_sessions(self, _: ScheduledFault) -> AsyncIterator[None]:
        """Stop sessions at the start; all of them begin again together at the end."""
        stopped = self._some()
        async with asyncio.TaskGroup() as group:
            for session in stopped:
                group.create_task(self._cluster.stop_session(session))
            yield
        for session in stopped:
            self._cluster.resume_session(session)

    def _forge(self) -> None:
        """Create two pods with the labels of unknown sessions, the second with a Secret."""
        cluster = self._cluster
        cluster.add_namespace(FORGED_NAMESPACE)
        self.forged.append(FORGED_NAMESPACE)
        for with_secret in (False, True):
            session = cluster.new_session(FORGED_NAMESPACE)
            session.known = False
            if with_secret:
                cluster.add_secret(session, "")
            cluster.add_pod(session)


@asynccontextmanager
async def _at_once(action: Callable[[], object]) -> AsyncIterator[None]:
    action()
    yield
