"""Kubernetes Events on the pod: `kubectl describe pod` shows each problem and its end.

Events have their own small queue and task: no refresh waits for one. An Event that cannot be sent
in time is dropped and counted.
"""

import asyncio
from collections import deque

import msgspec
import structlog

from reconciler.controller.events.correlator import EventCorrelator, EventSeries, PodEvent
from reconciler.controller.events.event_object import MAX_TIMEOUT_S, event_body, write_event
from reconciler.controller.events.rules import EventRules
from reconciler.controller.reconcile.run import ReconcileRun
from reconciler.controller.runtime import Runtime
from reconciler.errors import (
    AuthorizerNotReady,
    Forbidden,
    KubeError,
    NotLeaderError,
    ProtocolError,
)
from reconciler.kube.api import Kube
from reconciler.kube.status_errors import is_terminating
from reconciler.leadership.api import WriteFence
from reconciler.net.circuit_breaker import CircuitBreaker

log = structlog.get_logger()

CAPACITY = 256
"""Most Events that wait: about one second of requests once the API server is reachable again."""

NOT_READY_S = 1.0
"""Time between two tries while the API server's authorizer is not ready; later Events wait."""


class EventStats(msgspec.Struct):
    """Counts since the start; `updated` counts repetitions of an existing Event."""

    created: int = 0
    updated: int = 0
    suppressed: int = 0
    dropped: int = 0
    forbidden: int = 0


class EventRecorder:
    """An observer of runs that records Events on pods, if this replica may write."""

    def __init__(
        self, *, kube: Kube, fence: WriteFence, breaker: CircuitBreaker, runtime: Runtime
    ) -> None:
        self._kube = kube
        self._fence = fence
        self._breaker = breaker
        self._clock = runtime.clock
        self._log_dedup = runtime.log_dedup
        self._component = runtime.config.names.field_manager
        # A short Lease needs a shorter limit.
        self._timeout_s = min(MAX_TIMEOUT_S, runtime.config.request_limit_s)
        self._rules = EventRules()
        self._correlator = EventCorrelator()
        self._pending: deque[EventSeries] = deque()
        self._has_pending = asyncio.Event()
        self.stats = EventStats()

    def observe(self, run: ReconcileRun) -> None:
        """Queue the Events of a run; never waits."""
        events = self._rules.messages_for(run)
        pod = run.pod
        if not events or pod is None or not self._fence.may_write(0.0):
            return
        now_at, now_s = self._clock.monotonic(), self._clock.wall()
        for event in events:
            series = self._correlator.correlate(pod, event, now_at=now_at, now_s=now_s)
            if series is None:
                self.stats.suppressed += 1
            elif not series.queued:
                self._enqueue(series)

    def of(self, namespace: str, pod: str) -> tuple[PodEvent, ...]:
        """Return the Events of a pod that this replica recorded, the latest first."""
        return self._correlator.of(namespace, pod)

    async def run(self) -> None:
        """Send the queued Events, one after another, until cancelled.

        Cancel: Events that still wait are not sent.
        """
        while True:
            await self._has_pending.wait()
            await self._breaker.wait_closed()
            series = self._pending.popleft()
            if not self._pending:
                self._has_pending.clear()
            series.queued = False
            try:
                await self._send(series)
            except AuthorizerNotReady:
                self._pending.appendleft(series)
                series.queued = True
                self._has_pending.set()
                await asyncio.sleep(NOT_READY_S)

    def __len__(self) -> int:
        """Return the number of Events that wait."""
        return len(self._pending)

    def _enqueue(self, series: EventSeries) -> None:
        if len(self._pending) >= CAPACITY:
            self.stats.dropped += 1
            return
        series.queued = True
        self._pending.append(series)
        self._has_pending.set()

    async def _send(self, series: EventSeries) -> None:
        """Send one Event; after any other error it is counted and not retried.

        Raises:
            AuthorizerNotReady: Nothing was sent; the same Event may be sent later.
        """
        namespace = series.pod.namespace
        try:
            if not self._fence.may_write(self._timeout_s):
                raise NotLeaderError("only the leader records Events")
            await self._write(series)
        except Forbidden as error:
            self.stats.forbidden += 1
            if not is_terminating(error) and self._log_dedup.should_log(
                "events_forbidden", namespace
            ):
                log.warning("events_forbidden", namespace=namespace, error=str(error))
        except AuthorizerNotReady:
            raise
        except (KubeError, ProtocolError, NotLeaderError):
            self.stats.dropped += 1

    async def _write(self, series: EventSeries) -> None:
        pod = series.pod
        involved = {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "resourceVersion": pod.version,
        }
        body = event_body(
            involved,
            series.event,
            count=series.count,
            first_s=series.first_s,
            last_s=series.last_s,
            component=self._component,
            instance=self._fence.term,
        )
        name = await write_event(
            self._kube,
            body,
            series.name,
            now_s=self._clock.wall(),
            limit_s=self._timeout_s,
            permit=self._fence.check,
        )
        if name == series.name:
            self.stats.updated += 1
        else:
            series.name = name
            self.stats.created += 1
