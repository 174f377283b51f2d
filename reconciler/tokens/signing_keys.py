"""Which key the issuer signs with, and whether it has put another in its place (pure).

A validator may drop the old key at once, and then refuses every token under it. A new key is taken
for a rotation once in its life, so that an issuer whose servers sign with keys of their own, in
turns, causes one round of writes a key and no more:

1. A key that was never seen, after one that signed two tokens in a row, has taken its place. The
   first key of a process counts as such a one.
2. After a key that signed a single token it is only a candidate. It has taken the place once it has
   signed two in a row itself. An issuer with another `kid` a token never gets there.
3. A key that is known changes nothing when it comes back: it still signs.
4. What was issued before the first token under the new key is under an older one. No token that
   comes later counts as that, though its server's clock be behind.
"""

import math
from collections import OrderedDict

SETTLED = 2
"""Tokens in a row after which a key is in use, not one of many."""

KEEP = 64
"""Keys remembered: more than any issuer has servers."""


class SigningKeys:
    """Fed with every usable token, in the order of their receipt."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()
        self._current = ""
        self._streak = 0
        self._candidate_s: float | None = None
        self.rotated_s = -math.inf
        """Tokens issued before this are under a key that was replaced; epoch, issuer's time."""

    def observe(self, key: str, issued_s: float) -> bool:
        """Take in a token; tell whether its key has just been found to be another's successor.

        Args:
            key: Digest of its key's name, "" where it names none, which says nothing.
            issued_s: Start of its life, epoch seconds. Whole seconds count, as in annotations.
        """
        since_s = float(math.floor(issued_s))
        self.rotated_s = min(self.rotated_s, since_s)
        if not key:
            return False
        if key == self._current:
            self._streak += 1
            return self._streak == SETTLED and self._confirm(since_s)
        was_settled = self._streak >= SETTLED or len(self._known) == 1
        is_first, is_new = not self._known, key not in self._known
        self._current, self._streak, self._candidate_s = key, 1, None
        self._remember(key)
        if is_first or not is_new:
            return False
        self._candidate_s = since_s
        return was_settled and self._confirm(since_s)

    def _confirm(self, since_s: float) -> bool:
        """Take the candidate, if there is one, for the successor of all keys before it."""
        if self._candidate_s is None:
            return False
        self.rotated_s = min(self._candidate_s, since_s)
        self._candidate_s = None
        return True

    def _remember(self, key: str) -> None:
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > KEEP:
            self._known.popitem(last=False)
