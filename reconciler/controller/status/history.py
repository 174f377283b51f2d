"""What the last runs of each session found: a few results, and why nothing is written to it."""

from collections import deque
from typing import NamedTuple

from cachetools import LRUCache

from reconciler.clock import Clock
from reconciler.controller.reconcile.run import Outcome, ReconcileRun
from reconciler.naming import SessionKey

MAX_RUNS = 5

MAX_SESSIONS = 20_000
"""Sessions remembered, the latest worked on first: some 15 MB at the most."""

_RECORDED: frozenset[Outcome] = frozenset(
    {"refreshed", "blocked", "failed", "no_better_token", "conflict_backoff"}
)
"""A look that found nothing due would push out what somebody wants to see."""


class RunRecord(NamedTuple):
    """One attempt: when it ended (epoch, our wall clock), how, and why; `error` is a class."""

    ended_s: float
    outcome: Outcome
    reason: str
    error: str


class RunHistory:
    """Bounded memory of attempts; lost with the process."""

    def __init__(self, clock: Clock, max_sessions: int = MAX_SESSIONS) -> None:
        self._clock = clock
        self._records: LRUCache[SessionKey, deque[RunRecord]] = LRUCache(max_sessions)

    def observe(self, run: ReconcileRun) -> None:
        """Remember an attempt that did, or should have done, something."""
        if run.outcome == "removed":
            self._records.pop(run.key, None)
        if run.outcome not in _RECORDED:
            return
        past = self._records.get(run.key)
        if past is None:
            past = self._records[run.key] = deque(maxlen=MAX_RUNS)
        past.append(RunRecord(self._clock.wall(), run.outcome, run.reason, run.error_class))

    def of(self, key: SessionKey) -> tuple[RunRecord, ...]:
        """Return a session's last attempts, the newest first."""
        return tuple(reversed(self._records.get(key, ())))

    def __len__(self) -> int:
        return len(self._records)


class BlockedSessions:
    """A witness; it holds no more than one word for each session that is held.

    A session that leaves without a run leaves its word behind; `keep` drops those.
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
        """Drop the words of all sessions but these."""
        for key in self._reasons.keys() - seen:
            del self._reasons[key]

    def __len__(self) -> int:
        return len(self._reasons)
