"""Memory of runs: the last results of each session, and why nothing is written to it."""

from typing import NamedTuple

from cachetools import LRUCache

from reconciler.clock import Clock, EpochTime
from reconciler.controller.reconcile.run import Outcome, ReconcileRun
from reconciler.naming import SessionKey
from reconciler.telemetry.trace import hex_id

MAX_RUNS = 5

MAX_SESSIONS = 20_000
"""Most sessions that are remembered, those with the latest runs: some 15 MB at most."""

_RECORDED: frozenset[Outcome] = frozenset(
    {"refreshed", "blocked", "failed", "no_better_token", "conflict_backoff"}
)
"""A run that found nothing due is not recorded: it would displace results worth reading."""


class RunRecord(NamedTuple):
    """One run: its end (epoch, our wall clock), outcome and reason; `error` is a class name.

    `trace_id` is that of the log lines, 0 for a refresh of which the trace was not exported:
    100,000 numbers would take 4 MB. `exported` is True if the trace was sent to the collector.
    """

    ended_s: EpochTime
    outcome: Outcome
    reason: str
    error: str
    trace_id: int = 0
    exported: bool = False

    @property
    def hex_trace_id(self) -> str:
        """The ID as logs and Jaeger show it, "" for none."""
        return hex_id(self.trace_id) if self.trace_id else ""


class RunHistory:
    """Observer with a bounded memory of runs; it is lost with the process."""

    def __init__(self, clock: Clock, max_sessions: int = MAX_SESSIONS) -> None:
        self._clock = clock
        # A deque has 600 bytes for its first record.
        self._records: LRUCache[SessionKey, tuple[RunRecord, ...]] = LRUCache(max_sessions)

    def observe(self, run: ReconcileRun) -> None:
        """Record a run that did, or should have done, something."""
        if run.outcome == "removed":
            self._records.pop(run.key, None)
        if run.outcome not in _RECORDED:
            return
        trace = run.trace
        trace_id = trace.trace_id if trace.sampled or run.outcome != "refreshed" else 0
        record = RunRecord(
            self._clock.wall(), run.outcome, run.reason, run.error_class, trace_id, trace.sampled
        )
        self._records[run.key] = (record, *self._records.get(run.key, ()))[:MAX_RUNS]

    def of(self, key: SessionKey) -> tuple[RunRecord, ...]:
        """Return a session's last runs, the newest first."""
        return self._records.get(key, ())

    def __len__(self) -> int:
        return len(self._records)


class BlockedSessions:
    """Observer that holds the reason for each session to which nothing is written.

    A session that ends without a run leaves its reason here; `keep` removes those.
    """

    def __init__(self) -> None:
        self._reasons: dict[SessionKey, str] = {}

    def observe(self, run: ReconcileRun) -> None:
        if run.outcome == "blocked":
            self._reasons[run.key] = run.reason
        elif run.outcome in ("refreshed", "unchanged", "failed", "removed"):
            self._reasons.pop(run.key, None)

    def of(self, key: SessionKey) -> str:
        """Return why nothing is written to a session, or ""."""
        return self._reasons.get(key, "")

    def keep(self, seen: set[SessionKey]) -> None:
        """Remove the reasons of all sessions but these."""
        for key in self._reasons.keys() - seen:
            del self._reasons[key]

    def __len__(self) -> int:
        return len(self._reasons)
