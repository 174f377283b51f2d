"""One session as a reader sees it: its life, what comes next and why, what was tried (pure)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reconciler.control.attempt import Outcome
from reconciler.control.fleet import State
from reconciler.control.history import KEEP, Past
from reconciler.control.row import Row
from reconciler.control.words import GATES, held, why
from reconciler.onlooker.words import ago, clean, duration, instant
from reconciler.page.errors import in_words

Tone = Literal["good", "warn", "bad", "still"]

STATES: dict[State, str] = {
    "expired": "expired",
    "expiring": "ending",
    "live": "live",
    "endless": "without an end",
    "unknown": "end not known",
    "missing": "no token",
}

_TONES: dict[State, Tone] = {
    "expired": "bad",
    "expiring": "warn",
    "live": "good",
    "endless": "good",
    "unknown": "warn",
    "missing": "bad",
}

_OUTCOMES: dict[Outcome, tuple[Tone, str]] = {
    "refreshed": ("good", "refreshed"),
    "failed": ("bad", "failed"),
    "blocked": ("still", "nothing written"),
    "not_improved": ("warn", "no better token at hand"),
    "fought": ("warn", "another writer was let be"),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """One attempt; `words` say how it ended and why."""

    tone: Tone
    when: str
    ended: str
    words: str


@dataclass(frozen=True, slots=True)
class Line:
    """What the list shows of one session; all text is foreign text made printable.

    `share` and `due` are places on the life bar, 0-100: what is left of the token now, and what
    will be left of it when it is renewed (None: nothing to show).
    """

    key: str
    namespace: str
    session_id: str
    tone: Tone
    life: str
    state: str
    share: float | None
    due: float | None
    next: str
    why: str
    marks: tuple[Mark, ...]
    facts: tuple[tuple[str, str], ...]


def line_of(row: Row, past: Sequence[Past], *, now_s: float, wall_s: float, scale_s: float) -> Line:
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
    return Line(
        key=str(row.key),
        namespace=clean(row.namespace),
        session_id=clean(row.session_id),
        tone=_tone(row),
        life=_life(row.remaining_s),
        state=STATES[row.state],
        share=_share(row.remaining_s, scale_s),
        due=due,
        next=upcoming,
        why=clean(reason),
        marks=tuple(_mark(each, wall_s) for each in past[:KEEP]),
        facts=tuple(_facts(row, now_s)),
    )


def _is_hindered(row: Row) -> bool:
    """Whether its next deadline says nothing of how its life goes on."""
    return bool(row.hold or row.gate or row.failures)


def _tone(row: Row) -> Tone:
    tone = _TONES[row.state]
    if row.hold:
        return "bad" if row.state == "expired" else "still"
    return "warn" if tone == "good" and row.failures else tone


def _life(remaining_s: float | None) -> str:
    if remaining_s is None:
        return "-"
    if math.isinf(remaining_s):
        return "endless"
    return duration(remaining_s) if remaining_s > 0 else f"dead {duration(-remaining_s)}"


def _share(seconds: float | None, scale_s: float) -> float | None:
    if seconds is None:
        return None
    if math.isinf(seconds):
        return 100.0
    return round(min(100.0, max(0.0, 100 * seconds / max(scale_s, 1.0))), 1)


def _next(row: Row, now_s: float) -> tuple[str, str]:
    """Return when a session is worked on next, and why then."""
    if row.hold:
        return "held", held(row)
    if row.stage == "running":
        return "now", why(row.reason)
    if row.due_s is None:
        return "nothing planned", ""
    reason = why(row.reason)
    if row.gate:
        return "waits", f"{GATES.get(row.gate, row.gate)}; {reason}"
    wait_s = row.due_s - now_s
    when = f"in {duration(wait_s)}" if wait_s >= 1 else "now" if wait_s > -1 else _late(wait_s)
    if row.failures:
        times = "once" if row.failures == 1 else f"{row.failures} times in a row"
        return when, f"failed {times}; {reason}"
    return when, reason


def _late(wait_s: float) -> str:
    return f"due {ago(-wait_s)}"


def _mark(past: Past, wall_s: float) -> Mark:
    tone, how = _OUTCOMES.get(past.outcome, ("still", past.outcome))
    cause = in_words(past.error) if past.error else why(past.reason)
    words = clean(f"{how}: {cause}") if cause else how
    return Mark(tone, instant(past.ended_s), ago(wall_s - past.ended_s), words)


def _facts(row: Row, now_s: float) -> list[tuple[str, str]]:
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
