"""Estimated exposure counts each second of each pod once, even if the issuer's time moves."""

import pytest

from reconciler.clock import EpochTime
from reconciler.controller.status.exposure import EstimatedExposure
from reconciler.naming import SessionKey

NOW_S = EpochTime(10_000)
MADE_S = EpochTime(0)
KEY = SessionKey("team-a", "2Ab0")


def counted(
    exposure: EstimatedExposure, expires_s: EpochTime, now_s: EpochTime, *, is_known: bool = True
) -> float:
    """Return what one more count at this instant adds for one pod."""
    before_s, last_s = exposure.total_s, exposure.begin(now_s, is_known=is_known)
    if last_s is not None:
        exposure.count(expires_s, MADE_S, last_s, now_s=now_s, key=KEY)
    return exposure.total_s - before_s


def test_what_passes_while_the_time_is_unknown_is_counted_when_it_is_known() -> None:
    exposure = EstimatedExposure(90.0)
    assert counted(exposure, NOW_S - 600.0, NOW_S, is_known=False) == 0.0
    assert counted(exposure, NOW_S - 600.0, NOW_S + 20.0, is_known=False) == 0.0
    assert counted(exposure, NOW_S - 600.0, NOW_S + 30.0) == 30.0


@pytest.mark.parametrize("moved_s", [-5.0, 5.0, 700.0])
def test_what_was_counted_is_not_counted_again_when_time_moves(moved_s: float) -> None:
    exposure = EstimatedExposure(90.0)
    assert counted(exposure, NOW_S - 600.0, NOW_S) == 600.0
    exposure.time_moved(NOW_S + moved_s - 1300.0, moved_s)
    assert counted(exposure, NOW_S - 600.0, NOW_S + 30.0 + moved_s) == 30.0
    assert counted(exposure, NOW_S - 600.0, NOW_S + 60.0 + moved_s) == 30.0


def test_what_only_the_new_time_ends_counts_since_it_may_have_been_so() -> None:
    exposure = EstimatedExposure(90.0)
    assert counted(exposure, NOW_S + 300.0, NOW_S) == 0.0
    exposure.time_moved(NOW_S + 700.0 - 80.0, 700.0)
    assert counted(exposure, NOW_S + 300.0, NOW_S + 700.0) == 80.0


@pytest.mark.parametrize(
    ("expires_s", "written_s", "seconds"),
    [
        pytest.param(NOW_S + 650.0, NOW_S - 10.0, 41.0, id="expired before the write"),
        pytest.param(NOW_S + 300.0, NOW_S - 10.0, 71.0, id="expired before it may have been so"),
        pytest.param(NOW_S + 300.0, NOW_S - 90.0, 0.0, id="written before it may have been so"),
        pytest.param(NOW_S + 695.0, NOW_S - 10.0, 0.0, id="written before its end"),
    ],
)
def test_a_token_that_was_replaced_too_late_only_by_the_new_time_counts(
    expires_s: EpochTime, written_s: EpochTime, seconds: float
) -> None:
    exposure = EstimatedExposure(90.0)
    exposure.written(KEY, expires_s, MADE_S, written_s, touched=True)
    assert exposure.total_s == 0.0
    for _ in range(2):  # each write once
        exposure.time_moved(NOW_S + 700.0 - 80.0, 700.0)
        assert exposure.total_s == seconds
