"""The types of the queue: requests for runs, the work handed out, and the figures (pure)."""

from collections.abc import Hashable, Mapping
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar

import msgspec

from reconciler.clock import Instant


class Priority(IntEnum):
    """Urgency class of a run; within one class the least slack goes first."""

    EXPIRING = 1
    """The token has expired, or is inside the propagation allowance: a runner may fail now."""

    CHANGED = 2
    """New or changed pods: a runner waits for its first token."""

    STARTUP = 3
    """The startup resync: every running session once; none is known to be urgent."""

    ROUTINE = 4
    """Scheduled refreshes and the periodic resync: each can wait as long as its slack."""

    __hash__ = int.__hash__  # that of an enum is a Python function: 5 calls a refresh


K = TypeVar("K", bound=Hashable)

MAX_REASONS = 8
"""Most reasons that an entry keeps, oldest first: a bound for entries that wait long."""


CHANGED_FRACTION = 0.1
"""A change of the object that failed may have fixed the cause, and may repeat without end. It
shortens the wait to this fraction, so that one change a second causes at most ten times the
tries."""

MAX_REQUESTED_WAIT_S = 5.0
"""A request by a person waits no longer than this after a failure; a script that requests a refresh
every second causes one try per 5 s."""


class Trigger(IntEnum):
    """What has changed since the failure before a request; of two requests the greater counts.

    `NONE` is an event of another object, a resync or a relist; `CHANGED` a change of the object
    that could not be written, or a new pod; `REQUESTED` a request by a person.
    """

    NONE = 0
    CHANGED = 1
    REQUESTED = 2


class NotBefore(NamedTuple):
    """The earliest time of a key's next run after a failure.

    Args:
        failed_at: When it failed, monotonic.
        retry_at: When it is retried without a trigger, monotonic; no earlier than `failed_at`.
        dependency: What the failed run depended on; a request for a run that depends on something
            else does not wait.
    """

    failed_at: Instant
    retry_at: Instant
    dependency: str = ""

    def earliest_at(self, trigger: Trigger, dependency: str) -> Instant:
        """Return when a request with this trigger may run, monotonic."""
        if dependency != self.dependency:
            return self.failed_at
        wait_s = self.retry_at - self.failed_at
        if trigger is Trigger.REQUESTED:
            wait_s = min(wait_s, MAX_REQUESTED_WAIT_S)
        elif trigger is Trigger.CHANGED:
            wait_s *= CHANGED_FRACTION
        return self.failed_at + wait_s


class WorkItem(msgspec.Struct, Generic[K], frozen=True):
    """A key handed to a worker, which must call `done` for it in every case.

    Args:
        reasons: Why it runs: each reason once, in order of arrival, at most `MAX_REASONS`.
        priority: The priority it was served with: `EXPIRING`, too, if its slack ended in the queue.
        due_at: When this run was requested for, monotonic; of a retry, the time of the retry.
        ready_at: Since when it could have run, monotonic; never before it was added.
        attempt: 1 plus the number of consecutive failures before it.
        first_due_at: When its task was first due, monotonic, even if it was postponed since;
            lateness is the start of the run minus this.
    """

    key: K
    reasons: tuple[str, ...]
    priority: Priority
    due_at: Instant
    ready_at: Instant
    attempt: int
    first_due_at: Instant


class ScheduleRequest(msgspec.Struct, frozen=True):
    """A request to run a key: by an event, or by the key's last run.

    Args:
        at: Monotonic instant; a past one is due now, and late since then.
        slack_s: Seconds from now until it is too late; negative if it is too late already.
        blocked_on: An endpoint that must recover, or "". Its recovery makes the key due before
            `at`, which is then the fallback.
        not_before: After a failure, the earliest time for other requests; the recovery of the
            endpoint ends it.
        first_due_at: When it was first due, monotonic, if the run did not complete its task;
            `at` by default.
        trigger: What has changed since the last failure; see `NotBefore`.
        dependency: What the run depends on; compared with that of the failed run.
    """

    at: Instant
    priority: Priority
    slack_s: float
    reason: str
    blocked_on: str = ""
    not_before: NotBefore | None = None
    first_due_at: Instant | None = None
    trigger: Trigger = Trigger.NONE
    dependency: str = ""


