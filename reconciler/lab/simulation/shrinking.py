"""Shrinks a sentence that violates an invariant to a minimal one (delta debugging)."""

from collections.abc import Sequence

from reconciler.lab.simulation.grammar import limited
from reconciler.lab.simulation.moves import Move
from reconciler.lab.simulation.run import Outcome, play
from reconciler.lab.simulation.scenario import Scenario

MOST_PLAYS = 80
"""Most worlds that are played for one failure."""


class Shrinker:
    """Finds a smaller sentence with a violation of the same invariant.

    A world ends at its first violation, so that a smaller sentence costs less than the whole one.
    """

    def __init__(self, sentence: Scenario, outcome: Outcome) -> None:
        self.sentence = sentence
        self.outcome = outcome
        self._invariant = outcome.violations[0].invariant
        self._plays = 0

    def shrink(self) -> None:
        """Remove moves, then sessions, as long as the violation remains."""
        self._keep(self._moves()[:0], len(self.sentence.sessions))
        self._remove_moves()
        self._remove_sessions()

    def _remove_moves(self) -> None:
        parts = 2
        while (moves := self._moves()) and parts <= 2 * len(moves):
            size = max(1, len(moves) // parts)
            starts = range(0, len(moves), size)
            if any(
                self._keep((*moves[:at], *moves[at + size :]), len(self.sentence.sessions))
                for at in starts
            ):
                parts = max(2, parts - 1)
            else:
                parts *= 2

    def _remove_sessions(self) -> None:
        number = len(self.sentence.sessions) // 2
        while number and self._keep(self._moves(), number):
            number //= 2

    def _moves(self) -> Sequence[Move]:
        return self.sentence.faults

    def _keep(self, moves: Sequence[Move], sessions: int) -> bool:
        """Take over a smaller sentence if it violates the invariant, too."""
        if self._plays >= MOST_PLAYS:
            return False
        self._plays += 1
        smaller = limited(self.sentence, moves=moves, sessions=sessions)
        outcome = play(smaller)
        if self._invariant not in {violation.invariant for violation in outcome.violations}:
            return False
        self.sentence, self.outcome = smaller, outcome
        return True
