"""How far the startup resync is: every session that it found needs a first result."""

import asyncio
from collections.abc import Callable

import structlog

from reconciler.clock import Clock, Instant
from reconciler.controller.reconcile.run import Outcome, ReconcileRun
from reconciler.naming import SessionKey

log = structlog.get_logger()


RESULTS: dict[Outcome, str] = {
    "refreshed": "refreshed",
    "unchanged": "unchanged",
    "no_better_token": "unchanged",
    "removed": "unchanged",
    "failed": "failed",
    "blocked": "blocked",
}
"""Outcomes of a run that are results of its session."""


class StartupProgress:
    """Counts the sessions of the startup resync until each had its first result.

    Order: `begin` before the first key is queued; `observe` and `record_result` at any time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: set[SessionKey] = set()
        self._sessions = 0
        self._pending: set[SessionKey] = set()
        self._outcomes: dict[str, int] = {}
        self._began_at: Instant | None = None
        self._listed = False
        self._trace_id = ""
        self.finished = asyncio.Event()
        self.seconds = 0.0
        self._on_finished: Callable[[], None] = lambda: None

    def begin(self, trace_id: str, on_finished: Callable[[], None]) -> None:
        """Start counting.

        Args:
            trace_id: Goes into the log line at the end of the resync.
            on_finished: Called once, when each session has had its first result.
        """
        self._trace_id, self._on_finished = trace_id, on_finished
        self._began_at = self._clock.monotonic()
        self._outcomes = {}
        self._known, self._pending, self._sessions = set(), set(), 0
        self._listed = False
        self.finished.clear()

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of sessions by the outcome of their first run, sorted by name."""
        return dict(sorted(self._outcomes.items()))

    @property
    def sessions(self) -> int:
        """Number of sessions that were added so far."""
        return self._sessions

    def add(self, key: SessionKey, *, due: bool) -> None:
        """Count a session once; one that is not due has its result: unchanged."""
        if key in self._known:
            return
        self._know(key)
        self._pending.add(key)
        if not due:
            self.record_result(key, "unchanged")

    def all_listed(self) -> None:
        """Note that no more sessions will be added."""
        self._listed = True
        self._finish_if_done()

    def observe(self, run: ReconcileRun) -> None:
        """Take in how a run ended; one that ended before it did anything is no result."""
        outcome = RESULTS.get(run.outcome)
        if outcome is not None and not run.awaits_list:
            self.record_result(run.key, outcome)

    def record_result(self, key: SessionKey, outcome: str) -> None:
        """Take in a session's result: `refreshed`, `unchanged`, `failed` or `blocked`.

        Only the first one counts.
        """
        if self._began_at is None:
            return
        if key not in self._known and outcome != "unchanged":
            self._know(key)  # it ran before the resync listed it
        elif key not in self._pending:
            return
        self._pending.discard(key)
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        self._finish_if_done()

    def _know(self, key: SessionKey) -> None:
        self._known.add(key)
        self._sessions += 1

    def _finish_if_done(self) -> None:
        if self._pending or not self._listed or self._began_at is None:
            return
        # Only the number is read from now on; the table of an emptied set keeps its size.
        self._known, self._pending = set(), set()
        self.seconds = self._clock.monotonic() - self._began_at
        self._began_at = None
        self.finished.set()
        log.info(
            "startup_resync_finished",
            sessions=self.sessions,
            seconds=round(self.seconds, 3),
            **self.outcomes,
            # Logged at the end of the last session's run, which has another trace ID.
            **({"trace_id": self._trace_id} if self._trace_id else {}),
        )
        self._on_finished()
