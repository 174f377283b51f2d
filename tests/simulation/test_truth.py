"""The truth checker detects a wrong status of tokens, in each direction."""

import pytest

from reconciler.clock import EpochTime
from reconciler.controller.status.exposure import EstimatedExposure
from reconciler.controller.status.fleet import FleetSummary
from reconciler.inspection.pod_token import PodToken
from reconciler.lab.simulation.run import play
from reconciler.lab.simulation.scenario import draw
from reconciler.lab.simulation.truth import STATUS_IS_TRUE
from reconciler.tokens.issuer_time import IssuerTime

HOURS = 0.05


def broken(seed: int = 0, hours: float = HOURS) -> set[str]:
    return {violation.invariant for violation in play(draw(seed, hours)).violations}


def test_honest_surfaces_violate_nothing() -> None:
    assert broken() == set()


@pytest.mark.parametrize("off_s", [-10.0, 10.0])
def test_a_wrong_remaining_life_is_seen(monkeypatch: pytest.MonkeyPatch, off_s: float) -> None:
    honest = IssuerTime.now_s
    monkeypatch.setattr(IssuerTime, "now_s", lambda time: honest(time) + off_s)
    assert STATUS_IS_TRUE in broken()


def test_a_shortest_life_that_no_session_has_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def survive(fleet: FleetSummary, propagation_s: float) -> None:
        fleet.remaining_min_s = -1.0

    monkeypatch.setattr(FleetSummary, "survive", survive)
    assert STATUS_IS_TRUE in broken()


def test_exposure_without_an_expired_token_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(exposure: EstimatedExposure, now_s: EpochTime, *, is_known: bool) -> EpochTime:
        exposure.total_s += 10.0
        return now_s

    monkeypatch.setattr(EstimatedExposure, "begin", begin)
    assert STATUS_IS_TRUE in broken()


def test_exposure_that_is_not_counted_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EstimatedExposure, "count", lambda *args, **named: None)
    monkeypatch.setattr(EstimatedExposure, "observe", lambda *args: None)
    seed = 83  # the issuer is unreachable for longer than tokens live
    assert STATUS_IS_TRUE in broken(seed, 1.0)


def test_an_explanation_that_calls_a_valid_token_expired_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PodToken, "has_expired_token", property(lambda standing: True))
    assert STATUS_IS_TRUE in broken()
