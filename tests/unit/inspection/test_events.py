"""Events in the shapes that writers give them; only the controller's own count."""

import msgspec
import pytest

from reconciler.clock import EPOCH, EpochTime, parse_utc
from reconciler.inspection.events import MAX_EVENTS, event_resource, summaries
from tests.unit.controller.build import NAMES

OURS: dict[str, object] = {
    "source": {"component": "token-reconciler"},
    "type": "Warning",
    "reason": "RefreshFailed",
}
FIRST, LAST = "2026-01-01T00:00:00Z", "2026-01-01T00:05:00.000000Z"
OLD_STYLE = OURS | {"count": 3, "firstTimestamp": FIRST, "lastTimestamp": LAST}
NEW_STYLE: dict[str, object] = {
    "type": "Normal",
    "reportingComponent": "token-reconciler",
    "reason": "Recovered",
    "eventTime": FIRST,
    "firstTimestamp": None,
    "lastTimestamp": None,
    "source": {},
    "series": {"count": 3, "lastObservedTime": LAST},
}


def read(*events: dict[str, object]) -> list[tuple[str, int, EpochTime, EpochTime]]:
    decode = event_resource().decode
    raws = [decode(msgspec.json.encode(event)) for event in events]
    return [(each.reason, each.count, each.first_s, each.last_s) for each in summaries(raws, NAMES)]


@pytest.mark.parametrize("event", [OLD_STYLE, NEW_STYLE], ids=["old", "new"])
def test_counts_and_times_are_found_in_either_style(event: dict[str, object]) -> None:
    assert read(event) == [(event["reason"], 3, parse_utc(FIRST), parse_utc(LAST))]


def test_a_bare_event_happened_once_when_it_was_made() -> None:
    bare = OURS | {"metadata": {"creationTimestamp": FIRST}}
    assert read(bare) == [("RefreshFailed", 1, parse_utc(FIRST), parse_utc(FIRST))]


def test_times_that_are_garbage_cost_only_themselves() -> None:
    assert read(OURS | {"lastTimestamp": "yesterday"}) == [("RefreshFailed", 1, EPOCH, EPOCH)]


def test_events_of_others_are_left_out() -> None:
    assert read({"source": {"component": "kubelet"}, "reason": "Pulled"}, {"reason": "x"}) == []


def test_the_latest_come_first_and_not_too_many() -> None:
    events = [
        OURS | {"count": n, "lastTimestamp": f"2026-01-01T00:00:{n:02}Z"} for n in range(1, 9)
    ]
    assert [count for _, count, _, _ in read(*events)] == [8, 7, 6, 5, 4]
    assert MAX_EVENTS == 5
