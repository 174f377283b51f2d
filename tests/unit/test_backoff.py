"""How long a key waits after a failure."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import backoff
from reconciler.backoff import CONFLICT, FLOOR_S, MISCONFIGURED, THROTTLED, TRANSIENT

ALMOST_ONE = math.nextafter(1.0, 0.0)

POLICY = backoff.BackoffPolicy("any", base_s=1.0, cap_s=30.0)


@pytest.mark.parametrize(
    ("attempt", "window_s"),
    [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, 30.0), (7, 30.0), (2000, 30.0), (10**9, 30.0)],
)
def test_the_window_doubles_up_to_its_cap_and_never_overflows(
    attempt: int, window_s: float
) -> None:
    delay_s = POLICY.delay_s(attempt, fraction_of_life_s=None, rand=ALMOST_ONE)
    assert delay_s == pytest.approx(window_s)


@pytest.mark.parametrize(
    ("rand", "life_s", "retry_after_s", "expected_s"),
    [
        pytest.param(0.5, None, None, 4.0, id="half the window"),
        pytest.param(0.0, None, None, FLOOR_S, id="the floor under a lucky rand"),
        pytest.param(0.5, 2.5, None, 2.5, id="bounded by life"),
        pytest.param(0.5, 0.001, None, FLOOR_S, id="the floor is stronger than the bound"),
        pytest.param(0.5, 0.0, None, 4.0, id="dead already: no haste"),
        pytest.param(0.5, -60.0, None, 4.0, id="long dead: no haste"),
        pytest.param(0.5, None, 10.0, 14.0, id="the peer's wish, and the rand on top"),
        pytest.param(0.0, None, 10.0, 10.0, id="never before the peer's wish"),
        pytest.param(0.5, 3.0, 10.0, 3.0, id="life is stronger than the peer's wish"),
        pytest.param(0.5, None, 0.0, 4.0, id="Retry-After: 0"),
        pytest.param(0.5, None, -1.0, 4.0, id="a wish in the past"),
    ],
)
def test_bounds_have_their_order(
    rand: float, life_s: float | None, retry_after_s: float | None, expected_s: float
) -> None:
    delay_s = POLICY.delay_s(4, fraction_of_life_s=life_s, rand=rand, retry_after_s=retry_after_s)
    assert delay_s == pytest.approx(expected_s)


@given(
    attempt=st.integers(1, 10**6),
    rand=st.floats(0, 1, exclude_max=True),
    life_s=st.none() | st.floats(-1e6, 1e6),
    retry_after_s=st.none() | st.floats(0, 3600),
    pace=st.sampled_from([TRANSIENT, CONFLICT, THROTTLED, MISCONFIGURED]),
)
def test_a_delay_never_spins_never_outlives_the_token_and_respects_the_peer(
    attempt: int,
    rand: float,
    life_s: float | None,
    retry_after_s: float | None,
    pace: backoff.BackoffPolicy,
) -> None:
    delay_s = pace.delay_s(
        attempt, fraction_of_life_s=life_s, rand=rand, retry_after_s=retry_after_s
    )
    asked_s = min(retry_after_s or 0.0, pace.cap_s)
    assert FLOOR_S <= delay_s <= pace.cap_s + asked_s
    if life_s is not None and life_s > 0:
        assert delay_s <= max(life_s, FLOOR_S)
    else:
        assert delay_s >= asked_s


@pytest.mark.parametrize(("attempt", "rand"), [(0, 0.5), (-1, 0.5), (1, 1.0), (1, -0.1)])
def test_what_no_caller_can_mean_is_refused(attempt: int, rand: float) -> None:
    with pytest.raises(ValueError, match="attempt is 1 or more"):
        TRANSIENT.delay_s(attempt, fraction_of_life_s=None, rand=rand)


def test_a_conflict_is_tried_sooner_and_a_misconfiguration_later_than_all_else() -> None:
    paces = sorted([MISCONFIGURED, THROTTLED, TRANSIENT, CONFLICT], key=lambda pace: pace.base_s)
    assert paces == sorted(paces, key=lambda pace: pace.cap_s)
    assert (paces[0], paces[-1]) == (CONFLICT, MISCONFIGURED)
