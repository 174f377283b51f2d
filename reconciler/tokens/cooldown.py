"""A pause between requests to the issuer: after a refusal, or for its Retry-After."""

import math
from collections.abc import Sequence
from random import Random

from reconciler.clock import LONG_AGO, Clock, Instant
from reconciler.errors import IssuerError
from reconciler.net.circuit_breaker import PROBE_S

MIN_S = PROBE_S
"""Shortest pause after a refusal: no more requests than probes in an outage."""

MAX_S = 30.0
"""Longest pause: corrected credentials must work within half a minute, without a restart; a longer
Retry-After would exceed the fleet's slack."""

MAX_LIFE_FRACTION = 0.1
"""Longest pause as a fraction of the remaining lifetime, as the end of a refusal may be noticed
late by one pause. After expiry the time since expiry counts, so that an outage grows by a tenth at
most."""


class Cooldown:
    """Holds the error that all callers get, without a request, until the pause ends."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._refusals = 0
        self._until_at: Instant = LONG_AGO
        self._error: IssuerError | None = None

    def after_refusal(self, error: IssuerError, *, remaining_lives_s: Sequence[float] = ()) -> None:
        """Pause, with jitter, below a limit that doubles from `MIN_S` to `MAX_S`.

        Args:
            remaining_lives_s: Remaining lifetime of the best token and the least of the fleet,
                as far as known, in seconds; negative after expiry. The shortest pause counts.
        """
        limit_s = min(MAX_S, MIN_S * 2.0 ** min(self._refusals, 10))
        self._refusals += 1
        self._start(
            error, self._random.uniform(0.5, 1.0) * min(limit_s, _max_pause_s(remaining_lives_s))
        )

    def after_throttling(
        self, error: IssuerError, *, remaining_lives_s: Sequence[float] = ()
    ) -> None:
        """Pause for the response's Retry-After, up to `MAX_S`; no pause without one.

        Args: as of `after_refusal`.
        """
        if error.retry_after_s is not None:
            retry_after_s = min(error.retry_after_s, MAX_S)
            if retry_after_s > 0:
                self._start(error, min(retry_after_s, _max_pause_s(remaining_lives_s)), least_s=0.0)

    def reset(self) -> bool:
        """Forget all refusals after a token; return whether there was a pause."""
        was_paused = self._error is not None
        self._refusals = 0
        self._error = None
        return was_paused

    def remaining_s(self) -> float:
        """Return the remaining seconds of the pause, 0.0 for none."""
        if self._error is None:
            return 0.0
        return max(0.0, self._until_at - self._clock.monotonic())

    @property
    def error(self) -> IssuerError | None:
        """The error that started the pause, while it lasts."""
        return self._error if self.remaining_s() > 0 else None

    @property
    def is_pending(self) -> bool:
        """True if callers have been refused since the last token, so that a request must follow."""
        return self._error is not None

    def _start(self, error: IssuerError, pause_s: float, *, least_s: float = MIN_S) -> None:
        self._error = error
        self._until_at = self._clock.monotonic() + max(pause_s, least_s)


def _max_pause_s(remaining_lives_s: Sequence[float]) -> float:
    """Return the longest pause for these remaining lifetimes, never less than `MIN_S`."""
    least_s = min(map(abs, remaining_lives_s), default=math.inf)
    return min(MAX_S, max(MIN_S, MAX_LIFE_FRACTION * least_s))
