"""Kubernetes Events on the pod: `kubectl describe pod` tells what went wrong, and when it ended.

They have a small queue and a task of their own: no refresh waits for one, and what cannot be told
in time is dropped and counted.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

import structlog

from reconciler.clock import Clock, format_utc
from reconciler.controller.events.correlator import EventCorrelator, EventSeries
from reconciler.controller.events.rules import EventRules
from reconciler.controller.reconcile.run import ReconcileRun
from reconciler.errors import (
    AuthorizerNotReady,
    Forbidden,
    KubeError,
    NotFound,
    NotLeaderError,
    ProtocolError,
)
from reconciler.kube.api import Kube
from reconciler.kube.decoding import resource
from reconciler.kube.status_errors import is_terminating
from reconciler.leadership.api import WriteFence
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.telemetry.log_dedup import LogDedup

log = structlog.get_logger()

CAPACITY = 256
"""Events that wait: with the API server back, a second's worth of its time."""

LIMIT_S = 5.0
"""Longest wait for one answer."""

NOT_READY_S = 1.0
"""Between two tries while the API server authorizes nobody; the others wait behind."""

MAX_STEM = 220
"""Of a pod's name, so that an event's fits into 253 characters."""

EVENTS = resource("events", group="", version="v1", partial=True, decode=lambda _: None)
"""core/v1, the form that `kubectl describe` reads; of the answers nothing is needed."""


@dataclass(slots=True)
class EventStats:
    """Counts since the start; `updated` are repetitions of an Event that stands."""

    created: int = 0
    updated: int = 0
    suppressed: int = 0
    dropped: int = 0
    refused: int = 0


class EventRecorder:
    """A witness that tells the pod's readers; only a replica that may write does.

    Args:
        component: `source.component` and `reportingComponent`.
        limit_s: Longest wait for an answer, `LIMIT_S` at most: a short Lease leaves no more.
    """

    def __init__(
        self,
        *,
        kube: Kube,
        fence: WriteFence,
        breaker: CircuitBreaker,
        clock: Clock,
        once: LogDedup,
        component: str,
        limit_s: float,
    ) -> None:
        self._kube = kube
        self._fence = fence
        self._breaker = breaker
        self._clock = clock
        self._once = once
        self._component = component
        self._limit_s = min(LIMIT_S, limit_s)
        self._happenings = EventRules()
        self._correlator = EventCorrelator()
        self._waiting: deque[EventSeries] = deque()
        self._news = asyncio.Event()
        self.stats = EventStats()

    def observe(self, attempt: ReconcileRun) -> None:
        """Queue what is worth telling of an attempt; never waits."""
        found = self._happenings.of(attempt)
        pod = attempt.pod
        if not found or pod is None or not self._fence.may_write(0.0):
            return
        now_at, now_s = self._clock.monotonic(), self._clock.wall()
        for happening in found:
            series = self._correlator.correlate(pod, happening, now_at=now_at, now_s=now_s)
            if series is None:
                self.stats.suppressed += 1
            elif not series.queued:
                self._queue(series)

    async def run(self) -> None:
        """Send what is queued, one after another, for ever.

        Cancel: what waits is not told.
        """
        while True:
            await self._news.wait()
            await self._breaker.wait_closed()
            series = self._waiting.popleft()
            if not self._waiting:
                self._news.clear()
            series.queued = False
            try:
                await self._send(series)
            except AuthorizerNotReady:
                self._waiting.appendleft(series)
                series.queued = True
                self._news.set()
                await asyncio.sleep(NOT_READY_S)

    def __len__(self) -> int:
        """Return the number of events that wait."""
        return len(self._waiting)

    def _queue(self, series: EventSeries) -> None:
        if len(self._waiting) >= CAPACITY:
            self.stats.dropped += 1
            return
        series.queued = True
        self._waiting.append(series)
        self._news.set()

    async def _send(self, series: EventSeries) -> None:
        """Send one; whatever fails it otherwise, it is counted and not tried again.

        Raises:
            AuthorizerNotReady: Nothing was sent; the same event may be later.
        """
        namespace = series.pod.namespace
        try:
            if not self._fence.may_write(self._limit_s):
                raise NotLeaderError("events are told by the leader alone")
            if not series.name or not await self._updated(series):
                await self._create(series)
        except Forbidden as error:
            self.stats.refused += 1
            if not is_terminating(error) and self._once.should_log("events_forbidden", namespace):
                log.warning("events_forbidden", namespace=namespace, error=str(error))
        except AuthorizerNotReady:
            raise
        except (KubeError, ProtocolError, NotLeaderError):
            self.stats.dropped += 1

    async def _updated(self, series: EventSeries) -> bool:
        """Count a repetition; False if the Event is gone, as it is an hour after its last."""
        body = {"count": series.count, "lastTimestamp": format_utc(series.last_s)}
        try:
            await self._kube.patch(
                EVENTS,
                series.pod.namespace,
                series.name,
                body,
                limit_s=self._limit_s,
                permit=self._fence.check,
            )
        except NotFound:
            return False
        self.stats.updated += 1
        return True

    async def _create(self, series: EventSeries) -> None:
        series.name = ""
        # Source: client-go record/event.go: the object's name and an instant in nanoseconds.
        stem = series.pod.name[:MAX_STEM].rstrip("-.")
        name = f"{stem}.{round(self._clock.wall() * 1e9):x}"
        body = _body(series, name, component=self._component, instance=self._fence.term)
        await self._kube.create(
            EVENTS, series.pod.namespace, body, limit_s=self._limit_s, permit=self._fence.check
        )
        series.name = name
        self.stats.created += 1


def _body(series: EventSeries, name: str, *, component: str, instance: str) -> dict[str, Any]:
    pod, happening = series.pod, series.message
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": pod.namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "resourceVersion": pod.version,
        },
        "type": happening.type,
        "reason": happening.reason,
        "message": happening.message,
        "count": series.count,
        "firstTimestamp": format_utc(series.first_s),
        "lastTimestamp": format_utc(series.last_s),
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": instance,
    }
