"""How hypothesis plays the models: many interleavings, the same ones in every run."""

from hypothesis import HealthCheck, Phase, settings


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
