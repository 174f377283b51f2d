"""How long a failed session waits at most: bound by the slack, then by the life that is left."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.controller.decide.retry_policy import LIFE_FRACTION, max_retry_after_s


@pytest.mark.parametrize(
    ("slack_s", "left_s", "bound_s"),
    [
        pytest.param(270.0, 360.0, 67.5, id="slack"),
        pytest.param(1.0, 91.0, 91.0 / 16, id="a-slack-that-runs-out-ends-in-no-storm"),
        pytest.param(-54.0, 36.0, 9.0, id="no-slack-and-36-s-of-life"),
        pytest.param(-90.0, 0.0, None, id="expired-now"),
        pytest.param(-400.0, -310.0, None, id="expired-long-ago"),
        pytest.param(-90.0, -math.inf, None, id="unknown"),
        pytest.param(300.0, math.inf, 75.0, id="no-expiry"),
        pytest.param(-90.0, math.inf, None, id="no-expiry-and-no-slack"),
    ],
)
def test_patience_is_a_part_of_what_is_left(
    slack_s: float, left_s: float, bound_s: float | None
) -> None:
    assert max_retry_after_s(slack_s, left_s) == bound_s


@given(left_s=st.floats(0.01, 1e6), gone_s=st.floats(0.0, 1e3))
def test_a_retry_always_comes_while_most_of_the_life_is_left(left_s: float, gone_s: float) -> None:
    bound_s = max_retry_after_s(left_s - gone_s, left_s)
    assert bound_s is not None
    assert 0 < bound_s <= LIFE_FRACTION * left_s
