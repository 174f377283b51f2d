"""How hypothesis plays the models: many interleavings, the same ones in every run."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

NO_CONSTANTS = Constants()


def play_the_same_everywhere() -> None:
    """Keep the constants of loaded modules out of what hypothesis draws.

    With them a test plays other examples beside other tests, whatever `derandomize` says.
    """
    providers._get_local_constants = lambda: NO_CONSTANTS


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
