"""How hypothesis plays the models: many interleavings, the same ones in every run."""

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

NO_CONSTANTS = Constants()

SERIES = 50
"""Examples of one seed in a search."""


def play_the_same_everywhere() -> None:
    """Keep the constants of loaded modules out of what hypothesis draws.

    With them a test plays other examples beside other tests, whatever `derandomize` says.
    """
    providers._get_local_constants = lambda: NO_CONSTANTS


def play(machine: type[RuleBasedStateMachine], examples: int, *, steps: int = 40) -> None:
    """Play this many interleavings; raises what the shortest that fails raises."""
    run_state_machine_as_test(machine, settings=interleavings(examples, steps=steps))


def search(
    machine: type[RuleBasedStateMachine], examples: int, *, steps: int = 40, first: int = 0
) -> None:
    """Play interleavings until one fails; raises what it raises.

    One seed finds a wrong rule in its first examples, another one in its ten thousandth: each gets
    `SERIES` examples, until together they had `examples`.

    Args:
        first: The seed that is tried before all others: one that is known to find the rule.
    """
    for number in dict.fromkeys([first, *range(examples // SERIES)]):
        run_state_machine_as_test(
            seed(number)(machine), settings=interleavings(SERIES, Phase.generate, steps=steps)
        )


def interleavings(examples: int, *phases: Phase, steps: int = 40) -> settings:
    """Return the settings of a run; without phases it generates, and shrinks what it finds."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=True,
        phases=phases or (Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def check_overrides(variant: type) -> None:
    """Raise if a wrong variant defines what its base lacks: it would differ in nothing."""
    base = variant.__mro__[1]
    unknown = [name for name in vars(variant) if not hasattr(base, name)]
    assert not unknown, f"{variant.__name__} overrides nothing with {unknown}"
