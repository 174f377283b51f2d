"""The issuer's time as the controller reads it: several sources, one clock, steps reported."""

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from reconciler.clock import Clock, ClockOffset, EpochTime, Instant
from reconciler.net.http_dates import parse_date
from reconciler.tokens.server_clock import (
    RESOLUTION_S,
    SAME_TIME_S,
    Bounds,
    ClockEstimate,
    ServerClock,
    TimeSource,
    TokenTimes,
    apart_s,
    bounds_of,
    claims_of,
)

MIN_MOVE_S = 3.0
"""A change of the estimate by more than this makes every derived deadline wrong. It is more than
the second of an `iat` and a slow request, and far less than any slack."""


MAX_DATES = 8
"""Number of Date headers of the API server that are kept: a stalled loop reads a few late."""


class ClockMove(NamedTuple):
    """A change of the estimate.

    Args:
        moved_s: By how many seconds.
        since_at: Since when the new estimate may be true, monotonic.
        is_first: There was no estimate before; our wall clock was used.
    """

    moved_s: float
    since_at: Instant
    is_first: bool


class IssuerTime:
    """Estimates the issuer's time by the rules of `server_clock`.

    After the first response a step of our wall clock changes nothing; before it, the wall clock is
    the estimate.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rules = ServerClock()
        self._api_server: deque[ClockOffset] = deque(maxlen=MAX_DATES)
        self._issuer_date: Bounds | None = None
        self._expires_in: Bounds | None = None
        self._bounds = Bounds(ClockOffset(-math.inf), ClockOffset(math.inf))
        self._observed_at = clock.monotonic()
        self._last_date = ""
        self._move_listeners: list[Callable[[ClockMove], None]] = []

    def on_moved(self, callback: Callable[[ClockMove], None]) -> None:
        """Call `callback` when the estimate moves by more than `MIN_MOVE_S`."""
        self._move_listeners.append(callback)

    @property
    def observed(self) -> bool:
        """True after the first response."""
        return self._rules.estimate is not None

    @property
    def is_supported(self) -> bool:
        """Whether `now_s` is from a response, or from two clocks that agree: the API server's and
        ours."""
        api_server = self._api_server_bounds()
        return self.observed or (
            api_server is not None and apart_s(api_server, self._wall()) <= SAME_TIME_S
        )

    @property
    def estimate(self) -> ClockEstimate | None:
        """The estimate, its source, and whether it is proven; None before the first response."""
        return self._rules.estimate

    @property
    def needs_another(self) -> bool:
        """True if another response, a second later, would decide which of two sources is right."""
        return self._rules.needs_another

    def now_s(self) -> EpochTime:
        """Return the issuer's time in epoch seconds."""
        estimate = self._rules.estimate
        if estimate is None:
            return self._clock.wall()
        return self._clock.monotonic() + estimate.bounds.middle_s

    @property
    def skew_s(self) -> float:
        """Issuer's time less our wall clock in seconds; 0.0 before the first response."""
        return self.now_s() - self._clock.wall() if self.observed else 0.0

    @property
    def error_s(self) -> float:
        """How far `now_s` may be off, in seconds either way; 0.0 before the first response."""
        estimate = self._rules.estimate
        return 0.0 if estimate is None else (estimate.bounds.high_s - estimate.bounds.low_s) / 2

    def observe(self, response: TokenTimes, date_s: EpochTime | None) -> EpochTime:
        """Update the estimate from one response; return the issuer's time at its receipt.

        Epoch seconds. For a token that may have been issued during the request it is the earliest
        possible time: `iat` is in whole seconds, so that its age may be too low by up to one.

        Args:
            date_s: Its Date header, epoch seconds, or None.
        """
        before_s, was_known = self.now_s(), self.observed
        others = {TimeSource.WALL_CLOCK: self._wall()}
        self._issuer_date = None
        if date_s is not None:
            self._issuer_date = bounds_of(date_s, response.sent_at, response.received_at)
            others[TimeSource.ISSUER_DATE] = self._issuer_date
        if (api_server := self._api_server_bounds()) is not None:
            others[TimeSource.API_SERVER_DATE] = api_server
        self._expires_in = claims_of(response).get(TimeSource.EXPIRES_IN)
        self._bounds = self._rules.observe(response, others)
        self._report_move(before_s, is_first=not was_known)
        if not self.needs_another:
            self._observed_at = response.received_at
        return _received_s(response, self._bounds)

    def settle(self, response: TokenTimes) -> EpochTime:
        """Decide without another response; return the issuer's time at the receipt of this one."""
        before_s = self.now_s()
        self._bounds = self._rules.settle(self._bounds)
        self._report_move(before_s, is_first=False)
        self._observed_at = response.received_at
        return _received_s(response, self._bounds)

    def observe_api_server(self, date: str | None) -> None:
        """Update from the Date header of an API server response that arrived just now.

        The header is written as the response starts, so that the request's duration does not
        matter. A response that was read late has an earlier time; the latest of the last few
        counts.
        """
        if not date or date == self._last_date:
            return
        self._last_date = date
        date_s = parse_date(date)
        if date_s is not None:
            self._api_server.append(date_s - self._clock.monotonic())

    def offsets_s(self) -> dict[TimeSource, float]:
        """Return each clock's reading less the issuer's time, seconds; empty before it is known.

        0.0 for a clock that does not contradict it: the time of a slow response may be right.
        """
        estimate = self._rules.estimate
        if estimate is None:
            return {}
        claims = {
            TimeSource.WALL_CLOCK: self._wall(),
            TimeSource.ISSUER_DATE: self._issuer_date,
            TimeSource.API_SERVER_DATE: self._api_server_bounds(),
            TimeSource.EXPIRES_IN: self._expires_in,
        }
        return {
            source: bounds.middle_s - estimate.bounds.middle_s
            if apart_s(bounds, estimate.bounds) > 0
            else 0.0
            for source, bounds in claims.items()
            if bounds is not None
        }

    def named_offsets_s(self) -> dict[str, float]:
        """Return the same by the names of the sources."""
        return {source.value: off_s for source, off_s in self.offsets_s().items()}

    def _api_server_bounds(self) -> Bounds | None:
        if not self._api_server:
            return None
        low_s = max(self._api_server)
        return Bounds(low_s, low_s + RESOLUTION_S)

    def _wall(self) -> Bounds:
        ahead_s = self._clock.wall() - self._clock.monotonic()
        return Bounds(ahead_s, ahead_s)

    def _report_move(self, before_s: EpochTime, *, is_first: bool) -> None:
        moved_s = self.now_s() - before_s
        if abs(moved_s) <= MIN_MOVE_S:
            return
        for callback in self._move_listeners:
            callback(ClockMove(moved_s, self._observed_at, is_first))

    def __repr__(self) -> str:
        return f"<IssuerTime skew {self.skew_s:+.3f} s +-{self.error_s:.3f} s>"


def _received_s(response: TokenTimes, judged: Bounds) -> EpochTime:
    """Return the issuer's time at a response's receipt: the earliest that its `iat` allows."""
    received_s = response.received_at + judged.low_s
    token = claims_of(response).get(TimeSource.TOKEN)
    if token is None or response.issued_s is None or apart_s(token, judged) > 0:
        return received_s
    return max(response.issued_s, received_s - RESOLUTION_S)
