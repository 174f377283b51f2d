"""What passes through the queue: a wish to run, the work handed out, the wish for next (pure)."""

from collections.abc import Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar


class Priority(IntEnum):
    """What is at stake; inside a band the slack decides."""

    EXPIRING = 1
    """The token has expired, or is inside the propagation allowance: a runner may fail now."""

    CHANGED = 2
    """New or changed pods: somebody waits for a first token."""

    STARTUP = 3
    """The startup resync: every running session once, none of them known to be in danger."""

    ROUTINE = 4
    """Renewals on the grid and the periodic resync: all of it can wait for its slack."""


K = TypeVar("K", bound=Hashable)

REASONS = 8
"""Reasons kept with an entry, oldest first; more would tell a reader nothing and grow for ever."""


CHANGED_FRACTION = 0.1
"""A change of what failed may have cured it, and may be repeated without end: it shortens the wait
to this part, so that not even one change a second brings more than ten times the tries."""

ASKED_S = 5.0
"""A person who asks waits no longer than this after a failure; a script that asks every second
brings a try per 5 s."""


class Trigger(IntEnum):
    """What a wish for a run knows that the failure before it did not; the greater counts for more.

    `NONE` is an event of something else, a resync or a relist; `CHANGED` a change of the object
    that could not be written; `ASKED` the word of a person.
    """

    NONE = 0
    CHANGED = 1
    REQUESTED = 2


class NotBefore(NamedTuple):
    """Why a key is not tried again before its time: it failed.

    Args:
        since_at: When it failed, monotonic.
        until_at: When it is tried again without news, monotonic; no earlier than `since_at`.
        about: What was tried; a wish for something else is not held back.
    """

    since_at: float
    until_at: float
    depends_on: str = ""

    def earliest_at(self, news: Trigger, about: str) -> float:
        """Return when a wish with this news may run, monotonic."""
        if about != self.depends_on:
            return self.since_at
        wait_s = self.until_at - self.since_at
        if news is Trigger.REQUESTED:
            wait_s = min(wait_s, ASKED_S)
        elif news is Trigger.CHANGED:
            wait_s *= CHANGED_FRACTION
        return self.since_at + wait_s


@dataclass(frozen=True, slots=True)
class WorkItem(Generic[K]):
    """A key handed to a worker, which owes a `done` for it, whatever happens.

    Args:
        reasons: Why it runs: each reason once, in the order in which they came, at most `REASONS`.
        band: The band it was served in: `EXPIRING` too where its slack ran out as it waited.
        due_at: When this run was wanted, monotonic; of a retry, the retry's own time.
        ready_at: Since when it could have run, monotonic; never before the queue knew of it.
        attempt: 1 plus the failures in a row before it.
        since_at: When what it is to do was first due, monotonic, however often it was put off;
            lateness is the start of the run minus this.
    """

    key: K
    reasons: tuple[str, ...]
    priority: Priority
    due_at: float
    ready_at: float
    attempt: int
    since_at: float


@dataclass(frozen=True, slots=True)
class Requeue:
    """When a key is wanted again, by the run that knows best.

    Args:
        at: Monotonic instant; it may be later than any that was asked for before.
        slack_s: Seconds from now until it is too late; negative where it is already.
        endpoint: A condition whose opening makes it due before `at`, which is then the fallback; or
        "".
        hold: What keeps others from having it run before `at`, after a failure; the endpoint's
        opening
            ends it.
        since_at: When it was first due, monotonic, where the run did not do what it was for;
            by default it is `at`.
    """

    at: float
    priority: Priority
    slack_s: float
    reason: str
    blocked_on: str = ""
    hold: NotBefore | None = None
    since_at: float | None = None


class EntryInfo(NamedTuple):
    """What the queue holds of one key, for people.

    `stage` is `waiting`, `ready` or `running`; `at` is when it is or was wanted, monotonic;
    `endpoint` the endpoint that it waits for, or ""; `failures` counts those in a row.
    """

    stage: str
    at: float
    priority: Priority
    reasons: tuple[str, ...]
    blocked_on: str
    failures: int


class ScheduleRequest(NamedTuple):
    """What an entry wants; internal to this room.

    Slack is kept as the instant at which it ends, so that it shrinks equally for all. `since_at` is
    when the first of what is merged in it was due.
    """

    at: float
    priority: Priority
    deadline_at: float
    reasons: tuple[str, ...]
    since_at: float
    blocked_on: str = ""
    hold: NotBefore | None = None
    news: Trigger = Trigger.NONE
    about: str = ""

    def merged(self, later: "ScheduleRequest") -> "ScheduleRequest":
        """Return the more urgent of each part; the same object where `later` adds nothing.

        What holds one of them back holds back the other, unless that has news.
        """
        merged = ScheduleRequest(
            at=min(self._behind(later.hold), later._behind(self.hold)),
            priority=min(self.priority, later.priority),
            deadline_at=min(self.deadline_at, later.deadline_at),
            reasons=_united(self.reasons, later.reasons),
            since_at=min(self.since_at, later.since_at),
            blocked_on=self.blocked_on or later.blocked_on,
            hold=self.hold or later.hold,
            news=max(self.news, later.news),
            about=self.about or later.about,
        )
        return self if merged == self else merged

    def _behind(self, hold: NotBefore | None) -> float:
        """Return when it runs beside one that is held back."""
        return self.at if hold is None else max(self.at, hold.earliest_at(self.news, self.about))

    def effective_priority(self, now_at: float) -> Priority:
        """Return its band, which is `EXPIRING` for everything whose slack has run out."""
        return Priority.EXPIRING if self.deadline_at <= now_at else self.priority


def _united(first: tuple[str, ...], then: tuple[str, ...]) -> tuple[str, ...]:
    fresh = tuple(reason for reason in then if reason not in first)
    return (first + fresh)[:REASONS] if fresh else first
