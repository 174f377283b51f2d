"""The issuer's time, known from its Date headers and kept on our monotonic clock."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from reconciler.clock import Clock

RESOLUTION_S = 1.0
"""A Date header is cut to whole seconds: the instant lies up to one second after what it says."""

MEMORY_S = 600.0
"""Older observations are dropped: crystals drift by up to 100 ppm, 0.06 s in ten minutes, and
would slowly turn narrow bounds into wrong ones."""

KEEP = 64
"""Observations kept at most; at one a second they would cover a minute, which is plenty."""


class Bounds(NamedTuple):
    """The issuer's time less our monotonic clock lies between these two, in seconds."""

    low_s: float
    high_s: float


class _Observation(NamedTuple):
    bounds: Bounds
    at: float


class IssuerTime:
    """Says what time it is at the issuer, to a fraction of a second after a few answers.

    A step of our wall clock changes nothing once the issuer was heard; before that, the wall clock
    is the best guess there is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: deque[_Observation] = deque(maxlen=KEEP)
        self._bounds: Bounds | None = None

    @property
    def observed(self) -> bool:
        """Whether the issuer was heard at all."""
        return self._bounds is not None

    def now_s(self) -> float:
        """Return the issuer's time in epoch seconds."""
        if self._bounds is None:
            return self._clock.wall()
        return self._clock.monotonic() + (self._bounds.low_s + self._bounds.high_s) / 2

    @property
    def skew_s(self) -> float:
        """Issuer's time less our wall clock in seconds; 0.0 before the first observation."""
        return 0.0 if self._bounds is None else self.now_s() - self._clock.wall()

    @property
    def error_s(self) -> float:
        """How far `now_s` may be off, in seconds either way; 0.0 before the first observation."""
        return 0.0 if self._bounds is None else (self._bounds.high_s - self._bounds.low_s) / 2

    def observe(self, date_s: float, sent_at: float, received_at: float) -> None:
        """Learn from one answer.

        Args:
            date_s: Its Date header, epoch seconds.
            sent_at: When the request started, monotonic.
            received_at: When the answer's headers were there, monotonic.
        """
        while self._seen and received_at - self._seen[0].at > MEMORY_S:
            self._seen.popleft()
        self._seen.append(_Observation(bounds_of(date_s, sent_at, received_at), received_at))
        self._bounds = narrow(seen.bounds for seen in reversed(self._seen))

    def __repr__(self) -> str:
        return f"<IssuerTime skew {self.skew_s:+.3f} s +-{self.error_s:.3f} s>"


def bounds_of(date_s: float, sent_at: float, received_at: float) -> Bounds:
    """Return what one Date header proves: it was written between sending and receipt."""
    return Bounds(date_s - received_at, date_s + RESOLUTION_S - sent_at)


def narrow(newest_first: Iterable[Bounds]) -> Bounds:
    """Intersect observations from the newest back, up to the first that contradicts.

    A contradiction means that the issuer's clock was stepped between the two, so that only what
    came after it counts.
    """
    remaining = iter(newest_first)
    low_s, high_s = next(remaining)
    for bounds in remaining:
        if bounds.low_s > high_s or bounds.high_s < low_s:
            break
        low_s, high_s = max(low_s, bounds.low_s), min(high_s, bounds.high_s)
    return Bounds(low_s, high_s)
