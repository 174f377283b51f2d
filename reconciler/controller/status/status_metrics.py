"""The controller's metrics: a snapshot as gauges, and each run as it is counted (pure)."""

from collections.abc import Iterator

from reconciler.controller.decide.competing_writers import ISOLATED
from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.reconcile.run import Outcome, ReconcileRun
from reconciler.controller.status.fleet import BOUNDS_S
from reconciler.controller.status.snapshot import StatusSnapshot
from reconciler.telemetry import metrics
from reconciler.telemetry.metrics import HistogramValue, Sample
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.workqueue.items import Priority

NOT_COUNTED = (TokenState.PAUSED, TokenState.UNCONFIRMED)
"""States of blocked sessions alone, which `sessions_blocked` counts by reason."""

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
        registry.observe(metrics.LATENESS, run.lateness_s, priority)
        registry.observe(metrics.QUEUE_WAIT, max(0.0, trace.began_at - work.ready_at), priority)
        for step in trace.spans:
            if step.name in _WRITES:
                registry.observe(metrics.WRITE, step.seconds, step.name, step.error or "success")
        if run.overwrites:
            pattern = "repeated" if run.overwrites > ISOLATED else "isolated"
            registry.count(metrics.OVERWRITES, pattern)
        result = _RESULTS.get(run.outcome)
        if result is None:
            return
        registry.observe(metrics.RUN, trace.seconds)
        registry.count(metrics.REFRESHES, result, run.reason)
        if run.error is not None:
            registry.count(metrics.ERRORS, run.error_class)


def samples(snapshot: StatusSnapshot, *, per_session: bool) -> Iterator[Sample]:
    """Yield the samples of one snapshot; none is of a session that has ended."""
    yield from _fleet(snapshot)
    yield from _queue(snapshot)
    yield from _watches(snapshot)
    yield from _endpoints(snapshot)
    yield from _work(snapshot)
    if per_session:
        for reading in snapshot.readings:
            if reading.key in snapshot.excluded:
                continue
            if reading.expires_s is not None and reading.pod is not None:
                remaining_s = reading.expires_s - snapshot.now_s
                yield Sample(metrics.SESSION_REMAINING, remaining_s, tuple(reading.key))


def _fleet(snapshot: StatusSnapshot) -> Iterator[Sample]:
    fleet = snapshot.fleet
    yield Sample(metrics.EXPOSURE, fleet.exposure_s)
    if snapshot.exposed:
        grew_s = snapshot.exposed[0].last_s - snapshot.issuer.skew_s
        yield Sample(metrics.EXPOSURE_GREW, float(grew_s))
    counts = HistogramValue(BOUNDS_S[:-1], tuple(fleet.remaining_counts), fleet.remaining_sum_s)
    yield Sample(metrics.REMAINING, counts)
    if fleet.remaining_min_s is not None:
        shard = str(snapshot.lease.shard.index)
        yield Sample(metrics.REMAINING_MIN, fleet.remaining_min_s, (shard,))
    yield from _known(metrics.SURVIVAL, fleet.survival_s)
    yield from _known(metrics.STANDBY, snapshot.issuer.token.best_remaining_s)
    yield from _known(metrics.LIFE, snapshot.issuer.token.latest_ttl_s)
    yield Sample(metrics.ALLOWANCE, snapshot.propagation_s)
    for state, count in fleet.states.items():
        if state not in NOT_COUNTED:
            yield Sample(metrics.SESSIONS, count, (state,))
    for reason, count in fleet.blocked.items():
        yield Sample(metrics.BLOCKED, count, (reason,))
    yield Sample(metrics.UNCONFIRMED, fleet.unconfirmed)
    yield Sample(metrics.FAILING, fleet.failing)


def _queue(snapshot: StatusSnapshot) -> Iterator[Sample]:
    schedule = snapshot.queue.schedule
    for stage, by_priority in (("ready", schedule.ready), ("waiting", schedule.waiting)):
        for priority, count in by_priority.items():
            yield Sample(metrics.QUEUE_DEPTH, count, (priority.name.lower(), stage))
    for endpoint, count in schedule.blocked.items():
        yield Sample(metrics.QUEUE_BLOCKED, count, (endpoint,))
    yield Sample(metrics.RUNNING, schedule.running)
    yield Sample(metrics.SLOW_TARGETS, len(snapshot.slow.names))
    yield Sample(metrics.PARKED, snapshot.slow.parked)
    yield from _known(metrics.PLATFORM_ALLOWED, snapshot.platform_allowed)
    yield Sample(metrics.OLDEST, schedule.oldest_ready_s)
    yield Sample(metrics.OVERDUE, schedule.longest_overdue_s)


def _watches(snapshot: StatusSnapshot) -> Iterator[Sample]:
    for watch in snapshot.watches:
        labels, counts = (watch.resource, watch.namespace or ""), watch.protocol
        yield Sample(metrics.WATCH_SYNCED, int(watch.synced), labels)
        if watch.silent_s is not None:
            yield Sample(metrics.WATCH_SILENCE, watch.silent_s, labels)
        yield Sample(metrics.WATCH_EVENTS, counts.events, labels)
        yield Sample(metrics.BOOKMARKS, counts.bookmarks, labels)
        yield Sample(metrics.RELISTS, counts.relists, labels)
        yield Sample(metrics.WATCH_ERRORS, counts.errors, labels)
        yield Sample(metrics.WATCH_SKIPPED, counts.skipped, labels)
        yield Sample(metrics.WATCH_PANICS, watch.callback_crashes, labels)


def _endpoints(snapshot: StatusSnapshot) -> Iterator[Sample]:
    for breaker in snapshot.breakers:
        yield Sample(metrics.DOWN, int(breaker.down or breaker.refuses), (breaker.name,))
        yield Sample(metrics.REFUSED, int(breaker.refuses), (breaker.name,))
        yield Sample(metrics.OUTAGES, breaker.outages_total, (breaker.name,))
    if snapshot.issuer.heard:
        yield Sample(metrics.SKEW, snapshot.issuer.skew_s)
        yield Sample(metrics.SKEW_ERROR, snapshot.issuer.error_s)
        for clock, off_s in snapshot.issuer.offsets_s.items():
            yield Sample(metrics.CLOCK_OFFSET, off_s, (clock,))
    shard = snapshot.lease.shard
    yield Sample(metrics.LEADER, int(snapshot.lease.leading), (str(shard.index),))
    yield Sample(metrics.SHARDS, shard.count)
    if snapshot.lease.holder:  # before the Lease is seen, a 0 would look like a counter's reset
        yield Sample(metrics.TRANSITIONS, snapshot.lease.transitions)
    yield Sample(metrics.FENCED, snapshot.lease.fenced_total)


def _work(snapshot: StatusSnapshot) -> Iterator[Sample]:
    worker = snapshot.reconciler
    yield Sample(metrics.TOUCHES, worker.pod_touches_total)
    yield Sample(metrics.CREATED, worker.created_total)
    yield Sample(metrics.PANICS, worker.reconcile_panics_total)
    if snapshot.startup.finished:
        yield Sample(metrics.STARTUP, snapshot.startup.seconds)


def _known(metric: metrics.Metric, value: float | None) -> Iterator[Sample]:
    if value is not None:
        yield Sample(metric, value)
