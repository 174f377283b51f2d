"""The events of one run, in order: a digest of all, the texts of the last, and the violations."""

import hashlib
import sys
from collections import deque
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import structlog

from reconciler.clock import Clock, Instant
from reconciler.naming import Names

KEEP = 40
"""Number of events that are printed with a violation."""

DEFECTS = frozenset(
    {"reconcile_crashed", "callback_crashed", "observer_failed", "status_snapshot_failed"}
)
"""Log events that only a defect of the controller causes."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One invariant that did not hold, and when; the loop's clock begins at 0 with the run."""

    invariant: str
    at: Instant
    what: str

    def __str__(self) -> str:
        return f"{self.invariant} at {self.at:.3f} s: {self.what}"


class EventLog:
    """The events of one run. No text in it may contain a token.

    Args:
        marks: Texts that every token of the run contains, plain and in base64.
    """

    def __init__(self, clock: Clock, marks: tuple[str, ...]) -> None:
        self.violations: list[Violation] = []
        self.events_total = 0
        self._clock = clock
        self._marks = marks
        self._hash = hashlib.blake2b(digest_size=16)
        self._last: deque[str] = deque(maxlen=KEEP)

    def note(self, event: str) -> None:
        """Add an event."""
        line = f"{self._clock.monotonic():.6f} {event}"
        self.events_total += 1
        self._hash.update(line.encode() + b"\n")
        self._last.append(line)

    def add_violation(self, invariant: str, what: str) -> None:
        """Add a violation of an invariant."""
        self.violations.append(Violation(invariant, self._clock.monotonic(), what))
        self.note(f"VIOLATION {invariant}: {what}")

    def check_clean(self, text: str, where: str) -> bool:
        """Return whether a text has no token in it; a token is a violation."""
        if any(mark in text for mark in self._marks):
            self.add_violation("no_token_exposed", f"a token's value in {where}")
            return False
        return True

    def take_log(self, _: object, level: str, event: MutableMapping[str, Any]) -> NoReturn:
        """Add a log line, as a structlog processor; no other output gets it."""
        name = str(event.pop("event", ""))
        crash = event.pop("exc_info", None)
        values = " ".join(f"{key}={event[key]}" for key in sorted(event))
        if self.check_clean(f"{name} {values}", f"the log event {name}"):
            self.note(f"log {level} {name} {values}".rstrip())
        if name in DEFECTS:
            self.add_violation("no_crash", f"{name} {values} {_named(crash)}")
        raise structlog.DropEvent

    @property
    def digest(self) -> str:
        """Return a digest of all events so far."""
        return self._hash.hexdigest()

    @property
    def last(self) -> tuple[str, ...]:
        """Return the last events, oldest first."""
        return tuple(self._last)


class CheckedWrites(NamedTuple):
    """What a checker of writes knows of its run; `us` is the user of the checked writes."""

    names: Names
    event_log: EventLog
    clock: Clock
    us: str


@contextmanager
def captured_logs(event_log: EventLog) -> Iterator[None]:
    """Send the controller's log to `event_log` only; restore the configuration at the end."""
    before = structlog.get_config()
    structlog.configure(
        processors=[event_log.take_log],
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _named(crash: object) -> str:
    """Return an exception's class and line, never its message."""
    error = crash if isinstance(crash, BaseException) else sys.exc_info()[1]
    if error is None:
        return ""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" in {trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"
