"""A server's clock from its Date headers: bounds that narrow, steps that are followed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import ClockOffset, EpochTime, Instant
from reconciler.tokens.date_clock import DateClock
from reconciler.tokens.server_clock import MEMORY_S, Bounds, bounds_of, intersect
from tests.support import ManualClock


class _Issuer:
    """Answers with a Date that is cut to whole seconds."""

    def __init__(self, clock: ManualClock, skew_s: float) -> None:
        self.clock = clock
        self.ahead_s = clock.wall_s - clock.now_at + skew_s

    def now_s(self) -> EpochTime:
        return self.clock.now_at + self.ahead_s

    def tell(self, time: DateClock, *, there_s: float = 0.0, back_s: float = 0.0) -> None:
        sent_at = self.clock.now_at
        self.clock.advance(there_s)
        date_s = float(math.floor(self.now_s()))
        self.clock.advance(back_s)
        time.observe(EpochTime(date_s), sent_at, self.clock.now_at)


def test_before_the_first_answer_the_wall_clock_is_the_best_guess() -> None:
    clock = ManualClock()
    time = DateClock(clock)
    clock.wall_s += 5
    assert time.now_s() == clock.wall_s
    assert (time.skew_s, time.error_s) == (0.0, 0.0)


@pytest.mark.parametrize("skew_s", [-7200.4, -0.3, 0.0, 90.7])
def test_one_answer_gives_the_time_to_half_a_second(skew_s: float) -> None:
    clock = ManualClock()
    issuer, time = _Issuer(clock, skew_s), DateClock(clock)
    issuer.tell(time)
    assert time.error_s == 0.5
    assert time.now_s() == pytest.approx(issuer.now_s(), abs=0.5)
    assert time.skew_s == pytest.approx(skew_s, abs=0.5)


def test_answers_at_different_fractions_narrow_the_bounds() -> None:
    clock = ManualClock()
    issuer, time = _Issuer(clock, 12.34), DateClock(clock)
    for _ in range(20):
        clock.advance(1.1)
        issuer.tell(time)
    assert time.error_s < 0.06
    assert time.skew_s == pytest.approx(12.34, abs=0.06)


def test_a_step_of_our_wall_clock_changes_nothing_but_the_skew() -> None:
    clock = ManualClock()
    issuer, time = _Issuer(clock, 0.0), DateClock(clock)
    issuer.tell(time)
    before_s = time.now_s()
    clock.wall_s += 3600
    assert time.now_s() == before_s
    assert time.skew_s == pytest.approx(-3600, abs=0.5)


@pytest.mark.parametrize("step_s", [-3600.0, -2.0, 2.0, 3600.0])
def test_a_step_of_the_issuers_clock_is_followed_at_the_next_answer(step_s: float) -> None:
    clock = ManualClock()
    issuer, time = _Issuer(clock, 0.0), DateClock(clock)
    for _ in range(5):
        clock.advance(30.3)
        issuer.tell(time)
    issuer.ahead_s += step_s
    issuer.tell(time)
    assert time.now_s() == pytest.approx(issuer.now_s(), abs=0.5)


def test_a_slow_drift_is_followed_because_old_answers_are_forgotten() -> None:
    clock = ManualClock()
    issuer, time = _Issuer(clock, 0.0), DateClock(clock)
    for _ in range(2000):
        clock.advance(45.01)
        issuer.ahead_s += 45.01 * 100e-6
        issuer.tell(time)
        drifted_s = MEMORY_S * 100e-6
        assert abs(time.now_s() - issuer.now_s()) <= time.error_s + drifted_s


def test_the_last_answer_stays_good_through_a_long_outage() -> None:
    clock = ManualClock()
    issuer, time = _Issuer(clock, 50.0), DateClock(clock)
    issuer.tell(time)
    clock.advance(10 * MEMORY_S)
    assert time.now_s() == pytest.approx(issuer.now_s(), abs=0.5)


_delays = st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(0, 60))


@given(skew_s=st.floats(-1e6, 1e6), delays=st.lists(_delays, min_size=1, max_size=30))
def test_the_true_time_always_lies_within_the_error(
    skew_s: float, delays: list[tuple[float, float, float]]
) -> None:
    clock = ManualClock()
    issuer, time = _Issuer(clock, skew_s), DateClock(clock)
    for there_s, back_s, pause_s in delays:
        issuer.tell(time, there_s=there_s, back_s=back_s)
        clock.advance(pause_s)
        assert abs(time.now_s() - issuer.now_s()) <= time.error_s + 1e-3


_seconds = st.floats(-1e4, 1e4)
_bounds = st.builds(lambda low, width: Bounds(low, low + width), _seconds, st.floats(0, 10))


@given(st.lists(_bounds, min_size=1, max_size=20))
def test_narrowing_never_leaves_the_newest_bounds(newest_first: list[Bounds]) -> None:
    low_s, high_s = intersect(newest_first)
    assert newest_first[0].low_s <= low_s <= high_s <= newest_first[0].high_s


def test_a_slow_answer_proves_less() -> None:
    assert bounds_of(EpochTime(100), Instant(10), Instant(10)) == Bounds(
        ClockOffset(90), ClockOffset(91)
    )
    assert bounds_of(EpochTime(100), Instant(10), Instant(14)) == Bounds(
        ClockOffset(86), ClockOffset(91)
    )
