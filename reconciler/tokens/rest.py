"""A pause that the issuer has earned: after a refusal, or because it asked for one."""

from random import Random

from reconciler.clock import Clock
from reconciler.errors import IssuerError

FIRST_S = 1.0
LONGEST_S = 30.0
"""Longest pause: credentials that were repaired must work within half a minute, with nobody
restarting anything; a Retry-After beyond it would outlast the fleet's slack."""


class Rest:
    """Holds the error that everybody gets, without a request, until the pause is over."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._refusals = 0
        self._until_at = 0.0
        self._error: IssuerError | None = None

    def after_refusal(self, error: IssuerError) -> None:
        """Pause with full jitter below a bound that doubles from `FIRST_S` to `LONGEST_S`."""
        bound_s = min(LONGEST_S, FIRST_S * 2.0 ** min(self._refusals, 10))
        self._refusals += 1
        self._begin(error, self._random.uniform(0.0, bound_s))

    def as_asked(self, error: IssuerError) -> None:
        """Pause for the answer's own Retry-After, up to `LONGEST_S`; none where it has none."""
        if error.retry_after_s is not None:
            self._begin(error, min(error.retry_after_s, LONGEST_S))

    def end(self) -> None:
        """Forget all refusals: the issuer gave a token."""
        self._refusals = 0
        self._error = None

    def remaining_s(self) -> float:
        """Return the seconds that are left of the pause, 0.0 for none."""
        if self._error is None:
            return 0.0
        return max(0.0, self._until_at - self._clock.monotonic())

    @property
    def error(self) -> IssuerError | None:
        """What ended in the pause, while it lasts."""
        return self._error if self.remaining_s() > 0 else None

    def _begin(self, error: IssuerError, pause_s: float) -> None:
        self._error = error
        self._until_at = self._clock.monotonic() + pause_s
