"""`reconciler simulate`: seeded worlds, one line each; a failure prints its last events."""

import sys

from reconciler.lab.simulation.run import Outcome, simulate

EXIT_VIOLATED = 1


def run_simulations(*, seeds: int, first: int, hours: float) -> int:
    """Run seeds one after another and print a line for each.

    Returns: The exit code: 0 if every invariant held in every world.
    """
    failed = []
    for seed in range(first, first + seeds):
        outcome = simulate(seed, hours)
        _print(_line(outcome))
        if not outcome.passed:
            failed.append(seed)
            _print_failure(outcome)
    listed = f": {', '.join(map(str, failed))}" if failed else ""
    _print(f"{seeds} seeds, {len(failed)} failed{listed}")
    return EXIT_VIOLATED if failed else 0


def _line(outcome: Outcome) -> str:
    faults = ", ".join(f"{kind} x{count}" if count > 1 else kind for kind, count in outcome.faults)
    result = "ok" if outcome.passed else "FAILED"
    if outcome.passed and not outcome.within_slack:
        result = "ok (a fault lasts longer than the tokens: expired seconds are no violation)"
    return (
        f"seed {outcome.seed}: {result}; {outcome.sessions} sessions, {outcome.writes_total} "
        f"writes, expired {outcome.expired_s:g} s, excused {outcome.excused_s:g} s, "
        f"digest {outcome.digest[:12]}; faults: {faults or 'none'}"
    )


def _print_failure(outcome: Outcome) -> None:
    for violation in outcome.violations:
        _print(f"  violated: {violation}")
    _print("  the last events:")
    for event in outcome.last:
        _print(f"    {event}")
    again = f"reconciler simulate --seeds 1 --seed {outcome.seed} --hours {outcome.hours:g}"
    _print(f"  repeat with: {again}")


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
