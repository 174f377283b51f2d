"""A pause that the issuer has earned: after a refusal, or because it asked for one."""

import math
from collections.abc import Sequence
from random import Random

from reconciler.clock import Clock
from reconciler.errors import IssuerError
from reconciler.net.circuit_breaker import PROBE_S

FIRST_S = PROBE_S
"""Shortest pause after a refusal: a replica asks no more often than it probes in an outage."""

LONGEST_S = 30.0
"""Longest pause: credentials that were repaired must work within half a minute, with nobody
restarting anything; a Retry-After beyond it would outlast the fleet's slack."""

LIFE_FRACTION = 0.1
"""Part of the remaining life that a pause may take: what is noticed late of the end of a refusal is
taken from it. Counted from its end once it is over: what is lost grows by a tenth at most."""


class Cooldown:
    """Holds the error that everybody gets, without a request, until the pause is over."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random
        self._refusals = 0
        self._until_at = 0.0
        self._error: IssuerError | None = None

    def after_refusal(self, error: IssuerError, *, lives_s: Sequence[float] = ()) -> None:
        """Pause, with jitter, below a bound that doubles from `FIRST_S` to `LONGEST_S`.

        Args:
            lives_s: Life left of the best token and of the fleet's shortest, as far as known, in
                seconds; negative since its end. The one that allows least counts.
        """
        bound_s = min(LONGEST_S, FIRST_S * 2.0 ** min(self._refusals, 10))
        self._refusals += 1
        self._begin(error, self._random.uniform(0.5, 1.0) * min(bound_s, _most_s(lives_s)))

    def as_asked(self, error: IssuerError, *, lives_s: Sequence[float] = ()) -> None:
        """Pause for the answer's own Retry-After, up to `LONGEST_S`; none where it has none.

        Args: as of `after_refusal`.
        """
        if error.retry_after_s is not None:
            asked_s = min(error.retry_after_s, LONGEST_S)
            if asked_s > 0:
                self._begin(error, min(asked_s, _most_s(lives_s)), least_s=0.0)

    def end(self) -> bool:
        """Forget all refusals, because the issuer gave a token; tell whether there was a pause."""
        paused = self._error is not None
        self._refusals = 0
        self._error = None
        return paused

    def remaining_s(self) -> float:
        """Return the seconds that are left of the pause, 0.0 for none."""
        if self._error is None:
            return 0.0
        return max(0.0, self._until_at - self._clock.monotonic())

    @property
    def error(self) -> IssuerError | None:
        """What ended in the pause, while it lasts."""
        return self._error if self.remaining_s() > 0 else None

    @property
    def is_pending(self) -> bool:
        """Whether callers were held back since the last token, so that its end must be sought."""
        return self._error is not None

    def _begin(self, error: IssuerError, pause_s: float, *, least_s: float = FIRST_S) -> None:
        self._error = error
        self._until_at = self._clock.monotonic() + max(pause_s, least_s)


def _most_s(lives_s: Sequence[float]) -> float:
    """Return the longest pause that so much life allows, never less than `FIRST_S`."""
    least_s = min(map(abs, lives_s), default=math.inf)
    return min(LONGEST_S, max(FIRST_S, LIFE_FRACTION * least_s))
