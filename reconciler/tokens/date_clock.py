"""A server's time, estimated from its Date headers and kept on our monotonic clock."""

from collections import deque
from typing import NamedTuple

from reconciler.clock import Clock, EpochTime, Instant
from reconciler.net.http_dates import parse_date
from reconciler.tokens.server_clock import MAX_SAMPLES, MEMORY_S, Bounds, bounds_of, intersect


class _Observation(NamedTuple):
    bounds: Bounds
    at: Instant


class DateClock:
    """Estimates a server's time, to a fraction of a second after a few responses.

    After the first response a step of our wall clock changes nothing; before it, the wall clock is
    the estimate. `sent_at` is when the latest request started, monotonic; at first, when this was
    made.
    """

    def __init__(self, clock: Clock) -> None:
        self.sent_at = clock.monotonic()
        self._clock = clock
        self._observations: deque[_Observation] = deque(maxlen=MAX_SAMPLES)
        self._bounds: Bounds | None = None

    def now_s(self) -> EpochTime:
        """Return the server's time in epoch seconds."""
        if self._bounds is None:
            return self._clock.wall()
        return self._clock.monotonic() + self._bounds.middle_s

    @property
    def skew_s(self) -> float:
        """The server's time less our wall clock in seconds; 0.0 before the first observation."""
        return 0.0 if self._bounds is None else self.now_s() - self._clock.wall()

    @property
    def error_s(self) -> float:
        """How far `now_s` may be off, in seconds either way; 0.0 before the first observation."""
        return 0.0 if self._bounds is None else (self._bounds.high_s - self._bounds.low_s) / 2

    def observe_date(self, date: str | None) -> None:
        """Update the estimate from a response's Date header; None or another text is ignored."""
        date_s = parse_date(date)
        if date_s is not None:
            self.observe(date_s, self.sent_at, self._clock.monotonic())

    def observe(self, date_s: EpochTime, sent_at: Instant, received_at: Instant) -> None:
        """Update the estimate from one response.

        Args:
            date_s: Its Date header, epoch seconds.
            sent_at: When the request started, monotonic.
            received_at: When the response's headers arrived, monotonic.
        """
        while self._observations and received_at - self._observations[0].at > MEMORY_S:
            self._observations.popleft()
        self._observations.append(
            _Observation(bounds_of(date_s, sent_at, received_at), received_at)
        )
        self._bounds = intersect(seen.bounds for seen in reversed(self._observations))

    def __repr__(self) -> str:
        return f"<DateClock skew {self.skew_s:+.3f} s +-{self.error_s:.3f} s>"
