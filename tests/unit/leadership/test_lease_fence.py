"""The fence depends on the clock alone once it was opened."""

import pytest

from reconciler.clock import Instant
from reconciler.errors import NotLeaderError
from reconciler.leadership.lease_fence import LeaseFence
from tests.support import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def fence(clock: ManualClock) -> LeaseFence:
    return LeaseFence(clock, "replica-0")


def refuses(fence: LeaseFence) -> bool:
    try:
        fence.check()
    except NotLeaderError:
        return True
    return False


def test_it_is_closed_at_first_at_any_time() -> None:
    fence = LeaseFence(ManualClock(now_at=Instant(-3600)), "replica-0")
    assert not fence.is_open
    assert not fence.may_write(0.0)
    assert refuses(fence)
    assert fence.fenced_total == 2


def opened(fence: LeaseFence, clock: ManualClock) -> None:
    """Open it for writes that leave within 12 s and end within 15."""
    fence.open("replica-0/3-n", clock.monotonic() + 12.0, clock.monotonic() + 15.0)


@pytest.mark.parametrize(
    ("age_s", "need_s", "allowed"),
    [
        (0.0, 10.0, True),
        (4.9, 10.0, True),
        (5.0, 10.0, False),
        (11.9, 0.0, True),
        (12.0, 0.0, False),
    ],
)
def test_a_write_may_start_if_it_must_end_before_the_lease(
    clock: ManualClock, fence: LeaseFence, age_s: float, need_s: float, allowed: bool
) -> None:
    opened(fence, clock)
    clock.advance(age_s)
    assert fence.may_write(need_s) is allowed
    assert fence.fenced_total == (0 if allowed else 1)


def test_a_lease_of_another_has_lapsed_at_its_end(clock: ManualClock, fence: LeaseFence) -> None:
    seen = [fence.has_lapsed]
    fence.ends_at = clock.monotonic() + 15.0
    for passed_s in (14.9, 0.2):
        clock.advance(passed_s)
        seen.append(fence.has_lapsed)
    opened(fence, clock)
    assert [*seen, fence.has_lapsed] == [False, False, True, False]


def test_it_closes_at_the_end_of_the_lease(clock: ManualClock, fence: LeaseFence) -> None:
    opened(fence, clock)
    clock.advance(11.999)
    assert not refuses(fence)
    clock.advance(0.001)
    assert refuses(fence)
    assert not fence.is_open


def test_a_step_of_the_wall_clock_changes_nothing(clock: ManualClock, fence: LeaseFence) -> None:
    opened(fence, clock)
    clock.wall_s += 3600.0
    assert fence.is_open
    clock.wall_s -= 7200.0
    clock.advance(15.0)
    assert not fence.is_open


def test_a_renewal_extends_it_and_closing_ends_it_at_once(
    clock: ManualClock, fence: LeaseFence
) -> None:
    opened(fence, clock)
    clock.advance(10.0)
    opened(fence, clock)
    clock.advance(10.0)
    assert fence.is_open
    fence.close()
    assert refuses(fence)
    assert not fence.may_write(0.0)


def test_the_term_is_the_last_one_that_was_opened(clock: ManualClock, fence: LeaseFence) -> None:
    assert fence.term == "replica-0"
    opened(fence, clock)
    fence.close()
    assert fence.term == "replica-0/3-n"
