"""Observers of the reconcile runs: metrics, and traces with links to what queued them."""

from collections.abc import Callable

from reconciler.controller.decide.competing_writers import ISOLATED
from reconciler.controller.reconcile.run import Outcome, ReconcileRun
from reconciler.kube.api import ObjectMeta
from reconciler.telemetry import metrics
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.telemetry.trace import Trace, Tracer
from reconciler.workqueue.items import Priority

CHANGES = {"pod": "pod_changed", "secret": "secret_changed", "touch": "secret_seen"}
"""Reasons that mean a watch event, and the name of the span of that event."""

IsSampled = Callable[[Trace], bool]
"""Returns whether a trace that has ended is exported."""


class RunTraces:
    """Observer that exports the sampled traces, with links to what caused them.

    A resync is a separate trace, and its runs link to it. A watch event has a span only if the run
    that it queued is exported: there are ten times as many events as runs worth a look.

    Args:
        keep: Exports one trace.
    """

    def __init__(self, tracer: Tracer, keeps: IsSampled, keep: Callable[[Trace], None]) -> None:
        self._tracer = tracer
        self._is_sampled = keeps
        self._export = keep
        tracer.on_end(self._ended)

    def observe(self, run: ReconcileRun) -> None:
        trace = run.trace
        if not self._is_sampled(trace):
            return
        trace.attributes = attributes_of(run)
        if run.error is not None:
            trace.fail(run.error)
        for reason in run.work.reasons:
            if (cause := self._tracer.causes.get(reason)) is not None:
                trace.links.append((reason, cause))
            elif (name := CHANGES.get(reason)) is not None:
                trace.links.append((reason, self._event(name, run).id))
        trace.sampled = True
        self._export(trace)

    def _ended(self, trace: Trace) -> None:
        """Export a trace that is no run: a resync always, a token request if it is sampled."""
        if trace.name.endswith("resync") or self._is_sampled(trace):
            self._export(trace)

    def _event(self, name: str, run: ReconcileRun) -> Trace:
        event = self._tracer.begin(name)
        event.began_at = event.ended_at = run.work.ready_at
        event.attributes = _subject(run.key.namespace, run.pod)
        self._export(event)
        return event


def attributes_of(run: ReconcileRun) -> dict[str, str | int | float | bool]:
    """Return the root span's attributes; none holds a token."""
    work, trace = run.work, run.trace
    attributes = _subject(run.key.namespace, run.pod) | {
        "token_reconciler.session.id": run.key.session_id,
        "token_reconciler.outcome": run.outcome,
        "token_reconciler.reason": run.reason,
        "token_reconciler.queued_for": ",".join(work.reasons),
        "token_reconciler.priority": work.priority.name.lower(),
        "token_reconciler.attempt": work.attempt,
        "token_reconciler.lateness_s": round(max(0.0, trace.began_at - run.due_at), 3),
    }
    return attributes


def _subject(namespace: str, pod: ObjectMeta | None) -> dict[str, str | int | float | bool]:
    attributes: dict[str, str | int | float | bool] = {"k8s.namespace.name": namespace}
    if pod is not None:
        attributes |= {"k8s.pod.name": pod.name, "k8s.pod.uid": pod.uid}
    return attributes


_RESULTS: dict[Outcome, str] = {
    "refreshed": "success",
    "failed": "failure",
    "no_better_token": "no_better_token",
    "conflict_backoff": "conflict_backoff",
}
_WRITES = frozenset({"patch", "create", "touch"})
_PRIORITIES = {priority: priority.name.lower() for priority in Priority}


class RunMetrics:
    """Observer that counts. Cost: 7 us for a refresh."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self._registry = registry
        # Rare and worth an alert: a rate shows no increase for the first value of a series.
        registry.count(metrics.OVERWRITES, "repeated", by=0.0)

    def observe(self, run: ReconcileRun) -> None:
        registry, work, trace = self._registry, run.work, run.trace
        priority = _PRIORITIES[work.priority]
        registry.observe(metrics.LATENESS, max(0.0, trace.began_at - run.due_at), priority)
        registry.observe(metrics.QUEUE_WAIT, max(0.0, trace.began_at - work.ready_at), priority)
        for step in trace.spans:
            if step.name in _WRITES:
                registry.observe(metrics.WRITE, step.seconds, step.name, step.error or "success")
        if run.overwrites:
            registry.count(metrics.OVERWRITES, _pattern(run.overwrites))
        result = _RESULTS.get(run.outcome)
        if result is None:
            return
        registry.observe(metrics.RUN, trace.seconds)
        registry.count(metrics.REFRESHES, result, run.reason)
        if run.error is not None:
            registry.count(metrics.ERRORS, run.error_class)


def _pattern(overwrites: int) -> str:
    return "repeated" if overwrites > ISOLATED else "isolated"
