"""Worlds that detect a removed defence, from `python -m tests.simulation.removals`."""

import pytest

from reconciler.lab.simulation import invariants
from reconciler.lab.simulation.commit_checks import ENDPOINT_BUDGET, WRITE_BUDGET
from reconciler.lab.simulation.revocation import REVOKED
from reconciler.lab.simulation.run import simulate
from tests.simulation.removals import REMOVALS, SEEDS, Removal

FOUND = {
    "times tell who owns a token, not names alone": (10, WRITE_BUDGET),
    "a Date header is a hint, no veto": (149, invariants.NO_EXPIRED_TOKEN),
    "tokens prove the issuer's time": (156, invariants.NO_EXPIRED_TOKEN),
    "a step of the issuer's clock plans again": (50, invariants.NO_EXPIRED_TOKEN),
    "a repeated not found ends a confirmation": (30, REVOKED),
    "the platform's limit is shared": (0, ENDPOINT_BUDGET),
}
"""Seed, and the invariant that its world then violates, by removal."""


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: removal.name)
def test_a_world_notices_that_a_defence_is_gone(removal: Removal) -> None:
    seed, invariant = FOUND[removal.name]
    assert seed < SEEDS
    outcome = removal.play(seed)
    assert invariant in {violation.invariant for violation in outcome.violations}
    assert simulate(seed).violations == ()
