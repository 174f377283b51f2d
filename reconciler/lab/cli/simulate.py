"""`reconciler simulate`: seeded worlds, one line each; a failure prints its minimal sentence."""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from reconciler.lab.simulation.grammar import (
    MODE_PAIRS,
    PAIRS,
    draw_sentence,
    limited,
    modes_of,
    pairs_of,
)
from reconciler.lab.simulation.moves import Move
from reconciler.lab.simulation.run import Outcome, play
from reconciler.lab.simulation.scenario import Scenario
from reconciler.lab.simulation.shrinking import Shrinker

EXIT_VIOLATED = 1

EXCUSED = 0.1
"""A seed whose runners are excused for more than this part of their lives is reported."""


@dataclass(frozen=True, slots=True)
class Result:
    """What is kept of a seed, also in the file of `--results`.

    Args:
        text: What is printed.
        hours: Virtual hours of the fleet.
        cpu_s: CPU seconds of its first run.
        excused: Excused part of the runners' lives.
        modes: Pairs of a mode and a move.
    """

    seed: int
    passed: bool
    text: str
    hours: float
    cpu_s: float
    excused: float
    pairs: tuple[tuple[str, str], ...]
    modes: tuple[tuple[str, str], ...] = ()


def run_simulations(
    *,
    seeds: int,
    first: int,
    workers: int = 1,
    moves: str | None = None,
    sessions: int | None = None,
    results: Path | None = None,
) -> int:
    """Play the sentences of seeds and print a line for each.

    Args:
        moves: The moves instead of the drawn ones, as a failure prints them.
        sessions: Only so many of the first sessions.
        results: A file that gets each seed's result; seeds that it has already are not played.
    Returns: The exit code: 0 if every invariant held in every world.
    """
    done = [] if results is None else _read(results)
    numbers = set(range(first, first + seeds))
    found = [result for result in done if result.seed in numbers]
    left = sorted(numbers - {result.seed for result in found})
    chosen = None if moves is None else tuple(map(Move.parse, moves.split()))
    play_one = partial(play_seed, moves=chosen, sessions=sessions)
    for result in _results(play_one, left, workers):
        found.append(result)
        _print(result.text)
        if results is not None:
            with results.open("ab") as file:
                file.write(msgspec.json.encode(result) + b"\n")
    _print_summary(found)
    return EXIT_VIOLATED if not all(result.passed for result in found) else 0


def play_seed(
    seed: int, *, moves: Sequence[Move] | None = None, sessions: int | None = None
) -> Result:
    """Play one seed, and shrink its sentence if it violates an invariant."""
    sentence = draw_sentence(seed)
    sentence = limited(
        sentence,
        moves=sentence.faults if moves is None else moves,
        sessions=len(sentence.sessions) if sessions is None else sessions,
    )
    since_s = time.process_time()
    outcome = play(sentence)
    cpu_s = time.process_time() - since_s
    lines = [_line(sentence, outcome)]
    if not outcome.passed:
        shrinker = Shrinker(sentence, outcome)
        shrinker.shrink()
        lines += _failure(shrinker.sentence, shrinker.outcome)
    pairs = pairs_of(outcome.moves, sentence.conditions.ttl_s)
    kinds = {move.kind for move in outcome.moves}
    return Result(
        seed=seed,
        passed=outcome.passed,
        text="\n".join(lines),
        hours=outcome.hours,
        cpu_s=cpu_s,
        excused=outcome.excused_s / max(outcome.lived_s, 1.0),
        pairs=tuple(sorted((str(one), str(other)) for one, other in pairs)),
        modes=tuple((m, str(kind)) for m in modes_of(sentence) for kind in sorted(kinds)),
    )


def _results(play_one: "partial[Result]", seeds: Sequence[int], workers: int) -> Iterator[Result]:
    if workers == 1:
        yield from map(play_one, seeds)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(play_one, seeds)


def _read(results: Path) -> list[Result]:
    lines = results.read_bytes().splitlines() if results.exists() else []
    return [msgspec.json.decode(line, type=Result) for line in lines]


def _line(sentence: Scenario, outcome: Outcome) -> str:
    modes = sentence.conditions
    source = "static token" if modes.static else f"tokens of {modes.ttl_s:g} s"
    touch = "touch" if modes.touch else "no touch"
    return (
        f"seed {outcome.seed}: {'ok' if outcome.passed else 'FAILED'}; {outcome.sessions} sessions,"
        f" {sentence.replicas} replicas, {source}, {modes.namespaces} namespaces, {touch};"
        f" {outcome.writes_total} writes, expired {outcome.expired_s:g} s,"
        f" excused {outcome.excused_s:g} of {outcome.lived_s:.0f} s,"
        f" digest {outcome.digest[:12]}; moves: {_moves(sentence.faults)}"
    )


def _failure(sentence: Scenario, outcome: Outcome) -> Iterator[str]:
    for violation in outcome.violations:
        yield f"  violated: {violation}"
    yield f"  minimal sentence: {_moves(sentence.faults)}"
    yield "  timeline:"
    for at_s, what in sorted(
        (at_s, f"{what} {move.kind}")
        for move in sentence.faults
        for at_s, what in ((move.at_s, "begin"), (move.end_s, "end"))
    ):
        yield f"    {at_s:.3f} {what}"
    yield "  the last events:"
    yield from (f"    {event}" for event in outcome.last)
    again = (
        f"reconciler simulate --from {outcome.seed} --seeds 1 --sessions {len(sentence.sessions)}"
    )
    yield f"  repeat with: {again} --moves '{_moves(sentence.faults)}'"


def _moves(moves: Iterable[Move]) -> str:
    return " ".join(map(str, moves))


def _print_summary(found: Sequence[Result]) -> None:
    failed = sorted(result.seed for result in found if not result.passed)
    excused = sorted(result.seed for result in found if result.excused > EXCUSED)
    seen = {pair for result in found for pair in result.pairs}
    with_mode = {pair for result in found for pair in result.modes}
    hours, cpu_s = (
        sum(values) for values in zip(*((r.hours, r.cpu_s) for r in found), strict=True)
    )
    _print(f"pairs of moves: {_part(len(seen), len(PAIRS))}")
    _print(f"pairs of a mode and a move: {_part(len(with_mode), len(MODE_PAIRS))}")
    _print(f"fleet-hours: {hours:.1f}, {hours * 3600.0 / max(cpu_s, 0.001):.0f} in an hour of CPU")
    if excused:
        _print(f"excused for more than {EXCUSED:.0%} of the runners' lives: {_listed(excused)}")
    _print(f"{len(found)} seeds, {len(failed)} failed{': ' if failed else ''}{_listed(failed)}")


def _part(seen: int, possible: int) -> str:
    return f"{seen} of {possible} seen, {seen / possible:.1%}"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
