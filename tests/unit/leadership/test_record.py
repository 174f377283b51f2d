"""The Lease's bytes to a record and back: tolerant in, client-go's form out."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from reconciler.clock import EpochTime
from reconciler.errors import ProtocolError
from reconciler.leadership.lease import (
    MOST_TRANSITIONS,
    LeaseRecord,
    holder_spec,
    is_same_write,
    lease_resource,
    new_lease,
    patch_of,
    read,
    released_spec,
)

WALL_S = EpochTime(1_767_225_600.25)
NOW = "2026-01-01T00:00:00.250000Z"
LEASE = lease_resource()


def decoded(spec: Any) -> LeaseRecord:
    body = {"metadata": {"uid": "u", "resourceVersion": "7", "name": "l"}, "spec": spec}
    return read(LEASE.decode(msgspec.json.encode(body)))


def record(**fields: Any) -> LeaseRecord:
    whole: dict[str, Any] = {
        "uid": "u",
        "version": "7",
        "holder": "",
        "duration_s": 0,
        "acquired": "",
        "transitions": 0,
    }
    return LeaseRecord(**(whole | fields))


FULL = {
    "holderIdentity": "a",
    "leaseDurationSeconds": 15,
    "acquireTime": "2026-01-01T00:00:00.123456Z",
    "renewTime": "2026-01-01T00:00:02.000000Z",
    "leaseTransitions": 3,
}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (
            FULL,
            record(
                holder="a", duration_s=15, acquired=FULL["acquireTime"], transitions=3,
                renewed=FULL["renewTime"],
            ),
        ),
        (None, record()),
        ({}, record()),
        (dict.fromkeys(FULL), record()),
        ({"holderIdentity": ""}, record()),
        ({"holderIdentity": "a"}, record(holder="a")),
        ({"acquireTime": "2026-01-01T00:00:00Z"}, record(acquired="2026-01-01T00:00:00Z")),
        ({"acquireTime": "yesterday"}, record(acquired="yesterday")),
        ({"leaseDurationSeconds": -5, "leaseTransitions": -1}, record()),
        ({"leaseDurationSeconds": 2**31 - 1}, record(duration_s=2**31 - 1)),
        ({"leaseTransitions": 2**31 - 1}, record(transitions=MOST_TRANSITIONS)),
        ({"preferredHolder": "b", "strategy": "OldestEmulationVersion"}, record()),
    ],
    ids=[
        "full", "no spec", "empty spec", "nulls", "no holder", "holder alone",
        "time without digits", "garbage time", "negative", "longest duration", "most transitions",
        "fields of others",
    ],
)  # fmt: skip
def test_a_lease_is_read_with_any_field_missing(spec: Any, wanted: LeaseRecord) -> None:
    assert decoded(spec) == wanted


@pytest.mark.parametrize(
    "spec", [[], "x", {"holderIdentity": 1}, {"leaseDurationSeconds": "15"}, {"acquireTime": 5}]
)
def test_what_no_api_server_sends_is_a_wire_error(spec: Any) -> None:
    with pytest.raises(ProtocolError):
        decoded(spec)


def test_a_lease_that_cannot_be_read_is_not_taken_for_an_absent_one() -> None:
    good = {"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": FULL}
    odd = {"metadata": {"uid": "u", "resourceVersion": "8"}, "spec": {"holderIdentity": 1}}
    body = {"metadata": {"resourceVersion": "9"}, "items": [good, odd]}
    page = LEASE.decode_page(msgspec.json.encode(body))
    assert (len(page.items), page.skipped) == (1, 1)


@pytest.mark.parametrize(
    ("spec", "released"),
    [
        ({"holderIdentity": "", "leaseDurationSeconds": 1}, True),
        ({"holderIdentity": None, "leaseDurationSeconds": 1}, True),
        ({"holderIdentity": "", "leaseDurationSeconds": 15}, False),
        ({"holderIdentity": "a", "leaseDurationSeconds": 1}, False),
        ({}, False),
    ],
    ids=["by client-go", "null holder", "emptied by hand", "held", "nothing in it"],
)
def test_released_is_what_a_holder_writes_itself(spec: Any, released: bool) -> None:
    assert decoded(spec).released is released


def test_the_holders_spec_is_client_gos_record() -> None:
    assert holder_spec(None, "me", lease_s=15, transitions=0, wall_s=WALL_S) == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": NOW,
        "renewTime": NOW,
        "leaseTransitions": 0,
    }


def test_a_renewal_keeps_the_time_of_acquisition_and_a_takeover_does_not() -> None:
    held = record(holder="me", duration_s=15, acquired="2025-12-31T00:00:00.000000Z", transitions=4)
    renewed = holder_spec(held, "me", lease_s=15, transitions=4, wall_s=WALL_S)
    assert (renewed["acquireTime"], renewed["renewTime"]) == (held.acquired, NOW)
    assert (
        holder_spec(held, "other", lease_s=15, transitions=5, wall_s=WALL_S)["acquireTime"] == NOW
    )


def test_a_renewal_is_marked_though_the_clock_shows_the_time_of_the_former_one() -> None:
    held = record(holder="me", duration_s=15, renewed=NOW)
    spec = holder_spec(held, "me", lease_s=15, transitions=4, wall_s=WALL_S)
    assert spec["renewTime"] > NOW


@pytest.mark.parametrize(
    ("changed", "is_same"),
    [
        ({"version": "8"}, True),
        ({"version": "8", "renewed": "2026-01-01T00:00:01.000000Z"}, False),
        ({"version": "8", "written": "2026-01-01T00:00:02Z"}, False),
        ({"version": "8", "holder": "other"}, False),
        ({"version": "8", "duration_s": 40}, False),
        ({"version": "8", "transitions": 5}, False),
        ({"version": "8", "uid": "another"}, False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_another_version_shows_the_same_write_if_nothing_of_the_record_changed(
    changed: dict[str, Any], is_same: bool
) -> None:
    written = "2026-01-01T00:00:00Z"
    former = record(holder="other-0", duration_s=15, renewed=NOW, written=written, transitions=4)
    assert is_same_write(former, replace(former, **changed)) is is_same


def test_each_version_without_a_time_counts_as_a_write() -> None:
    former = record(holder="other", duration_s=15)
    assert not is_same_write(former, replace(former, version="8"))


def test_a_renewal_mends_a_time_of_acquisition_that_is_missing() -> None:
    held = record(holder="me", duration_s=15)
    assert holder_spec(held, "me", lease_s=15, transitions=4, wall_s=WALL_S)["acquireTime"] == NOW


@pytest.mark.parametrize(
    "spec",
    [
        holder_spec(None, "me", lease_s=15, transitions=7, wall_s=WALL_S),
        released_spec(transitions=7, wall_s=WALL_S),
    ],
    ids=["claim", "release"],
)
def test_what_is_written_reads_back(spec: dict[str, Any]) -> None:
    found = decoded(spec)
    assert found.holder == spec["holderIdentity"]
    assert found.duration_s == spec["leaseDurationSeconds"]
    assert found.acquired == NOW
    assert found.transitions == 7
    assert found.released is (found.holder == "")


def test_whole_seconds_are_written_with_six_digits() -> None:
    spec = holder_spec(None, "me", lease_s=15, transitions=0, wall_s=EpochTime(1_767_225_600))
    assert spec["renewTime"] == "2026-01-01T00:00:00.000000Z"


def test_a_patch_holds_its_preconditions_and_a_new_lease_its_name() -> None:
    spec = {"holderIdentity": "me"}
    assert patch_of(record(), spec, {}) == {
        "metadata": {"uid": "u", "resourceVersion": "7"},
        "spec": spec,
    }
    assert patch_of(record(), spec, {"shard": "0/3"})["metadata"] == {
        "uid": "u", "resourceVersion": "7", "annotations": {"shard": "0/3"},
    }  # fmt: skip
    annotated = new_lease("l", spec, {"shard": "0/3"})
    assert annotated["metadata"] == {"name": "l", "annotations": {"shard": "0/3"}}
    assert new_lease("l", spec, {}) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "l"},
        "spec": spec,
    }


@pytest.mark.parametrize(
    ("fields", "age_s", "is_held"),
    [
        ({"renewed": NOW}, 15.0, True),
        ({"renewed": NOW}, 15.1, False),
        # The API server's time of the write counts, not the holder's clock.
        ({"renewed": "2020-01-01T00:00:00Z", "written": NOW}, 1.0, True),
        ({"renewed": NOW, "written": "2020-01-01T00:00:00Z"}, 1.0, False),
        ({"renewed": NOW, "holder": "", "duration_s": 1}, 0.5, False),
        ({"renewed": "yesterday"}, 1.0, False),
        ({}, 1.0, False),
    ],
    ids=["at the end", "past it", "server's time", "old write", "released", "garbage", "no time"],
)
def test_a_lease_is_held_until_its_duration_has_passed_since_the_last_renewal(
    fields: dict[str, Any], age_s: float, is_held: bool
) -> None:
    found = record(**({"holder": "a", "duration_s": 15} | fields))
    assert found.is_held(WALL_S + age_s) is is_held


def test_the_most_transitions_leave_room_for_one_more_in_32_bits() -> None:
    assert decoded({"leaseTransitions": 2**31 - 1}).transitions + 1 == 2**31 - 1
