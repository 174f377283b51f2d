"""The session list's columns, and one row: its token's life, the next run, recent runs (pure)."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from reconciler.clock import NEVER, EpochTime
from reconciler.controller.decide.token_state import HEALTHY, NOTHING_TO_READ, TokenState
from reconciler.controller.events.correlator import PodEvent
from reconciler.controller.reconcile.run import Outcome
from reconciler.controller.status.history import MAX_RUNS, RunRecord
from reconciler.controller.status.snapshot import SessionStatus
from reconciler.humanize import REASON, ago, clean, duration, instant
from reconciler.statuspage.identity import Links, PageIdentity
from reconciler.statuspage.texts import (
    BLOCKING_ENDPOINTS,
    describe_block,
    describe_error_class,
    describe_reason,
)

Severity = Literal["good", "warn", "bad", "neutral"]

_SAFE = re.compile(r"[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?")
"""Words without a meaning to a shell or to `grep`. Names of objects are such words; an ID that a
tenant wrote need not be one."""


def _unknown_last(value: float | EpochTime | None) -> float | EpochTime:
    return NEVER if value is None else value


class TableColumn(NamedTuple):
    """A column of the list: its name in a URL, its heading, and what it is sorted by.

    `leader_only`: a standby does not know it, and does not show it.
    """

    sort: str
    heading: str
    value: Callable[[SessionStatus], Any]
    leader_only: bool = False


COLUMNS = (
    TableColumn("session", "Session", lambda row: (row.namespace, row.session_id)),
    TableColumn("life", "Life left", lambda row: _unknown_last(row.remaining_s)),
    TableColumn("next", "Next run", lambda row: _unknown_last(row.due_s), leader_only=True),
    TableColumn("failures", "Recent runs", lambda row: row.failures, leader_only=True),
)
"""`session_table.html` has the cell of each, in this order."""


def severity_of(state: TokenState) -> Severity:
    """Return how bad a state is."""
    if state in (TokenState.EXPIRED, TokenState.EXPIRING) or state in NOTHING_TO_READ:
        return "bad"
    if state in (TokenState.PAUSED, TokenState.UNCONFIRMED):
        return "neutral"
    return "good" if state in HEALTHY else "warn"


_OUTCOMES: dict[Outcome, tuple[Severity, str]] = {
    "refreshed": ("good", "refreshed"),
    "failed": ("bad", "failed"),
    "blocked": ("neutral", "blocked"),
    "no_better_token": ("warn", "no better token available"),
    "conflict_backoff": ("warn", "backed off from another writer"),
}


class RunMark(msgspec.Struct, frozen=True):
    """One run, or one Event; `words` say how it ended and why.

    `trace_id` is "" where none is known, `trace_url` where the trace cannot be seen.
    """

    severity: Severity
    when: str
    ended: str
    words: str
    trace_id: str = ""
    trace_url: str = ""


class SessionRow(msgspec.Struct, frozen=True):
    """One session in the list; all text is made printable.

    `share` and `due` are positions on the life bar, 0-100: the remaining life now, and the
    remaining life at the next refresh (None: nothing to show).
    """

    key: str
    namespace: str
    session_id: str
    severity: Severity
    life: str
    state: str
    share: float | None
    due: float | None
    next: str
    reason: str
    runs: tuple[RunMark, ...]
    details: tuple[tuple[str, str], ...]
    events: tuple[RunMark, ...] = ()
    commands: tuple[str, ...] = ()


def row_of(
    row: SessionStatus,
    runs: Sequence[RunRecord],
    events: Sequence[PodEvent] = (),
    *,
    identity: PageIdentity,
    now_s: EpochTime,
    wall_s: EpochTime,
    scale_s: float,
    leading: bool = True,
) -> SessionRow:
    """Return the row of a session.

    Args:
        runs: Its recent runs, the newest first; `events` the Events of its pod.
        now_s: The snapshot's instant in the issuer's time; `wall_s` is the same by our own clock.
        scale_s: The life that a full bar means.
        leading: Whether this replica leads; only the leader knows the next run.
    """
    next_run, reason = _next(row, now_s)
    due = None
    if leading and row.due_s is not None and row.expires_s is not None and not _is_obstructed(row):
        due = _share(row.expires_s - max(row.due_s, now_s), scale_s)
    return SessionRow(
        key=str(row.key),
        namespace=clean(row.namespace),
        session_id=clean(row.session_id),
        severity=_severity(row),
        life=_life(row.remaining_s),
        state=row.state,
        share=_share(row.remaining_s, scale_s),
        due=due,
        next=next_run,
        reason=clean(reason),
        runs=tuple(_run(each, wall_s, identity.links) for each in runs[:MAX_RUNS]),
        details=tuple(_details(row, now_s, leading=leading)),
        events=tuple(_event(each, wall_s) for each in events[:MAX_RUNS]),
        commands=_commands(row, identity),
    )


def _is_obstructed(row: SessionStatus) -> bool:
    """Whether its next deadline is not that of a refresh."""
    return bool(row.block_reason or row.blocked_on or row.failures)


def _severity(row: SessionStatus) -> Severity:
    severity = severity_of(row.state)
    if row.block_reason:
        return "bad" if row.state is TokenState.EXPIRED else "neutral"
    return "warn" if severity == "good" and row.failures else severity


def _life(remaining_s: float | None) -> str:
    if remaining_s is None:
        return "-"
    if math.isinf(remaining_s):
        return "no expiry"
    return duration(remaining_s)


def _share(seconds: float | None, scale_s: float) -> float | None:
    if seconds is None:
        return None
    if math.isinf(seconds):
        return 100.0
    return round(min(100.0, max(0.0, 100 * seconds / max(scale_s, 1.0))), 1)


def _next(row: SessionStatus, now_s: EpochTime) -> tuple[str, str]:
    """Return when the next run of a session is, and why then."""
    if row.block_reason:
        return "blocked", describe_block(row)
    if row.stage == "running":
        return "now", describe_reason(row.reason)
    if row.due_s is None:
        return "not scheduled", ""
    reason = describe_reason(row.reason)
    if row.blocked_on:
        return "waiting", f"{BLOCKING_ENDPOINTS.get(row.blocked_on, row.blocked_on)}; {reason}"
    wait_s = row.due_s - now_s
    when = f"in {duration(wait_s)}" if wait_s >= 1 else "now" if wait_s > -1 else _late(wait_s)
    if row.failures:
        times = "once" if row.failures == 1 else f"{row.failures} times in a row"
        return when, f"failed {times}; {reason}"
    return when, reason


def _late(wait_s: float) -> str:
    return f"due {ago(-wait_s)}"


def _event(event: PodEvent, wall_s: EpochTime) -> RunMark:
    severity: Severity = "warn" if event.type == "Warning" else "good"
    times = f" ({event.count:,} times)" if event.count > 1 else ""
    words = clean(f"{event.reason}: {event.message}", REASON) + times
    return RunMark(severity, instant(event.last_s), ago(wall_s - event.last_s), words)


def _run(past: RunRecord, wall_s: EpochTime, links: Links) -> RunMark:
    severity, how = _OUTCOMES.get(past.outcome, ("neutral", past.outcome))
    cause = describe_error_class(past.error) if past.error else describe_reason(past.reason)
    words = clean(f"{how}: {cause}") if cause else how
    trace_id = past.hex_trace_id
    when, ended = instant(past.ended_s), ago(wall_s - past.ended_s)
    url = links.trace(trace_id) if past.exported else ""
    return RunMark(severity, when, ended, words, trace_id, url)


def _details(row: SessionStatus, now_s: EpochTime, *, leading: bool) -> list[tuple[str, str]]:
    """Return the details of an opened session, by name; unknown ones are left out."""
    expires_s, due_s = row.expires_s, row.due_s
    expires = "" if expires_s is None else "never" if math.isinf(expires_s) else instant(expires_s)
    due = "" if due_s is None or row.block_reason or not leading else instant(max(due_s, now_s))
    named = [
        ("Token expires", expires),
        ("Next run", due),
        ("Project", row.project),
        ("Pod", row.pod or "none"),
        ("Secret", row.secret or "none"),
        ("Written by", row.refreshed_by),
    ]
    return [(name, clean(value)) for name, value in named if value]


def _commands(row: SessionStatus, identity: PageIdentity) -> tuple[str, ...]:
    """Return commands that explain, refresh and follow a session; none with an unsafe word."""
    namespace, pod = row.namespace, row.pod
    log = f"kubectl -n {identity.namespace} logs {identity.replica} | grep {row.session_id}"
    found = (
        (f"reconciler explain {namespace}/{pod}", (namespace, pod)),
        (f"kubectl -n {namespace} describe pod {pod}", (namespace, pod)),
        (f"reconciler refresh {namespace}/{pod}", (namespace, pod)),
        (log, (identity.namespace, identity.replica, row.session_id)),
    )
    return tuple(text for text, words in found if all(_SAFE.fullmatch(word) for word in words))
