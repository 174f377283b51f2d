"""A server's time, known from its Date headers alone and kept on our monotonic clock."""

from collections import deque
from typing import NamedTuple

from reconciler.clock import Clock
from reconciler.tokens.server_clock import KEEP, MEMORY_S, Bounds, bounds_of, intersect


class _Observation(NamedTuple):
    bounds: Bounds
    at: float


class DateClock:
    """Says what time it is at a server, to a fraction of a second after a few answers.

    A step of our wall clock changes nothing once the server was heard; before that, the wall clock
    is the best guess there is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: deque[_Observation] = deque(maxlen=KEEP)
        self._bounds: Bounds | None = None

    @property
    def observed(self) -> bool:
        """Whether the server was heard at all."""
        return self._bounds is not None

    @property
    def bounds(self) -> Bounds | None:
        """The server's time less our monotonic clock; None before the first observation."""
        return self._bounds

    def now_s(self) -> float:
        """Return the server's time in epoch seconds."""
        if self._bounds is None:
            return self._clock.wall()
        return self._clock.monotonic() + (self._bounds.low_s + self._bounds.high_s) / 2

    @property
    def skew_s(self) -> float:
        """The server's time less our wall clock in seconds; 0.0 before the first observation."""
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
        self._bounds = intersect(seen.bounds for seen in reversed(self._seen))

    def __repr__(self) -> str:
        return f"<DateClock skew {self.skew_s:+.3f} s +-{self.error_s:.3f} s>"
