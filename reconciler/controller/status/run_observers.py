"""What is made of each reconcile run: metrics, and a trace with links to what queued it."""

from collections.abc import Callable, Mapping

from reconciler.controller.decide.write_conflicts import ISOLATED
from reconciler.controller.reconcile.run import Outcome, ReconcileRun
from reconciler.kube.api import ObjectMeta
from reconciler.telemetry import metrics
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.telemetry.trace import SpanId, Trace, Tracer
from reconciler.workqueue.items import Priority

CHANGES = {"pod": "pod_changed", "secret": "secret_changed", "touch": "secret_seen"}
"""Reasons that stand for a watch event, and the name of the span that stands for it."""

IsSampled = Callable[[Trace], bool]
"""Whether a trace that has ended is worth its spans."""


class RunTraces:
    """A witness that hands kept traces on, with links to what caused them.

    A resync is a trace of its own, to which its runs link. A watch event has a span only where the
    run that it queued is kept: there are ten times as many events as anybody will look at.

    Args:
        keep: Takes what is kept.
        causes: The latest resync of each kind, by the reason with which it queues.
    """

    def __init__(self, tracer: Tracer, keeps: IsSampled, keep: Callable[[Trace], None]) -> None:
        self._tracer = tracer
        self._is_sampled = keeps
        self._export = keep
        self.causes: Mapping[str, SpanId] = {}

    def observe(self, attempt: ReconcileRun) -> None:
        trace = attempt.trace
        if not self._is_sampled(trace):
            return
        trace.attributes = attributes_of(attempt)
        for reason in attempt.work.reasons:
            if (cause := self.causes.get(reason)) is not None:
                trace.links.append((reason, cause))
            elif (name := CHANGES.get(reason)) is not None:
                trace.links.append((reason, self._event(name, attempt).id))
        trace.kept = True
        self._export(trace)

    def ended(self, trace: Trace) -> None:
        """Take a trace that is no attempt: a resync always, a spare like any other."""
        if trace.name.endswith("resync") or self._is_sampled(trace):
            self._export(trace)

    def _event(self, name: str, attempt: ReconcileRun) -> Trace:
        event = self._tracer.begin(name)
        event.began_at = event.ended_at = attempt.work.ready_at
        event.attributes = _subject(attempt.key.namespace, attempt.pod)
        self._export(event)
        return event


def attributes_of(attempt: ReconcileRun) -> dict[str, str | int | float | bool]:
    """Return the root span's attributes; none can hold a token."""
    work, trace = attempt.work, attempt.trace
    facts = _subject(attempt.key.namespace, attempt.pod) | {
        "token_reconciler.session.id": attempt.key.session_id,
        "token_reconciler.outcome": attempt.outcome,
        "token_reconciler.reason": attempt.reason,
        "token_reconciler.queued_for": ",".join(work.reasons),
        "token_reconciler.band": work.priority.name.lower(),
        "token_reconciler.attempt": work.attempt,
        "token_reconciler.lateness_s": round(max(0.0, trace.began_at - attempt.due_at), 3),
    }
    if attempt.error is not None:
        facts["error.type"] = attempt.error_class
        facts["token_reconciler.error"] = str(attempt.error)
    return facts


def _subject(namespace: str, pod: ObjectMeta | None) -> dict[str, str | int | float | bool]:
    facts: dict[str, str | int | float | bool] = {"k8s.namespace.name": namespace}
    if pod is not None:
        facts |= {"k8s.pod.name": pod.name, "k8s.pod.uid": pod.uid}
    return facts


_RESULTS: dict[Outcome, str] = {
    "refreshed": "success",
    "failed": "failure",
    "no_better_token": "no_better_token",
    "conflict_backoff": "conflict_backoff",
}
_WRITES = frozenset({"patch", "create", "touch"})
_BANDS = {band: band.name.lower() for band in Priority}


class RunMetrics:
    """A witness that counts. Cost: 7 us for a refresh."""

    def __init__(self, meters: MetricsRegistry) -> None:
        self._meters = meters
        # Seldom and worth an alert: a rate sees no increase in a series' first value.
        meters.count(metrics.OVERWRITES, "repeated", by=0.0)

    def observe(self, attempt: ReconcileRun) -> None:
        meters, work, trace = self._meters, attempt.work, attempt.trace
        band = _BANDS[work.priority]
        meters.observe(metrics.LATENESS, max(0.0, trace.began_at - attempt.due_at), band)
        meters.observe(metrics.QUEUE_WAIT, max(0.0, trace.began_at - work.ready_at), band)
        for step in trace.spans:
            if step.name in _WRITES:
                meters.observe(metrics.WRITE, step.seconds, step.name, step.error or "success")
        if attempt.overwrites:
            meters.count(metrics.OVERWRITES, _pattern(attempt.overwrites))
        result = _RESULTS.get(attempt.outcome)
        if result is None:
            return
        meters.observe(metrics.RUN, trace.seconds)
        meters.count(metrics.REFRESHES, result, attempt.reason)
        if attempt.error is not None:
            meters.count(metrics.ERRORS, attempt.error_class)


def _pattern(overwrites: int) -> str:
    return "repeated" if overwrites > ISOLATED else "isolated"
