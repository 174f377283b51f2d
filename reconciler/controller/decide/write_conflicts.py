"""Somebody else writes a Secret that is ours: how often, and when to write again (pure).

The value that an overwrite leaves is not read, so its end is not known: waiting costs tokens, and
writing at once costs requests only where the other answers each of our writes with one of its own.
So an overwrite that comes alone is repaired at once, for ever, and only a quick exchange is slowed.
"""

from dataclasses import dataclass

from cachetools import TTLCache

from reconciler.backoff import BackoffPolicy
from reconciler.naming import SessionKey

REMEMBERED_S = 1800.0
"""Overwrites of one Secret no further apart than this are counted together: three ticks of the
replaced loop at its slower pace of 10 minutes."""

ISOLATED = 2
"""So many are a human with kubectl; with more, somebody writes against us."""

QUIET_S = 60.0
"""An overwrite that comes later than this after the last one is no answer to our repair of it."""

PACE = BackoffPolicy("fight", base_s=1.0, cap_s=20.0)
"""The replaced loop writes a token with 30 s of life or more: a repair that waits longer than this
would come when that one is dead already. At this pace a Secret costs a write per 10 s at most."""

MAX_SESSIONS = 10_000


@dataclass(slots=True)
class _Conflict:
    overwrites: int = 0
    in_a_row: int = 0
    seen_at: float = float("-inf")
    until_at: float = float("-inf")


class WriteConflicts:
    """Remembers who was overwritten lately; memory of one entry a session that was."""

    def __init__(self) -> None:
        self._now_at = 0.0
        self._fights: TTLCache[SessionKey, _Conflict] = TTLCache(
            MAX_SESSIONS, REMEMBERED_S, timer=lambda: self._now_at
        )

    def paused_until(self, key: SessionKey, now_at: float) -> float | None:
        """Return when to write `key` again, or None if that is now."""
        self._now_at = now_at
        fight = self._fights.get(key)
        return fight.until_at if fight is not None and now_at < fight.until_at else None

    def overwritten(self, key: SessionKey, now_at: float, *, draw: float) -> int:
        """Note an overwrite that was repaired; return how many there were lately.

        Args:
            draw: Chance, in [0, 1).
        """
        self._now_at = now_at
        fight = self._fights.get(key) or _Conflict()
        fight.overwrites += 1
        fight.in_a_row = fight.in_a_row + 1 if now_at - fight.seen_at < QUIET_S else 1
        fight.seen_at = now_at
        if fight.in_a_row > ISOLATED:
            attempt = fight.in_a_row - ISOLATED
            fight.until_at = now_at + PACE.delay_s(attempt, fraction_of_life_s=None, rand=draw)
        self._fights[key] = fight
        return fight.overwrites
