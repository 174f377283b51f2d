"""The pause after a refusal: growing, capped, and ended by success."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import IssuerRefused, IssuerUnavailable
from reconciler.net.circuit_breaker import PROBE_S
from reconciler.tokens.cooldown import MAX_S, Cooldown
from tests.support import ManualClock


class _Longest(Random):
    """Chance always chooses the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_pauses_double_up_to_the_cap_and_start_again_after_success() -> None:
    cooldown = Cooldown(ManualClock(), _Longest())
    pauses = []
    for _ in range(7):
        cooldown.after_refusal(IssuerRefused("no"))
        pauses.append(cooldown.remaining_s())
    assert pauses == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert cooldown.is_pending
    assert cooldown.reset()
    assert (cooldown.remaining_s(), cooldown.error, cooldown.is_pending) == (0.0, None, False)
    assert not cooldown.reset()
    cooldown.after_refusal(IssuerRefused("no"))
    assert cooldown.remaining_s() == 2.0


@pytest.mark.parametrize(
    ("lives_s", "pause_s"),
    [
        pytest.param([], 30.0, id="nothing-is-known"),
        pytest.param([900.0], 30.0, id="a-whole-life"),
        pytest.param([54.0], 5.4, id="nine-tenths-of-a-minute"),
        pytest.param([7.0], PROBE_S, id="the-end-is-near"),
        pytest.param([900.0, 54.0], 5.4, id="the-fleet-has-less"),
        pytest.param([54.0, -86_400.0], 5.4, id="one-session-expired-yesterday"),
        pytest.param([-1.0], PROBE_S, id="just-expired"),
        pytest.param([-100.0], 10.0, id="expired-long-ago"),
        pytest.param([-86_400.0], 30.0, id="expired-yesterday"),
    ],
)
def test_a_pause_takes_a_tenth_of_the_remaining_life_at_most(
    lives_s: list[float], pause_s: float
) -> None:
    cooldown = Cooldown(ManualClock(), _Longest())
    for _ in range(7):
        cooldown.after_refusal(IssuerRefused("no"), remaining_lives_s=lives_s)
    assert cooldown.remaining_s() == pytest.approx(pause_s)
    asked = IssuerUnavailable("busy", status=429, retry_after_s=3600.0)
    cooldown.after_throttling(asked, remaining_lives_s=lives_s)
    assert cooldown.remaining_s() == pytest.approx(pause_s)


@given(
    lives_s=st.lists(st.floats(-1e5, 1e5), max_size=2),
    refusals=st.integers(1, 40),
    seed=st.integers(),
)
def test_two_requests_are_a_probes_pace_apart_at_least(
    lives_s: list[float], refusals: int, seed: int
) -> None:
    cooldown = Cooldown(ManualClock(), Random(seed))
    for _ in range(refusals):
        cooldown.after_refusal(IssuerRefused("no"), remaining_lives_s=lives_s)
        assert PROBE_S <= cooldown.remaining_s() <= MAX_S


def test_the_error_is_kept_exactly_as_long_as_the_pause() -> None:
    clock = ManualClock()
    cooldown = Cooldown(clock, _Longest())
    error = IssuerRefused("no")
    cooldown.after_refusal(error)
    clock.advance(1.9)
    assert cooldown.error is error
    clock.advance(0.1)
    assert cooldown.error is None


@pytest.mark.parametrize(
    ("asked_s", "pause_s"), [(None, 0.0), (0.0, 0.0), (7.0, 7.0), (86_400.0, MAX_S)]
)
def test_a_retry_after_is_honoured_up_to_the_cap(asked_s: float | None, pause_s: float) -> None:
    cooldown = Cooldown(ManualClock(), _Longest())
    cooldown.after_throttling(IssuerUnavailable("busy", status=429, retry_after_s=asked_s))
    assert cooldown.remaining_s() == pause_s
