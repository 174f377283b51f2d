"""Which seeds detect the removal of a defence: `python -m tests.simulation.removals`.

Each removal restores the behaviour before the defence, at a named function. Worlds are played until
one violates an invariant. A seed is skipped, and counted, if its world lacks the input or the fault
that the defence needs.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import pytest

from reconciler.clock import EpochTime
from reconciler.controller.decide import annotations
from reconciler.controller.decide.ownership import Owner, WriteResponse
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.kube.api import ObjectMeta
from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.simulation.conditions import Input
from reconciler.lab.simulation.run import Outcome, play
from reconciler.lab.simulation.scenario import Scenario, draw
from reconciler.platform.adaptive_limit import AdaptiveLimit
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.server_clock import TokenTimes

SEEDS = 200
"""A removal that no seed below this detects is not covered."""


@dataclass(frozen=True, slots=True)
class Removal:
    """One defence, and how to remove it.

    Args:
        needs: A world without one of these inputs or faults cannot detect the removal.
    """

    name: str
    remove: Callable[[pytest.MonkeyPatch], None]
    needs: frozenset[Input | Fault]

    def may_show(self, scenario: Scenario) -> bool:
        kinds = {fault.kind for fault in scenario.faults}
        return bool(self.needs & (kinds | scenario.conditions.inputs))

    def play(self, seed: int) -> Outcome:
        """Run a seed's world without the defence."""
        with pytest.MonkeyPatch.context() as patch:
            self.remove(patch)
            return play(draw(seed))


def _not_found_revokes_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ConfirmationCache, "is_absent", lambda *args: False)


def _platform_asked_by_all_workers(patch: pytest.MonkeyPatch) -> None:
    honest = AdaptiveLimit.__init__
    patch.setattr(AdaptiveLimit, "__init__", lambda limit, most: honest(limit, 64))


def _dates_veto(patch: pytest.MonkeyPatch) -> None:
    """A token's age is counted by the Date header of its answer."""
    honest = IssuerTime.observe

    def hear(time: IssuerTime, answer: TokenTimes, date_s: EpochTime | None) -> EpochTime:
        received_s = honest(time, answer, date_s)
        return received_s if date_s is None else date_s

    patch.setattr(IssuerTime, "observe", hear)


def _only_dates_tell_time(patch: pytest.MonkeyPatch) -> None:
    """Without a Date header, our clock is taken for the issuer's."""
    honest = IssuerTime.observe

    def hear(time: IssuerTime, answer: TokenTimes, date_s: EpochTime | None) -> EpochTime:
        return time._clock.wall() if date_s is None else honest(time, answer, date_s)

    patch.setattr(IssuerTime, "observe", hear)


def _steps_plan_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(IssuerTime, "_report_move", lambda *args, **named: None)


def _names_alone_own(patch: pytest.MonkeyPatch) -> None:
    """Every other owner of the token's key counts as its writer."""

    def owner_of(secret: ObjectMeta, manager: str, answer: WriteResponse | None) -> Owner:
        if manager in secret.field_managers:
            return Owner.OURS
        return Owner.FOREIGN if secret.field_managers else Owner.UNOWNED

    patch.setattr(annotations, "owner_of", owner_of)


REMOVALS = (
    Removal(
        "times tell who owns a token, not names alone",
        _names_alone_own,
        frozenset({"static_token", "cached_tokens"}),
    ),
    Removal(
        "a Date header is a hint, no veto",
        _dates_veto,
        frozenset({"wrong_date"}),
    ),
    Removal(
        "tokens prove the issuer's time",
        _only_dates_tell_time,
        frozenset({"no_date"}),
    ),
    Removal(
        "a step of the issuer's clock plans again",
        _steps_plan_nothing,
        frozenset({"issuer_step"}),
    ),
    Removal(
        "a repeated not found ends a confirmation",
        _not_found_revokes_nothing,
        frozenset({"revived_sessions"}),
    ),
    Removal(
        "the platform's limit is shared",
        _platform_asked_by_all_workers,
        frozenset(
            {
                Fault.PLATFORM_OUTAGE,
                Fault.PLATFORM_PARTIAL_OUTAGE,
                Fault.RESTART_ALL,
                "found_namespaces",
            }
        ),
    ),
)


def find(removal: Removal, seeds: Iterable[int]) -> tuple[int, int, Outcome] | None:
    """Return the first seed that detects it, the number of played worlds, and the outcome."""
    played = 0
    for seed in seeds:
        if not removal.may_show(draw(seed)):
            continue
        played += 1
        outcome = removal.play(seed)
        if not outcome.passed:
            return seed, played, outcome
    return None


def main(arguments: list[str]) -> int:
    """Print a table; return 1 if some removal was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.removals")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("names", nargs="*", help="parts of removals' names; all by default")
    options = parser.parse_args(arguments)
    missed = 0
    with suppress(BrokenPipeError):
        _print(f"{'removed':45} {'seed':>5} {'worlds':>6}  invariant")
        for removal in REMOVALS:
            if options.names and not any(name in removal.name for name in options.names):
                continue
            found = find(removal, range(options.seeds))
            if found is None:
                missed += 1
                _print(f"{removal.name:45} {'-':>5} {'-':>6}  none in {options.seeds} seeds")
                continue
            seed, played, outcome = found
            violated = outcome.violations[0]
            _print(f"{removal.name:45} {seed:5} {played:6}  {violated}")
    return 1 if missed else 0


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
