"""What of an attempt is worth an Event on the pod: what changed, never what went as planned (pure).

A streak of failures is told at its first and at its end; what stays as it is is told once.
"""

from typing import Literal, NamedTuple

from cachetools import LRUCache

from reconciler.controller.decide.write_conflicts import ISOLATED
from reconciler.controller.reconcile.run import ReconcileRun
from reconciler.naming import SessionKey

MAX_SESSIONS = 10_000
"""Sessions whose standing trouble is remembered; one that is forgotten is told once more."""

ROUTINE_FAILURES = 3
"""Conflicts heal by planning again within tenths of a second; so many in a row are trouble."""

Standing = Literal["", "failing", "paused"]


class EventMessage(NamedTuple):
    """One Event's type, reason and message, in the API's own words; `message` holds no token."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class EventRules:
    """Turns attempts into happenings; remembers only what was said and has not ended."""

    def __init__(self) -> None:
        self._standing: LRUCache[SessionKey, Standing] = LRUCache(MAX_SESSIONS)

    def of(self, attempt: ReconcileRun) -> list[EventMessage]:
        """Return what is to be told now, in order."""
        before: Standing = self._standing.get(attempt.key, "")
        found: list[EventMessage] = []
        if attempt.overwrites > ISOLATED:
            found.append(_competing(attempt))
        elif attempt.overwrites:
            found.append(_overwritten(attempt))
        if attempt.created:
            found.append(_RECREATED)
        after = _standing(attempt, before)
        if after == "failing" != before:
            found.append(_failed(attempt))
        if after == "paused" != before:
            found.append(_PAUSED)
        if before == "paused" and after == "" and attempt.outcome in ("refreshed", "unchanged"):
            found.append(_RESUMED)
        if before == "failing" and after == "" and attempt.outcome in ("refreshed", "unchanged"):
            found.append(_RECOVERED)
        if after:
            self._standing[attempt.key] = after
        else:
            self._standing.pop(attempt.key, None)
        return found


def _standing(attempt: ReconcileRun, before: Standing) -> Standing:
    match attempt.outcome:
        case "failed":
            enough = not attempt.routine or attempt.failures >= ROUTINE_FAILURES
            return "failing" if enough and attempt.pod is not None else before
        case "blocked":
            return "paused" if attempt.reason == "paused" else ""
        case "refreshed" | "unchanged" | "removed":
            return ""
        case _:
            return before


_RECOVERED = EventMessage("Normal", "RefreshRecovered", "The runner's token is refreshed again")
_RECREATED = EventMessage(
    "Warning", "SecretRecreated", "The Secret of the runner's token was missing and was made again"
)
_PAUSED = EventMessage(
    "Normal", "RefreshPaused", "Refreshing the runner's token is paused by annotation"
)
_RESUMED = EventMessage(
    "Normal", "RefreshResumed", "Refreshing the runner's token is no longer paused"
)


def _failed(attempt: ReconcileRun) -> EventMessage:
    message = f"The runner's token could not be refreshed ({attempt.reason}): {attempt.error}"
    return EventMessage("Warning", "RefreshFailed", message)


_ACTION = {
    "token": ("overwrote", "keeps overwriting", "the runner's token"),
    "annotations": ("changed", "keeps changing", "the annotations of the runner's token"),
    "secret": ("deleted", "keeps deleting", "the Secret of the runner's token"),
}


def _overwritten(attempt: ReconcileRun) -> EventMessage:
    verb, _, what = _ACTION[attempt.undone or "token"]
    message = f"{attempt.writer or 'Somebody'} {verb} {what}; it was written again"
    return EventMessage("Warning", "TokenOverwritten", message)


def _competing(attempt: ReconcileRun) -> EventMessage:
    _, verb, what = _ACTION[attempt.undone or "token"]
    message = f"{attempt.writer or 'Somebody'} {verb} {what}; each time it was written again"
    return EventMessage("Warning", "SecretFoughtOver", message)
