"""Competing writers of our Secrets: how often, and when to write again (pure).

The value after an overwrite is not read, so that its expiry is unknown. Waiting costs tokens;
writing at once costs requests only if the other writer answers each of our writes with its own. So
an isolated overwrite is always repaired at once, and only a quick exchange of writes is slowed.

The rate has a bound, whatever the random numbers are: each wait is at least half of its window. The
repairs of one Secret begin at 0, 0, 1, 3, 7, 15, 25, 35 s at the earliest: at most 5 and one per
10 s. A gap of `QUIET_S` starts the sequence again and costs more time than it gains. Terms of one
process share the memory. A new process starts the sequence again: no object shows who removed an
annotation, as the API server keeps no managed field for a writer that only removes.
"""

import msgspec
from cachetools import TTLCache

from reconciler.backoff import BackoffPolicy
from reconciler.clock import LONG_AGO, Instant
from reconciler.naming import SessionKey

MEMORY_S = 1800.0
"""Overwrites of one Secret no further apart than this are counted together: three periods of the
replaced loop at its slower period of 10 minutes."""

ISOLATED = 2
"""Up to this many are a person with kubectl; more are a program that writes against us."""

QUIET_S = 60.0
"""An overwrite later than this after the last one is not an answer to our repair."""

BACKOFF = BackoffPolicy("competing_writer", base_s=2.0, cap_s=20.0, least=0.5)
"""The replaced loop writes a token with 30 s left or more: a repair after a longer wait than this
would come after its expiry."""

MAX_SESSIONS = 10_000


class _Overwrites(msgspec.Struct):
    count: int = 0
    consecutive: int = 0
    last_at: Instant = LONG_AGO
    paused_until_at: Instant = LONG_AGO


class CompetingWriters:
    """Counts recent overwrites; one entry per overwritten session."""

    def __init__(self) -> None:
        self._now_at: Instant = LONG_AGO
        self._overwritten: TTLCache[SessionKey, _Overwrites, Instant] = TTLCache(
            MAX_SESSIONS, MEMORY_S, timer=lambda: self._now_at
        )

    def paused_until(self, key: SessionKey, now_at: Instant) -> Instant | None:
        """Return when to write `key` again, or None for now."""
        self._now_at = now_at
        found = self._overwritten.get(key)
        return (
            found.paused_until_at if found is not None and now_at < found.paused_until_at else None
        )

    def record_overwrite(self, key: SessionKey, now_at: Instant, *, rand: float) -> int:
        """Record an overwrite that was repaired; return the number of recent ones.

        Args:
            rand: Random number in [0, 1).
        """
        self._now_at = now_at
        found = self._overwritten.get(key) or _Overwrites()
        found.count += 1
        found.consecutive = found.consecutive + 1 if now_at - found.last_at < QUIET_S else 1
        found.last_at = now_at
        if found.consecutive >= ISOLATED:  # the next one waits
            attempt = found.consecutive - ISOLATED + 1
            found.paused_until_at = now_at + BACKOFF.delay_s(
                attempt, fraction_of_life_s=None, rand=rand
            )
        self._overwritten[key] = found
        return found.count
