"""Attempts as metrics: what is counted as it happens."""

from reconciler.control.attempt import Attempt, Outcome
from reconciler.control.fights import CHANCE
from reconciler.observe import metrics
from reconciler.observe.meters import Meters
from reconciler.queue.bands import Band

_RESULTS: dict[Outcome, str] = {
    "refreshed": "success",
    "failed": "failure",
    "not_improved": "not_improved",
    "fought": "fought",
}
_WRITES = frozenset({"patch", "create", "touch"})
_BANDS = {band: band.name.lower() for band in Band}


class Metering:
    """A witness that counts. Cost: 7 us for a refresh."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        # Seldom and worth an alert: a rate sees no increase in a series' first value.
        meters.count(metrics.OVERWRITES, "repeated", by=0.0)

    def note(self, attempt: Attempt) -> None:
        meters, work, trace = self._meters, attempt.work, attempt.trace
        band = _BANDS[work.band]
        meters.observe(metrics.LATENESS, max(0.0, trace.began_at - attempt.due_at), band)
        meters.observe(metrics.QUEUE_WAIT, max(0.0, trace.began_at - work.ready_at), band)
        for step in trace.steps:
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
    return "repeated" if overwrites > CHANCE else "chance"
