"""What passes through the queue: a wish to run, the work handed out, the wish for next (pure)."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from reconciler.queue.bands import Band

K = TypeVar("K", bound=Hashable)

REASONS = 8
"""Reasons kept with an entry, oldest first; more would tell a reader nothing and grow for ever."""


@dataclass(frozen=True, slots=True)
class Work(Generic[K]):
    """A key handed to a worker, which owes a `done` for it, whatever happens.

    Args:
        reasons: Why it runs: each reason once, in the order in which they came, at most `REASONS`.
        band: The band it was served in: `EXPIRING` too where its slack ran out as it waited.
        due_at: When it was wanted, monotonic; lateness is the start of the run minus this.
        ready_at: Since when it could have run, monotonic; never before the queue knew of it.
        attempt: 1 plus the failures in a row before it.
    """

    key: K
    reasons: tuple[str, ...]
    band: Band
    due_at: float
    ready_at: float
    attempt: int


@dataclass(frozen=True, slots=True)
class Next:
    """When a key is wanted again, by the run that knows best.

    Args:
        at: Monotonic instant; it may be later than any that was asked for before.
        slack_s: Seconds from now until it is too late; negative where it is already.
        gate: A condition whose opening makes it due before `at`, which is then the fallback; or "".
    """

    at: float
    band: Band
    slack_s: float
    reason: str
    gate: str = ""


class Look(NamedTuple):
    """What the queue holds of one key, for people.

    `stage` is `waiting`, `ready` or `running`; `at` is when it is or was wanted, monotonic; `gate`
    the endpoint that it waits for, or ""; `failures` counts those in a row.
    """

    stage: str
    at: float
    band: Band
    reasons: tuple[str, ...]
    gate: str
    failures: int


class Wish(NamedTuple):
    """What an entry wants; internal to this room.

    Slack is kept as the instant at which it ends, so that it shrinks equally for all.
    """

    at: float
    band: Band
    dead_at: float
    reasons: tuple[str, ...]
    gate: str = ""

    def merged(self, later: "Wish") -> "Wish":
        """Return the more urgent of each part; the same object where `later` adds nothing."""
        merged = Wish(
            at=min(self.at, later.at),
            band=min(self.band, later.band),
            dead_at=min(self.dead_at, later.dead_at),
            reasons=_united(self.reasons, later.reasons),
            gate=self.gate or later.gate,
        )
        return self if merged == self else merged

    def served_as(self, now_at: float) -> Band:
        """Return its band, which is `EXPIRING` for everything whose slack has run out."""
        return Band.EXPIRING if self.dead_at <= now_at else self.band


def _united(first: tuple[str, ...], then: tuple[str, ...]) -> tuple[str, ...]:
    fresh = tuple(reason for reason in then if reason not in first)
    return (first + fresh)[:REASONS] if fresh else first
