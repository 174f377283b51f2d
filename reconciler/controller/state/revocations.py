"""When the platform's "not found" ends a confirmation: on repetition, and never by an error.

Pure except for the clock that is passed in. One "not found" may come from a lagging replica of the
platform's database, or while the session's row is being written. Two of them, some seconds apart
and with no "found" between, count. No error counts.
"""

from collections.abc import KeysView

from cachetools import LRUCache, TLRUCache

from reconciler.clock import Clock, Instant
from reconciler.naming import SessionKey

RECHECK_S = 10.0
"""Between the two answers: longer than the lag of a database replica, short against a token's life.
"""

FIRST_DENIAL_S = 3600.0
"""How long a first "not found" is remembered; the second usually follows after `RECHECK_S`."""

REVOKED_AGAIN_S = 300.0
"""Between two removals of one session's confirmation: a tenant who restores it must not make us
write each second."""

UNANSWERED_S = 60.0
"""How long the previous confirmation is used after a look-up without an answer."""

MAX_SESSIONS = 10_000
"""Bound on each of the sets below. A forgotten session is looked up once more."""


class Revocations:
    """The platform's answers about sessions that it had confirmed and that its list lacks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first_no: TLRUCache[SessionKey, Instant, Instant] = _timed(clock, FIRST_DENIAL_S)
        self._unanswered: TLRUCache[SessionKey, Instant, Instant] = _timed(clock, UNANSWERED_S)
        self._removed: TLRUCache[SessionKey, Instant, Instant] = _timed(clock, REVOKED_AGAIN_S)
        self._revoked: LRUCache[SessionKey, None] = LRUCache(MAX_SESSIONS)
        self._has_any = False

    def answered_no(self, key: SessionKey) -> bool:
        """Record a "not found"; return True if it ends the session's confirmation now."""
        now_at = self._clock.monotonic()
        first_at = self._first_no.get(key)
        if first_at is None:
            self._first_no[key] = now_at
            self._has_any = True
            return False
        if now_at - first_at < RECHECK_S:
            return False
        del self._first_no[key]
        self._revoked[key] = None
        return True

    def answered_yes(self, key: SessionKey) -> None:
        """Record a "found", from a list or a look-up: it ends doubt and revocation."""
        if not self._has_any:  # 1.5 us for each set, and a list answers for all sessions
            return
        for known in (self._first_no, self._unanswered, self._removed, self._revoked):
            known.pop(key, None)
        self._has_any = bool(self._first_no or self._unanswered or self._removed or self._revoked)

    def unanswered(self, key: SessionKey) -> None:
        """Record that the platform gave no answer: an outage revokes nothing."""
        self._has_any = True
        self._unanswered[key] = self._clock.monotonic()

    def removed(self, key: SessionKey) -> None:
        """Record that the confirmation was removed from the session's Secret."""
        self._has_any = True
        self._removed[key] = self._clock.monotonic()

    def is_doubted(self, key: SessionKey) -> bool:
        """Whether the platform has answered "not found" once and is to be asked again soon."""
        return key in self._first_no

    def is_unanswered(self, key: SessionKey) -> bool:
        return key in self._unanswered

    def is_revoked(self, key: SessionKey) -> bool:
        """Whether this session gets a token only after a new "found"."""
        return key in self._revoked

    def revoked(self) -> KeysView[SessionKey]:
        """Return the revoked sessions, a live view."""
        return self._revoked.keys()

    def may_remove(self, key: SessionKey) -> bool:
        """Whether the confirmation of a revoked session may be removed (again) now."""
        return key not in self._removed


def _timed(clock: Clock, for_s: float) -> "TLRUCache[SessionKey, Instant, Instant]":
    return TLRUCache(
        MAX_SESSIONS, ttu=lambda _key, _value, now_at: now_at + for_s, timer=clock.monotonic
    )
