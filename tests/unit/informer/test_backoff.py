from random import Random

from reconciler.clock import Instant
from reconciler.informer.backoff import BASE_S, CAP_S, RESET_S, Backoff


def lowest(low: float, high: float) -> float:
    return low


def test_waits_double_from_base_to_the_cap() -> None:
    backoff = Backoff(lowest)
    assert [backoff.failed(Instant(0)) for _ in range(8)] == [
        0.8,
        1.6,
        3.2,
        6.4,
        8.0,
        8.0,
        8.0,
        8.0,
    ]


def test_each_wait_is_spread_between_d_and_twice_d() -> None:
    first = [Backoff(Random(seed).uniform).failed(Instant(0)) for seed in range(200)]
    assert all(BASE_S <= wait_s <= 2 * BASE_S for wait_s in first)
    assert max(first) - min(first) > 0.7 * BASE_S


def test_only_a_sign_of_life_two_minutes_after_the_last_wait_resets() -> None:
    backoff = Backoff(lowest)
    for _ in range(7):
        backoff.failed(Instant(0))
    backoff.healthy(Instant(CAP_S + RESET_S - 0.1))
    assert backoff.failed(Instant(200)) == CAP_S
    backoff.healthy(Instant(200.0 + CAP_S + RESET_S))
    assert backoff.failed(Instant(400)) == BASE_S


def test_attempts_that_take_minutes_to_fail_do_not_reset() -> None:
    backoff = Backoff(lowest)
    waits = [backoff.failed(Instant(now_at)) for now_at in range(0, 3000, 300)]
    assert waits[-1] == CAP_S
