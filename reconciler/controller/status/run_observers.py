"""The observer of the reconcile runs that counts."""

from reconciler.controller.decide.competing_writers import ISOLATED
from reconciler.controller.reconcile.run import Outcome, ReconcileRun
from reconciler.telemetry import metrics
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.workqueue.items import Priority

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
