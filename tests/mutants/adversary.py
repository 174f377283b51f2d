"""`python -m tests.mutants.adversary WORLD...`: play worlds until one violates an invariant.

A world is the number of a seed, whose sentence is drawn from the grammar; a seed with a number of
its sessions and other moves, `7/3/kill-leader@30.0+12.5*0.25`, as `reconciler simulate` prints
them; `election 7`, three replicas with faults of leader election; or the name of a regression in
`tests/simulation/test_grammar.py`.

One process plays them all: the imports take longer than most worlds. It prints the first world that
violates an invariant, with the violation.

Exit codes: 0 no world did; 1 one did.
"""

import sys

from reconciler.lab.simulation.grammar import draw_sentence, limited
from reconciler.lab.simulation.moves import Move
from reconciler.lab.simulation.run import play
from reconciler.lab.simulation.scenario import Scenario, draw_election
from tests.simulation.test_grammar import FOUND


def scenario_of(world: str) -> Scenario:
    """Return the scenario that a world's text describes; ValueError for any other text."""
    if world in FOUND:
        return FOUND[world].scenario()
    if world.startswith("election "):
        return draw_election(int(world.removeprefix("election ")))
    seed, _, changes = world.partition("/")
    sentence = draw_sentence(int(seed))
    if not changes:
        return sentence
    sessions, _, moves = changes.partition("/")
    return limited(sentence, moves=map(Move.parse, moves.split()), sessions=int(sessions))


def main(worlds: list[str]) -> int:
    """Play worlds in their order, up to the first violation."""
    for world in worlds:
        scenario = scenario_of(world)
        try:
            violations = play(scenario).violations
        except Exception as error:  # a mutant may break the world itself
            sys.stdout.write(f"violated: {world}: {type(error).__name__}: {error}\n")
            return 1
        if violations:
            sys.stdout.write(f"violated: {world}: {violations[0]}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
