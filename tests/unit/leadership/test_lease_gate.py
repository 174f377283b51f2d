"""The gate depends on the clock alone once it was opened."""

import pytest

from reconciler.errors import DeposedError
from reconciler.leadership.lease_gate import LeaseGate
from tests.support import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def gate(clock: ManualClock) -> LeaseGate:
    return LeaseGate(clock, "replica-0")


def refuses(gate: LeaseGate) -> bool:
    try:
        gate.check()
    except DeposedError:
        return True
    return False


def test_it_is_closed_at_first_whatever_the_clock_shows() -> None:
    gate = LeaseGate(ManualClock(now_at=-3600.0), "replica-0")
    assert not gate.is_open
    assert not gate.may_write(0.0)
    assert refuses(gate)
    assert gate.refused_total == 2


@pytest.mark.parametrize(
    ("age_s", "need_s", "allowed"),
    [
        (0.0, 10.0, True),
        (4.9, 10.0, True),
        (5.0, 10.0, False),
        (14.9, 0.0, True),
        (15.0, 0.0, False),
    ],
)
def test_a_write_may_start_if_it_must_end_before_the_lease(
    clock: ManualClock, gate: LeaseGate, age_s: float, need_s: float, allowed: bool
) -> None:
    gate.open("replica-0/3-n", clock.monotonic() + 15.0)
    clock.advance(age_s)
    assert gate.may_write(need_s) is allowed
    assert gate.refused_total == (0 if allowed else 1)


def test_it_closes_by_itself_at_the_end_of_the_lease(clock: ManualClock, gate: LeaseGate) -> None:
    gate.open("replica-0/3-n", clock.monotonic() + 15.0)
    clock.advance(14.999)
    assert not refuses(gate)
    clock.advance(0.001)
    assert refuses(gate)
    assert not gate.is_open


def test_a_step_of_the_wall_clock_changes_nothing(clock: ManualClock, gate: LeaseGate) -> None:
    gate.open("replica-0/3-n", clock.monotonic() + 15.0)
    clock.wall_s += 3600.0
    assert gate.is_open
    clock.wall_s -= 7200.0
    clock.advance(15.0)
    assert not gate.is_open


def test_a_renewal_extends_it_and_closing_ends_it_at_once(
    clock: ManualClock, gate: LeaseGate
) -> None:
    gate.open("replica-0/3-n", clock.monotonic() + 15.0)
    clock.advance(10.0)
    gate.open("replica-0/3-n", clock.monotonic() + 15.0)
    clock.advance(10.0)
    assert gate.is_open
    gate.close()
    assert refuses(gate)
    assert not gate.may_write(0.0)


def test_the_term_is_the_last_one_that_was_opened(clock: ManualClock, gate: LeaseGate) -> None:
    assert gate.term == "replica-0"
    gate.open("replica-0/3-n", clock.monotonic() + 15.0)
    gate.close()
    assert gate.term == "replica-0/3-n"
