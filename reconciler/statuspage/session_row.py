"""One session as a reader sees it: its life, what comes next and why, what was tried (pure)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reconciler import errors
from reconciler.controller.decide.token_state import HEALTHY, NOTHING_TO_READ, TokenState
from reconciler.controller.reconcile.run import Outcome
from reconciler.controller.status.history import MAX_RUNS, RunRecord
from reconciler.controller.status.reasons import ENDPOINTS, describe_block, describe_reason
from reconciler.controller.status.snapshot import SessionStatus
from reconciler.humanize import ago, clean, duration, instant

_WORDS: dict[type[Exception], str] = {
    errors.IssuerUnavailable: "the issuer is away",
    errors.IssuerRefused: "the issuer refuses our credentials or our request",
    errors.InvalidToken: "the issuer's token cannot be used",
    errors.Conflict: "somebody else wrote in between",
    errors.AlreadyExists: "its name is taken",
    errors.Forbidden: "a right is missing in its namespace",
    errors.AuthorizerNotReady: "the API server has just started and refuses everybody",
    errors.QuotaExceeded: "its namespace's quota is full",
    errors.AdmissionDenied: "an admission policy refuses it",
    errors.Unauthorized: "the API server refuses our credentials",
    errors.NotFound: "it was gone",
    errors.Invalid: "the API server will not take it",
    errors.TooManyRequests: "the API server asked for patience",
    errors.ServerError: "the API server failed",
    errors.TransportError: "the API server did not answer",
    errors.PlatformUnavailable: "the platform is away",
    errors.PlatformAnswerTooLarge: "the platform's answer is larger than is held",
    errors.PlatformRefused: "the platform refuses our credentials",
    errors.PlatformError: "the platform refuses us",
    errors.NotLeaderError: "this replica no longer leads",
}

_BY_NAME = {kind.__name__: words for kind, words in _WORDS.items()}


def in_words(name: str) -> str:
    """Return an error's class in words; one without words is shown as it is."""
    return _BY_NAME.get(name, name)


Severity = Literal["good", "warn", "bad", "still"]


def severity_of(state: TokenState) -> Severity:
    """Return how bad a state is."""
    if state is TokenState.EXPIRED or state in NOTHING_TO_READ:
        return "bad"
    if state in (TokenState.PAUSED, TokenState.UNCONFIRMED):
        return "still"
    return "good" if state in HEALTHY else "warn"


_OUTCOMES: dict[Outcome, tuple[Severity, str]] = {
    "refreshed": ("good", "refreshed"),
    "failed": ("bad", "failed"),
    "blocked": ("still", "nothing written"),
    "no_better_token": ("warn", "no better token at hand"),
    "conflict_backoff": ("warn", "another writer was let be"),
}


@dataclass(frozen=True, slots=True)
class RunMark:
    """One attempt; `words` say how it ended and why."""

    tone: Severity
    when: str
    ended: str
    words: str


@dataclass(frozen=True, slots=True)
class SessionRow:
    """What the list shows of one session; all text is foreign text made printable.

    `share` and `due` are places on the life bar, 0-100: what is left of the token now, and what
    will be left of it when it is renewed (None: nothing to show).
    """

    key: str
    namespace: str
    session_id: str
    tone: Severity
    life: str
    state: str
    share: float | None
    due: float | None
    next: str
    reason: str
    marks: tuple[RunMark, ...]
    facts: tuple[tuple[str, str], ...]


def row_of(
    row: SessionStatus, past: Sequence[RunRecord], *, now_s: float, wall_s: float, scale_s: float
) -> SessionRow:
    """Put a session into words.

    Args:
        past: Its last attempts, the newest first.
        now_s: The survey's instant, issuer's time; `wall_s` is the same by our own clock.
        scale_s: The life that a full bar stands for.
    """
    upcoming, reason = _next(row, now_s)
    due = None
    if row.due_s is not None and row.expires_s is not None and not _is_hindered(row):
        due = _share(row.expires_s - max(row.due_s, now_s), scale_s)
    return SessionRow(
        key=str(row.key),
        namespace=clean(row.namespace),
        session_id=clean(row.session_id),
        tone=_tone(row),
        life=_life(row.remaining_s),
        state=row.state,
        share=_share(row.remaining_s, scale_s),
        due=due,
        next=upcoming,
        reason=clean(reason),
        marks=tuple(_mark(each, wall_s) for each in past[:MAX_RUNS]),
        facts=tuple(_facts(row, now_s)),
    )


def _is_hindered(row: SessionStatus) -> bool:
    """Whether its next deadline says nothing of how its life goes on."""
    return bool(row.hold or row.blocked_on or row.failures)


def _tone(row: SessionStatus) -> Severity:
    tone = severity_of(row.state)
    if row.hold:
        return "bad" if row.state is TokenState.EXPIRED else "still"
    return "warn" if tone == "good" and row.failures else tone


def _life(remaining_s: float | None) -> str:
    if remaining_s is None:
        return "-"
    if math.isinf(remaining_s):
        return "no expiry"
    return duration(remaining_s) if remaining_s > 0 else f"dead {duration(-remaining_s)}"


def _share(seconds: float | None, scale_s: float) -> float | None:
    if seconds is None:
        return None
    if math.isinf(seconds):
        return 100.0
    return round(min(100.0, max(0.0, 100 * seconds / max(scale_s, 1.0))), 1)


def _next(row: SessionStatus, now_s: float) -> tuple[str, str]:
    """Return when a session is worked on next, and why then."""
    if row.hold:
        return "held", describe_block(row)
    if row.stage == "running":
        return "now", describe_reason(row.reason)
    if row.due_s is None:
        return "nothing planned", ""
    reason = describe_reason(row.reason)
    if row.blocked_on:
        return "waits", f"{ENDPOINTS.get(row.blocked_on, row.blocked_on)}; {reason}"
    wait_s = row.due_s - now_s
    when = f"in {duration(wait_s)}" if wait_s >= 1 else "now" if wait_s > -1 else _late(wait_s)
    if row.failures:
        times = "once" if row.failures == 1 else f"{row.failures} times in a row"
        return when, f"failed {times}; {reason}"
    return when, reason


def _late(wait_s: float) -> str:
    return f"due {ago(-wait_s)}"


def _mark(past: RunRecord, wall_s: float) -> RunMark:
    tone, how = _OUTCOMES.get(past.outcome, ("still", past.outcome))
    cause = in_words(past.error) if past.error else describe_reason(past.reason)
    words = clean(f"{how}: {cause}") if cause else how
    return RunMark(tone, instant(past.ended_s), ago(wall_s - past.ended_s), words)


def _facts(row: SessionStatus, now_s: float) -> list[tuple[str, str]]:
    """Return what is shown of an opened session, name and value, only what is known."""
    expires_s, due_s = row.expires_s, row.due_s
    ends = "" if expires_s is None else "never" if math.isinf(expires_s) else instant(expires_s)
    due = "" if due_s is None or row.hold else instant(max(due_s, now_s))
    named = [
        ("Token ends", ends),
        ("Next deadline", due),
        ("Project", row.project),
        ("Pod", row.pod or "none"),
        ("Secret", row.secret or "none"),
        ("Written by", row.refreshed_by),
    ]
    return [(name, clean(value)) for name, value in named if value]