class EntryInfo(NamedTuple):
    """One key's entry, for display.

    `stage` is `waiting`, `ready` or `running`; `at` is when it is or was due, monotonic;
    `blocked_on` the endpoint that it waits for, or ""; `failures` counts consecutive ones.
    """

    stage: str
    at: Instant
    priority: Priority
    reasons: tuple[str, ...]
    blocked_on: str
    failures: int


class PendingRequest(msgspec.Struct, frozen=True, gc=False):
    """One or more merged requests for a key; internal to this package.

    Slack is kept as the instant at which it ends, so that it shrinks equally for all.
    `first_due_at` is when the first of the merged requests was due.
    """

    at: Instant
    priority: Priority
    deadline_at: Instant
    reasons: tuple[str, ...]
    first_due_at: Instant
    blocked_on: str = ""
    not_before: NotBefore | None = None
    trigger: Trigger = Trigger.NONE
    dependency: str = ""

    def merged(self, later: "PendingRequest") -> "PendingRequest":
        """Return the more urgent of each field; the same object if `later` adds nothing.

        The `not_before` of one delays the other, except as far as its trigger shortens it.
        """
        merged = PendingRequest(
            at=min(self._earliest_at(later.not_before), later._earliest_at(self.not_before)),
            priority=min(self.priority, later.priority),
            deadline_at=min(self.deadline_at, later.deadline_at),
            reasons=_union(self.reasons, later.reasons),
            first_due_at=min(self.first_due_at, later.first_due_at),
            blocked_on=self.blocked_on or later.blocked_on,
            not_before=self.not_before or later.not_before,
            trigger=max(self.trigger, later.trigger),
            dependency=self.dependency or later.dependency,
        )
        return self if merged == self else merged

    def _earliest_at(self, not_before: NotBefore | None) -> Instant:
        """Return when this request may run after a merge with one that has `not_before`."""
        return (
            self.at
            if not_before is None
            else max(self.at, not_before.earliest_at(self.trigger, self.dependency))
        )

    def effective_priority(self, now_at: Instant) -> Priority:
        """Return the priority, which is `EXPIRING` once the slack has ended."""
        return Priority.EXPIRING if self.deadline_at <= now_at else self.priority


def _union(first: tuple[str, ...], then: tuple[str, ...]) -> tuple[str, ...]:
    fresh = tuple(reason for reason in then if reason not in first)
    return (first + fresh)[:MAX_REASONS] if fresh else first


class ScheduleStats(msgspec.Struct, frozen=True):
    """Figures of a scheduler; all priorities, and all endpoints named so far, are present.

    Args:
        ready: Entries that are due and wait for a worker, by requested priority.
        waiting: Entries that are not due yet, by priority; blocked ones are among them.
        blocked: Of the waiting, those that an endpoint's recovery would make due, by endpoint.
        running: Keys that workers run now.
        failing: Keys with a failed last run, in every stage.
        oldest_ready_s: How long the longest ready entry has waited for a worker; 0.0 if none.
        longest_overdue_s: How long the most urgent ready entry has had no slack; 0.0 if none.
    """

    ready: Mapping[Priority, int]
    waiting: Mapping[Priority, int]
    blocked: Mapping[str, int]
    running: int
    failing: int
    oldest_ready_s: float
    longest_overdue_s: float

    def __repr__(self) -> str:
        ready = _counted("ready", {priority.name.lower(): n for priority, n in self.ready.items()})
        blocked = _counted("blocked", self.blocked)
        waiting = sum(self.waiting.values())
        text = f"{ready}, waiting {waiting}, {blocked}, running {self.running}"
        if self.oldest_ready_s > 0:
            text += f", oldest {self.oldest_ready_s:.1f} s"
        if self.longest_overdue_s > 0:
            text += f", overdue {self.longest_overdue_s:.1f} s"
        return f"<{text}>"


class QueueStats(msgspec.Struct, frozen=True):
    """The scheduler's figures, the idle workers, and the state: `open`, `paused` or `closed`."""

    schedule: ScheduleStats
    idle_workers: int
    state: str

    def __repr__(self) -> str:
        return f"<{self.state}: {repr(self.schedule)[1:-1]}, idle workers {self.idle_workers}>"


def _counted(name: str, parts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{part} {count}" for part, count in parts.items() if count)
    total = f"{name} {sum(parts.values())}"
    return f"{total} ({listed})" if listed else total
