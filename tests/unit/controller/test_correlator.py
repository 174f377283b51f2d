"""The figures of client-go's recorder: repetitions are counted, too many of one object cut."""

import pytest

from reconciler.clock import EpochTime, Instant
from reconciler.controller.events.correlator import (
    AGGREGATE,
    BURST,
    MAX_MESSAGE,
    MAX_SIMILAR,
    REFILL_S,
    SIMILAR_S,
    EventCorrelator,
    EventSeries,
)
from reconciler.controller.events.rules import EventMessage
from tests.unit.controller.build import pod

FAILED = EventMessage("Warning", "RefreshFailed", "no answer")


def take(
    correlator: EventCorrelator, at: Instant, happening: EventMessage = FAILED, uid: str = "u"
) -> object:
    found = correlator.correlate(
        pod(uid=uid), happening, now_at=at, now_s=EpochTime(1000.0 + float(at))
    )
    return None if found is None else (found.event.message, found.count)


def test_the_same_message_is_one_series_that_counts() -> None:
    correlator = EventCorrelator()
    first = correlator.correlate(pod(), FAILED, now_at=Instant(0), now_s=EpochTime(1000))
    again = correlator.correlate(pod(), FAILED, now_at=Instant(60), now_s=EpochTime(1060))
    assert first is again
    assert isinstance(again, EventSeries)
    assert (again.count, again.first_s, again.last_s) == (2, EpochTime(1000), EpochTime(1060))


def test_another_pod_reason_or_uid_is_another_series() -> None:
    correlator = EventCorrelator()
    others = [FAILED._replace(reason="Other"), FAILED._replace(type="Normal")]
    assert [take(correlator, Instant(0), one) for one in [FAILED, *others]] == [
        ("no answer", 1)
    ] * 3
    assert take(correlator, Instant(0), uid="another") == ("no answer", 1)


def test_too_many_events_of_one_object_is_suppressed_and_refills_slowly() -> None:
    correlator = EventCorrelator()
    taken = [take(correlator, Instant(0)) for _ in range(BURST + 10)]
    assert sum(one is not None for one in taken) == BURST
    assert take(correlator, Instant(0), uid="another") is not None
    assert take(correlator, Instant(REFILL_S - 1)) is None
    assert take(correlator, Instant(REFILL_S)) is not None
    assert take(correlator, Instant(REFILL_S + 1)) is None


def test_many_messages_of_one_reason_become_one_series() -> None:
    correlator = EventCorrelator()
    messages = [
        take(correlator, Instant(1), FAILED._replace(message=f"{n}"))
        for n in range(MAX_SIMILAR + 3)
    ]
    assert messages[MAX_SIMILAR - 1] == (f"{MAX_SIMILAR - 1}", 1)
    assert messages[MAX_SIMILAR:] == [(f"{AGGREGATE}RefreshFailed", n) for n in (1, 2, 3)]
    later = 1.0 + SIMILAR_S + 1
    assert take(correlator, Instant(later), FAILED._replace(message="new")) == ("new", 1)


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_message_is_cut_to_what_the_api_takes(letter: str) -> None:
    found = EventCorrelator().correlate(
        pod(), FAILED._replace(message=letter * 5000), now_at=Instant(0), now_s=EpochTime(0)
    )
    assert found is not None
    assert MAX_MESSAGE - 2 < len(found.event.message.encode()) <= MAX_MESSAGE


def test_the_events_of_a_pod_are_those_of_its_name_the_latest_first() -> None:
    correlator = EventCorrelator()
    for at, event in ((0, FAILED), (5, FAILED._replace(reason="Other")), (9, FAILED)):
        take(correlator, Instant(at), event)
    correlator.correlate(pod(name="another"), FAILED, now_at=Instant(9), now_s=EpochTime(2000))

    found = correlator.of(pod().namespace, pod().name)
    assert [(each.reason, each.count, each.last_s) for each in found] == [
        ("RefreshFailed", 2, EpochTime(1009)), ("Other", 1, EpochTime(1005)),
    ]  # fmt: skip
    assert correlator.of("elsewhere", pod().name) == ()
