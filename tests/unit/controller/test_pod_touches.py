"""Touches follow the Secret's own watch event, twice, and never come before it."""

import pytest

from reconciler.clock import Instant
from reconciler.controller.decide.pod_touches import (
    LATEST_SYNC_S,
    MAX_WATCH_WAIT_S,
    REPEAT_S,
    SLOW_RATE,
    PodTouches,
)
from reconciler.naming import SessionKey
from tests.unit.controller.build import KEY, secret


def test_a_touch_waits_until_the_write_came_back_through_the_watch() -> None:
    touches = PodTouches()
    touches.request(KEY, secret(version="20"), now_at=Instant(100))
    assert not touches.observed(secret(version="19"), Instant(100.1))
    assert not touches.is_due(KEY, Instant(100.2))
    assert touches.observed(secret(version="20"), Instant(100.3))
    assert touches.is_due(KEY, Instant(100.3))


def test_a_pod_is_touched_twice_and_then_left_alone() -> None:
    touches = PodTouches()
    touches.request(KEY, secret(version="20"), now_at=Instant(100))
    touches.observed(secret(version="21"), Instant(100.1))
    touches.done(KEY, Instant(100.2))
    assert not touches.is_due(KEY, Instant(100.2))
    assert touches.next_at(KEY) == Instant(100.2 + REPEAT_S)
    touches.done(KEY, Instant(100.2 + REPEAT_S))
    assert touches.next_at(KEY) is None
    assert len(touches) == 0


def test_a_watch_that_stays_silent_delays_a_touch_but_does_not_prevent_it() -> None:
    touches = PodTouches()
    touches.request(KEY, secret(), now_at=Instant(100))
    assert touches.is_due(KEY, Instant(100.0 + MAX_WATCH_WAIT_S))


def test_versions_are_compared_as_numbers() -> None:
    touches = PodTouches()
    touches.request(KEY, secret(version="9"), now_at=Instant(100))
    assert touches.observed(secret(version="10"), Instant(100.1))


def test_another_object_of_that_name_counts_as_seen() -> None:
    touches = PodTouches()
    touches.request(KEY, secret(version="900"), now_at=Instant(100))
    assert touches.observed(secret(version="3", uid="other"), Instant(100.1))


def test_dropping_forgets() -> None:
    touches = PodTouches()
    touches.request(KEY, secret(), now_at=Instant(100))
    touches.drop(KEY)
    assert not touches.is_due(KEY, Instant(1e9))


def test_a_missing_touch_is_requested_once_a_write() -> None:
    touches = PodTouches()
    assert touches.ensure(KEY, secret(version="20"), Instant(100))
    assert touches.is_due(KEY, Instant(100))
    touches.done(KEY, Instant(100))
    touches.done(KEY, Instant(100.0 + REPEAT_S))
    assert not touches.ensure(KEY, secret(version="21"), Instant(103))
    assert touches.ensure(KEY, secret(version="22", age_s=5.0), Instant(104))


@pytest.mark.parametrize("version", ["20", "21"], ids=["the write", "a signature after it"])
def test_our_own_pending_write_needs_no_second_touch(version: str) -> None:
    touches = PodTouches()
    touches.request(KEY, secret(version="20"), Instant(100))
    assert not touches.ensure(KEY, secret(version=version), Instant(100.1))
    assert not touches.is_due(KEY, Instant(100.2))


def test_a_missing_touch_of_a_write_whose_touches_are_pending_for_the_one_before() -> None:
    touches = PodTouches()
    touches.request(KEY, secret(version="20"), Instant(100))
    assert touches.ensure(KEY, secret(version="21", age_s=5.0), Instant(100.1))
    assert touches.is_due(KEY, Instant(100.1))


def test_a_touch_that_an_earlier_term_requested_is_requested_again() -> None:
    touches = PodTouches()
    assert touches.ensure(KEY, secret(), Instant(100))
    touches.clear()
    assert touches.ensure(KEY, secret(), Instant(200))


def test_touches_without_room_share_a_rate() -> None:
    touches = PodTouches()
    keys = [SessionKey("team", f"secret-{number}") for number in range(1000)]
    for key in keys:
        touches.request(key, secret(), Instant(100))
        assert touches.found_no_room(key, Instant(105), rand=0.5)
    waits_s = [(touches.next_at(key) or 0.0) - 105 for key in keys]
    assert waits_s[0] == 1.0
    assert waits_s[-1] == pytest.approx(len(keys) / SLOW_RATE)


@pytest.mark.parametrize("rand", [0.0, 0.5, 0.999])
def test_a_touch_that_never_finds_room_is_given_up_when_the_kubelet_has_synced(rand: float) -> None:
    touches = PodTouches()
    for number in range(100_000):
        touches.request(SessionKey("team", f"secret-{number}"), secret(), Instant(100))
    touches.request(KEY, secret(), Instant(100))
    now_at, tries = Instant(105), 0
    while touches.found_no_room(KEY, now_at, rand=rand):
        now_at, tries = touches.next_at(KEY) or Instant(0), tries + 1
        assert now_at <= Instant(100 + LATEST_SYNC_S)
    assert touches.next_at(KEY) is None
    assert 1 <= tries < 12
