"""Which runs cause an Event on the pod: those that change something unexpected (pure).

Consecutive failures cause an Event at the first and one at their end; a lasting state causes one.
"""

from typing import Literal, NamedTuple

from cachetools import LRUCache

from reconciler.controller.decide.competing_writers import ISOLATED
from reconciler.controller.reconcile.run import ReconcileRun
from reconciler.naming import SessionKey

MAX_SESSIONS = 10_000
"""Most sessions with a remembered problem; for an evicted one its Event is repeated once."""

ROUTINE_FAILURES = 3
"""Conflicts usually end with the next plan, within 0.1 s; this many in a row are a problem."""

Problem = Literal["", "failing", "paused"]


class EventMessage(NamedTuple):
    """One Event's type, reason and message, as in the API; `message` contains no token."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class EventRules:
    """Turns runs into Event messages; remembers only problems that have not ended."""

    def __init__(self) -> None:
        self._problems: LRUCache[SessionKey, Problem] = LRUCache(MAX_SESSIONS)

    def messages_for(self, run: ReconcileRun) -> list[EventMessage]:
        """Return the Events of this run, in order."""
        before: Problem = self._problems.get(run.key, "")
        messages: list[EventMessage] = []
        if run.overwrites > ISOLATED:
            messages.append(_competing_message(run))
        elif run.overwrites:
            messages.append(_overwritten_message(run))
        if run.created:
            messages.append(_RECREATED)
        after = _problem_after(run, before)
        if after == "failing" != before:
            messages.append(_failed_message(run))
        if after == "paused" != before:
            messages.append(_PAUSED)
        if before == "paused" and after == "" and run.outcome in ("refreshed", "unchanged"):
            messages.append(_RESUMED)
        if before == "failing" and after == "" and run.outcome in ("refreshed", "unchanged"):
            messages.append(_RECOVERED)
        if after:
            self._problems[run.key] = after
        elif before:
            del self._problems[run.key]
        return messages


def _problem_after(run: ReconcileRun, before: Problem) -> Problem:
    match run.outcome:
        case "failed":
            enough = not run.routine or run.failures >= ROUTINE_FAILURES
            return "failing" if enough and run.pod is not None else before
        case "blocked":
            return "paused" if run.reason == "paused" else ""
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


def _failed_message(run: ReconcileRun) -> EventMessage:
    message = f"The runner's token could not be refreshed ({run.reason}): {run.error}"
    return EventMessage("Warning", "RefreshFailed", message)


_PHRASES = {
    "token": ("overwrote", "keeps overwriting", "the runner's token"),
    "annotations": ("changed", "keeps changing", "the annotations of the runner's token"),
    "secret": ("deleted", "keeps deleting", "the Secret of the runner's token"),
}


def _overwritten_message(run: ReconcileRun) -> EventMessage:
    verb, _, what = _PHRASES[run.undone or "token"]
    message = f"{run.writer or 'Another client'} {verb} {what}; it was written again"
    return EventMessage("Warning", "TokenOverwritten", message)


def _competing_message(run: ReconcileRun) -> EventMessage:
    _, verb, what = _PHRASES[run.undone or "token"]
    message = f"{run.writer or 'Another client'} {verb} {what}; each time it was written again"
    return EventMessage("Warning", "SecretFoughtOver", message)
