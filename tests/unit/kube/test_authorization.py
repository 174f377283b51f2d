"""When a 403 is called a missing right, and what a right that works again wakes."""

import pytest

from reconciler.clock import Instant
from reconciler.kube.authorization import (
    LOST_S,
    PATIENCE_S,
    WAKE_EVERY_S,
    AccessRight,
    AuthorizerMemory,
)

PATCH = AccessRight("patch", "secrets", "team-a")
OTHER = AccessRight("patch", "secrets", "team-b")
EVERYWHERE = AccessRight("list", "pods", None)


class Rig:
    def __init__(self) -> None:
        self.woken: list[str | None] = []
        self.state = AuthorizerMemory(self.woken.append)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_right_that_never_worked_is_missing_at_once(rig: Rig) -> None:
    assert not rig.state.refused(PATCH, Instant(0))


def test_a_right_that_worked_is_missing_only_after_a_while(rig: Rig) -> None:
    rig.state.granted(PATCH, Instant(0))
    assert rig.state.refused(PATCH, Instant(100))
    assert rig.state.refused(PATCH, Instant(100.0 + PATIENCE_S - 0.1))
    assert not rig.state.refused(PATCH, Instant(100.0 + PATIENCE_S))


def test_the_first_refusal_counts_and_not_the_last_one_of_another_time(rig: Rig) -> None:
    rig.state.granted(PATCH, Instant(0))
    assert rig.state.refused(PATCH, Instant(100))
    assert rig.state.refused(PATCH, Instant(100.0 + LOST_S + 1.0))  # nothing was asked between


def test_what_works_in_one_namespace_says_nothing_of_another(rig: Rig) -> None:
    rig.state.granted(PATCH, Instant(0))
    assert not rig.state.refused(OTHER, Instant(1))


@pytest.mark.parametrize(("after_s", "is_excused"), [(LOST_S - 0.1, True), (LOST_S, False)])
def test_a_lost_connection_excuses_every_right_for_a_minute(
    rig: Rig, after_s: float, is_excused: bool
) -> None:
    rig.state.lost(Instant(0))
    assert rig.state.refused(OTHER, Instant(after_s)) is is_excused


def test_a_server_that_is_lost_again_and_again_makes_no_missing_right_a_new_one(rig: Rig) -> None:
    assert not rig.state.refused(PATCH, Instant(0))
    for at in range(100, 1000, 100):
        rig.state.lost(Instant(at))
        assert not rig.state.refused(PATCH, Instant(at + 1.0))


def test_a_right_that_is_granted_again_has_worked(rig: Rig) -> None:
    assert not rig.state.refused(PATCH, Instant(0))
    rig.state.granted(PATCH, Instant(1))
    assert rig.state.refused(PATCH, Instant(2))


def test_a_right_that_works_again_wakes_its_namespace_alone(rig: Rig) -> None:
    rig.state.granted(PATCH, Instant(0))
    assert rig.woken == []
    rig.state.refused(PATCH, Instant(100))
    rig.state.granted(PATCH, Instant(101))
    rig.state.granted(PATCH, Instant(102))
    assert rig.woken == ["team-a"]


def test_after_a_lost_connection_it_wakes_all(rig: Rig) -> None:
    rig.state.lost(Instant(0))
    rig.state.refused(PATCH, Instant(1))
    rig.state.granted(PATCH, Instant(2))
    assert rig.woken == [None]


def test_a_right_for_all_namespaces_wakes_all(rig: Rig) -> None:
    rig.state.refused(EVERYWHERE, Instant(1))
    rig.state.granted(EVERYWHERE, Instant(100))
    assert rig.woken == [None]


def test_a_right_that_comes_and_goes_wakes_at_most_once_a_second(rig: Rig) -> None:
    for tick in range(100):
        at = tick * 0.1
        rig.state.refused(PATCH, Instant(at))
        rig.state.granted(PATCH, Instant(at + 0.05))
    assert 10 <= len(rig.woken) <= 11


def test_a_wake_that_came_too_soon_is_made_up_for(rig: Rig) -> None:
    for at in (0.0, 0.2):
        rig.state.refused(PATCH, Instant(at))
        rig.state.granted(PATCH, Instant(at + 0.1))
    assert rig.woken == ["team-a"]
    rig.state.granted(OTHER, Instant(0.1 + WAKE_EVERY_S))
    assert rig.woken == ["team-a", "team-a"]
