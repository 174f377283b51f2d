"""The issuer's signing key, and whether it was rotated (pure).

A validator may drop the old key at once, and then rejects every token under it. Each new key counts
as a rotation at most once, so that an issuer with several servers that sign in turns, each with its
own key, causes one round of writes a key and no more:

1. An unknown key after a key that signed two tokens in a row has replaced it. The first key of a
   process counts as such a key. 2. After a key that signed a single token, an unknown key is a
   candidate. It has replaced the other once it has signed two tokens in a row. An issuer with a new
   `kid` for each token never gets there. 3. A known key that returns changes nothing: it still
   signs. 4. Tokens issued before the first token under the new key are under an older key. A later
   token never counts as older, even if its server's clock is behind.
"""

import math
from collections import OrderedDict

from reconciler.clock import LONG_AGO, EpochTime

MIN_STREAK = 2
"""Tokens in a row after which a key is the one in use, not one of many."""

MAX_KEYS = 64
"""Remembered keys: more than any issuer has servers."""


class SigningKeys:
    """Observes every usable token, in the order of receipt."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()
        self._current = ""
        self._streak = 0
        self._candidate_s: EpochTime | None = None
        self.rotated_s: EpochTime = LONG_AGO
        """Tokens issued before this are under a replaced key; epoch seconds, issuer's time."""

    def observe(self, key: str, issued_s: EpochTime) -> bool:
        """Record a token; return whether it shows that its key has replaced another.

        Args:
            key: Digest of its key's name; "" for a token without one, which is ignored.
            issued_s: Start of its lifetime, epoch seconds. Whole seconds count, as in annotations.
        """
        since_s = EpochTime(math.floor(issued_s))
        self.rotated_s = min(self.rotated_s, since_s)
        if not key:
            return False
        if key == self._current:
            self._streak += 1
            return self._streak == MIN_STREAK and self._confirm(since_s)
        was_settled = self._streak >= MIN_STREAK or len(self._known) == 1
        is_first, is_new = not self._known, key not in self._known
        self._current, self._streak, self._candidate_s = key, 1, None
        self._remember(key)
        if is_first or not is_new:
            return False
        self._candidate_s = since_s
        return was_settled and self._confirm(since_s)

    def _confirm(self, since_s: EpochTime) -> bool:
        """Accept the candidate, if there is one, as the successor of all keys before it."""
        if self._candidate_s is None:
            return False
        self.rotated_s = min(self._candidate_s, since_s)
        self._candidate_s = None
        return True

    def _remember(self, key: str) -> None:
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > MAX_KEYS:
            self._known.popitem(last=False)
