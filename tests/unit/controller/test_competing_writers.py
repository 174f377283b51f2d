"""How often others overwrite a Secret, and when it is written again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import Instant
from reconciler.controller.decide.competing_writers import (
    BACKOFF,
    ISOLATED,
    MEMORY_S,
    QUIET_S,
    CompetingWriters,
)
from reconciler.lab.simulation.commit_checks import CONTESTED_S, FIRST_REPAIRS
from reconciler.naming import SessionKey

KEY, OTHER = SessionKey("team-a", "2Ab0"), SessionKey("team-a", "2Ab1")


def test_two_overwrites_are_isolated_and_repaired_at_once() -> None:
    writers = CompetingWriters()
    for number in range(1, ISOLATED + 1):
        assert writers.paused_until(KEY, Instant(1.0 * number)) is None
        assert writers.record_overwrite(KEY, Instant(1.0 * number), rand=0.9) == number


@pytest.mark.parametrize("rand", [0.0, 0.5, 0.999])
def test_a_third_one_is_a_programs_and_waits(rand: float) -> None:
    writers = CompetingWriters()
    for _ in range(ISOLATED):
        writers.record_overwrite(KEY, Instant(0), rand=rand)
    until_at = writers.paused_until(KEY, Instant(0))
    assert until_at == Instant(BACKOFF.base_s * (0.5 + rand / 2))
    assert writers.paused_until(KEY, until_at) is None


@given(
    rands=st.lists(st.floats(0, 1, exclude_max=True), min_size=60, max_size=60),
    replies_s=st.lists(st.floats(0, 1.2 * QUIET_S), min_size=60, max_size=60),
    window_s=st.floats(0.1, 400),
)
def test_an_exchange_of_writes_has_a_bound_with_any_random_numbers(
    rands: list[float], replies_s: list[float], window_s: float
) -> None:
    writers, now_at, repairs = CompetingWriters(), Instant(0), list[Instant]()
    for rand, reply_s in zip(rands, replies_s, strict=True):
        now_at += reply_s
        now_at = writers.paused_until(KEY, now_at) or now_at
        writers.record_overwrite(KEY, now_at, rand=rand)
        repairs.append(now_at)
    most = max(sum(at <= other < at + window_s for other in repairs) for at in repairs)
    assert most <= FIRST_REPAIRS + window_s / CONTESTED_S


def test_one_that_comes_now_and_then_is_always_repaired_at_once() -> None:
    writers = CompetingWriters()
    for tick in range(1, 100):
        now_at = Instant(tick * 240.0)
        assert writers.paused_until(KEY, now_at) is None
        assert writers.record_overwrite(KEY, now_at, rand=0.9) == tick
        assert writers.paused_until(KEY, now_at) is None


def test_a_quick_exchange_is_slowed_to_the_cap_and_no_further() -> None:
    writers, now_at, pauses = CompetingWriters(), Instant(0), []
    for _ in range(12):
        writers.record_overwrite(KEY, now_at, rand=0.999)
        until_at = writers.paused_until(KEY, now_at)
        pauses.append(0.0 if until_at is None else round(until_at - now_at, 6))
        now_at = until_at or now_at
    assert pauses[: ISOLATED - 1] == [0.0] * (ISOLATED - 1)
    assert pauses[ISOLATED - 1 :] == sorted(pauses[ISOLATED - 1 :])
    assert 0.99 * BACKOFF.cap_s < pauses[-1] < BACKOFF.cap_s


def test_a_quiet_minute_ends_the_slowness_but_not_the_count() -> None:
    writers = CompetingWriters()
    for number in range(10):
        writers.record_overwrite(KEY, Instant(number), rand=0.9)
    later_at = 9.0 + QUIET_S
    assert writers.record_overwrite(KEY, Instant(later_at), rand=0.9) == 11
    assert writers.paused_until(KEY, Instant(later_at)) is None


def test_what_is_long_ago_counts_no_more() -> None:
    writers = CompetingWriters()
    for number in range(10):
        writers.record_overwrite(KEY, Instant(number), rand=0.9)
    assert writers.record_overwrite(KEY, Instant(9.0 + MEMORY_S), rand=0.9) == 1


def test_each_session_has_its_own_count() -> None:
    writers = CompetingWriters()
    for number in range(10):
        writers.record_overwrite(KEY, Instant(number), rand=0.9)
    assert writers.paused_until(OTHER, Instant(9)) is None
    assert writers.record_overwrite(OTHER, Instant(9), rand=0.9) == 1
