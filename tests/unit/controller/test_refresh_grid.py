"""The renewal grid: one instant a token, the same for every replica, spread over the fleet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import EpochTime
from reconciler.controller.decide.refresh_plan import (
    EARLIEST,
    GRID,
    allowance_s,
    phase,
    refresh_at_s,
    slack_s,
)

TTLS = st.floats(min_value=5, max_value=86_400)
ISSUED = st.floats(min_value=1.5e9, max_value=2.5e9)
UIDS = st.uuids().map(str)


@given(ISSUED, TTLS, UIDS)
def test_a_token_is_refreshed_at_an_age_of_0_2_to_0_6_of_its_life(
    issued_s: EpochTime, ttl_s: float, uid: str
) -> None:
    age = (refresh_at_s(issued_s, issued_s + ttl_s, uid) - issued_s) / ttl_s
    assert EARLIEST - 1e-3 <= age <= EARLIEST + GRID + 1e-3


@given(ISSUED, st.sampled_from([20.0, 300.0, 900.0]), UIDS)
def test_a_token_issued_at_a_scheduled_instant_is_refreshed_at_the_next_one(
    issued_s: EpochTime, ttl_s: float, uid: str
) -> None:
    first = refresh_at_s(issued_s, issued_s + ttl_s, uid)
    second = refresh_at_s(first, first + ttl_s, uid)
    assert second - first == pytest.approx(GRID * ttl_s, abs=1e-3)


@given(UIDS)
def test_the_phase_depends_on_the_uid_alone(uid: str) -> None:
    assert 0 <= phase(uid) < 1
    assert phase(uid) == phase(uid)


def test_a_fleet_issued_at_once_is_spread_over_the_period() -> None:
    issued_s, ttl_s, buckets = EpochTime(1_767_225_600), 900.0, 36
    counts = [0] * buckets
    for number in range(10_000):
        due_s = refresh_at_s(issued_s, issued_s + ttl_s, f"pod-{number}")
        age = (due_s - issued_s) / ttl_s - EARLIEST
        counts[min(buckets - 1, int(age / GRID * buckets))] += 1
    mean = sum(counts) / buckets
    assert max(counts) < 1.3 * mean


@pytest.mark.parametrize(
    ("ttl_s", "propagation_s", "expected_s"),
    [(900, 90, 90), (20, 90, 8), (900, 600, 360)],
    ids=["kubelet fits", "short token", "huge cluster"],
)
def test_the_allowance_never_makes_a_token_just_written_due(
    ttl_s: float, propagation_s: float, expected_s: float
) -> None:
    assert allowance_s(ttl_s, propagation_s) == pytest.approx(expected_s)


def test_the_slack_of_a_15_minute_token_is_270_seconds() -> None:
    assert slack_s(900, 90) == pytest.approx(270)
