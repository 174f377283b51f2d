import pytest

from reconciler.clock import Instant
from reconciler.informer.consistency import EVERY_S, HOLD_S, ConsistencyCheck
from reconciler.informer.messages import Bookmark, Replace

LISTED = Replace((), "50", check=True)


def lowest(low: float, high: float) -> float:
    return low


def held() -> ConsistencyCheck:
    audit = ConsistencyCheck(lowest)
    audit.hold(LISTED, Instant(0))
    return audit


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("49", (Bookmark("49"),)),
        ("50", (Bookmark("50"), LISTED)),
        ("51", (LISTED, Bookmark("51"))),
        ("opaque", (Bookmark("opaque"),)),
    ],
    ids=["before", "at", "after", "unknown"],
)
def test_the_held_list_is_compared_exactly_at_its_version(
    version: str, expected: tuple[object, ...]
) -> None:
    assert held().insert_held_list(version, Bookmark(version)) == expected


def test_a_held_list_is_handed_out_once() -> None:
    audit = held()
    audit.insert_held_list("51", Bookmark("51"))
    assert audit.insert_held_list("52", Bookmark("52")) == (Bookmark("52"),)
    assert audit.take_overdue(Instant(1e9)) is None


def test_a_stream_that_never_reaches_the_list_is_overruled_in_time() -> None:
    audit = held()
    assert audit.take_overdue(Instant(HOLD_S - 1)) is None
    assert audit.take_overdue(Instant(HOLD_S)) == LISTED
    assert audit.take_overdue(Instant(HOLD_S)) is None


def test_none_is_due_while_one_is_held_nor_before_the_period_has_passed() -> None:
    audit = held()
    assert not audit.is_due(Instant(1e9))
    audit.take_overdue(Instant(1e9))
    audit.listed(Instant(0))
    assert not audit.is_due(Instant(EVERY_S[0] - 1))
    assert audit.is_due(Instant(EVERY_S[0]))


def test_a_complete_list_makes_the_held_one_history() -> None:
    audit = held()
    audit.listed(Instant(10))
    assert audit.insert_held_list("51", Bookmark("51")) == (Bookmark("51"),)
