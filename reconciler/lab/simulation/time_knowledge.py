"""What a process can know of the issuer's time from its inputs (pure)."""

import math
from collections import deque
from collections.abc import Iterable

from reconciler.clock import EpochTime
from reconciler.tokens.server_clock import PROOF, SAME_ISSUER_S, SAME_TIME_S, TokenTimes


class TimeKnowledge:
    """By how much a process's time may be wrong, because its inputs do not name the true one.

    A cache hides whether a token was just issued. A false `expires_in`, or none, hides the token's
    age, too. To the process that is the same as an issuer whose clock is behind, or ahead, with
    other clocks that are wrong. By docs/design/issuer-time.md the claim with most support counts
    before a proof, and the issuer's answer among equals; three tokens that agree are a proof
    against every other witness. It follows:

    - The time can be known from the first answer on that names it, or in which the witnesses of it
      outnumber those that may contradict it. Before a proof it is known until an answer names
      another time that no fewer clocks support: the answer precedes what was believed.
    - Until then the time is one that the answers name. No token is issued in the future: it is
      behind by no more than the least age at which a token came. It is ahead by no more than the
      most that an `expires_in` makes a token older than it is.
    - What was proven is lost only with `PROOF` different tokens in a row that name the same wrong
      time. It is then wrong by as much, until as many tokens name the true one, or a new token
      shows that it is behind.

    Attributes:
        behind_s: By how much the time may be behind, seconds.
        ahead_s: By how much it may be ahead, seconds.
    """

    def __init__(self) -> None:
        self.behind_s = 0.0
        self.ahead_s = 0.0
        self._is_known = False
        self._is_misled = False
        self._has_proof = False
        self._least_age_s = math.inf
        self._recent: deque[tuple[int, float]] = deque(maxlen=PROOF)
        """The latest tokens, and how late is the time that each names, seconds."""

    def observe(
        self,
        answer: TokenTimes,
        *,
        true_s: EpochTime,
        date_s: EpochTime | None,
        wall_s: EpochTime,
    ) -> None:
        """Take in an answer of the issuer, with the other clocks at its receipt.

        Args:
            true_s: The issuer's time.
            date_s: The answer's Date header, None without one.
            wall_s: The process's wall clock.
        """
        issued_s, expires_s = answer.issued_s, answer.expires_s
        if issued_s is None or expires_s is None:
            return
        named_s = issued_s
        if answer.expires_in_s is not None:
            named_s = max(issued_s, expires_s - answer.expires_in_s)
        others = [wall_s] if date_s is None else [wall_s, date_s]
        witnesses = sum(_is_same(each_s, true_s) for each_s in (issued_s, *others))
        # Against the true time are the answer and, after another one, the time that it left.
        against = 1 if math.isinf(self._least_age_s) else 2
        is_new = _is_same(issued_s, true_s)
        shows = _is_same(named_s, true_s) or witnesses > against or (is_new and self._is_known)
        if all(answer.token_id != seen for seen, _ in self._recent):
            self._recent.append((answer.token_id, 0.0 if shows else named_s - true_s))
        self._least_age_s = min(self._least_age_s, true_s - issued_s)
        proven_s = self._proven_s()
        if proven_s is not None:
            self._has_proof = True
            self._is_misled = not -SAME_ISSUER_S <= proven_s <= SAME_ISSUER_S
            self._is_known = not self._is_misled
            self.behind_s, self.ahead_s = max(0.0, -proven_s), max(0.0, proven_s)
        elif self._is_misled:
            self._is_misled = not (is_new and self.behind_s)
            self._is_known = not self._is_misled
        else:
            is_kept = self._has_proof or _support(true_s, others) > _support(named_s, others)
            self._is_known = shows or (self._is_known and is_kept)
            self.behind_s = max(0.0, self._least_age_s)
            if named_s < expires_s:  # a token that has expired as it comes is refused
                self.ahead_s = max(self.ahead_s, named_s - true_s)
        if self._is_known:
            self.behind_s = self.ahead_s = 0.0

    def _proven_s(self) -> float | None:
        """Return how late the time is that the latest tokens prove, None if they prove none."""
        late_s = [each_s for _, each_s in self._recent]
        if len(late_s) < PROOF or max(late_s) - min(late_s) > SAME_TIME_S:
            return None
        return max(late_s)  # the youngest decides


def _support(claim_s: EpochTime, clocks_s: Iterable[EpochTime]) -> int:
    """Return how many clocks agree with a claim."""
    return sum(abs(claim_s - each_s) <= SAME_TIME_S for each_s in clocks_s)


def _is_same(one_s: EpochTime, other_s: EpochTime) -> bool:
    return abs(one_s - other_s) <= SAME_ISSUER_S
