"""Bytes -> partial objects: what is kept, what is never materialised, what is refused."""

import json
from typing import Any

import msgspec
import pytest

from reconciler.clock import EpochTime
from reconciler.errors import Gone, ProtocolError, ServerError
from reconciler.kube.api import Event, ObjectMeta, Page
from reconciler.kube.decoding import metadata_resource, resource, struct_decoder
from reconciler.naming import NO_ANNOTATIONS, Annotations, Names

NAMES = Names()
SECRETS = metadata_resource("secrets", NAMES)
MARKER = "m4rker-of-a-value"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def owner(manager: str, *keys: str) -> dict[str, Any]:
    return {"manager": manager, "fieldsV1": {"f:data": {f"f:{key}": {} for key in keys}}}


def full() -> dict[str, Any]:
    return {
        "metadata": {
            "name": "session-a-creds",
            "namespace": "team",
            "uid": "u1",
            "resourceVersion": "17",
            "creationTimestamp": "2026-01-31T12:00:00Z",
            "labels": {NAMES.session_id: "A", NAMES.project_id: "p", "other": MARKER},
            "annotations": {LAST_APPLIED: MARKER, NAMES.confirmation: "seal"},
            "managedFields": [
                owner("platform", "other"),
                owner("token-reconciler", "api-token"),
                {"manager": "kubectl", "fieldsV1": {"f:metadata": {MARKER: {}}}},
                owner("vault", "api-token", "other"),
                {"manager": "touched-nothing"},
            ],
        },
        "data": {"api-token": MARKER},
    }


def event(kind: str, item: Any) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode()


def test_a_secret_is_read_as_names_times_and_owners() -> None:
    assert SECRETS.decode(json.dumps(full()).encode()) == ObjectMeta(
        namespace="team",
        name="session-a-creds",
        uid="u1",
        version="17",
        session_id="A",
        project_id="p",
        created_s=EpochTime(1_769_860_800),
        is_deleting=False,
        annotations=Annotations(confirmation="seal"),
        field_managers=("token-reconciler", "vault"),
    )


def test_foreign_annotations_labels_and_data_are_never_materialised() -> None:
    one = json.dumps(full()).encode()
    page = {"metadata": {"resourceVersion": "9"}, "items": [full(), full()]}
    listed = SECRETS.decode_page(json.dumps(page).encode())
    for found in (SECRETS.decode(one), listed, SECRETS.decode_event(event("ADDED", full()))):
        assert MARKER not in repr(found)
        assert MARKER not in str(msgspec.to_builtins(found))


def test_a_value_in_the_data_is_passed_over_and_not_decoded() -> None:
    """A decoder that makes an object of this number refuses it as too large."""
    one = json.dumps(full() | {"data": {"api-token": 0}}).replace(
        '"api-token": 0', '"api-token": 1e999'
    )
    assert SECRETS.decode(one.encode()).name == "session-a-creds"
    page = SECRETS.decode_page(
        f'{{"metadata": {{"resourceVersion": "9"}}, "items": [{one}]}}'.encode()
    )
    assert (len(page.items), page.skipped) == (1, 0)


def test_null_and_absent_fields_are_the_same() -> None:
    bare = {"name": "a", "uid": "u", "resourceVersion": "1"}
    nulls = bare | dict.fromkeys(
        ["creationTimestamp", "deletionTimestamp", "labels", "annotations", "managedFields"]
    )
    owners = bare | {"managedFields": [{"manager": "m", "fieldsV1": None}]}
    inner = bare | {
        "labels": {NAMES.session_id: None},
        "annotations": {NAMES.paused: None},
        "managedFields": [{"manager": "m", "fieldsV1": {"f:data": None}}],
    }
    found = [
        SECRETS.decode(json.dumps({"metadata": m}).encode()) for m in (bare, nulls, owners, inner)
    ]
    assert (
        found
        == [ObjectMeta("", "a", "u", "1", "", "", EpochTime(0), False, NO_ANNOTATIONS, ())] * 4
    )


def test_an_empty_annotation_is_present() -> None:
    item = full()
    item["metadata"]["annotations"] = {NAMES.paused: ""}
    assert SECRETS.decode(json.dumps(item).encode()).annotations == Annotations(paused="")


def test_a_deletion_timestamp_says_deleting() -> None:
    item = full()
    item["metadata"]["deletionTimestamp"] = "2026-01-31T13:00:00Z"
    assert SECRETS.decode(json.dumps(item).encode()).is_deleting


@pytest.mark.parametrize("lacking", ["name", "uid", "resourceVersion"])
@pytest.mark.parametrize("value", [None, "", 5])
def test_an_object_with_no_identity_is_refused(lacking: str, value: object) -> None:
    item = full()
    item["metadata"][lacking] = value
    with pytest.raises(ProtocolError) as caught:
        SECRETS.decode(json.dumps(item).encode())
    assert MARKER not in f"{caught.value!r}{caught.value.__cause__}"


def test_one_bad_item_costs_itself_and_not_the_page() -> None:
    page = {
        "metadata": {"resourceVersion": "9", "continue": "c"},
        "items": [full(), {"metadata": {"name": 5}}, None, full()],
    }
    listed = SECRETS.decode_page(json.dumps(page).encode())
    assert (len(listed.items), listed.skipped) == (2, 2)
    assert (listed.version, listed.continue_token) == ("9", "c")


@pytest.mark.parametrize("items", [[], None])
def test_an_empty_list_is_an_empty_page(items: object) -> None:
    page = json.dumps({"metadata": {"resourceVersion": "9"}, "items": items}).encode()
    assert SECRETS.decode_page(page) == Page([], "9", "", 0, len(page))


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"null", b"<html>", b'{"metadata":{},"items":[]}', b'{"items":[]}',
     b'{"metadata":{"resourceVersion":""},"items":[]}', b'{"metadata":{"resourceVersion":"9"}}',
     b'{"metadata":{"resourceVersion":"9"},"items":{}}', b'{"metadata":{"resourceVersion":"\xff"}'],
)  # fmt: skip
def test_what_is_no_list_is_refused_and_never_an_empty_one(body: bytes) -> None:
    """An empty page would remove every object from the store."""
    with pytest.raises(ProtocolError):
        SECRETS.decode_page(body)


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED"])
def test_a_change_carries_object_and_version(kind: str) -> None:
    found = SECRETS.decode_event(event(kind, full()))
    assert (found.type, found.version) == (kind, "17")
    assert found.object == SECRETS.decode(json.dumps(full()).encode())


def test_a_bookmark_carries_its_version_alone() -> None:
    marked = {"metadata": {"resourceVersion": "20", "creationTimestamp": None}}
    assert SECRETS.decode_event(event("BOOKMARK", marked)) == Event("BOOKMARK", "20", None)


@pytest.mark.parametrize(
    ("kind", "item"),
    [("RENAMED", full()), ("ADDED", {"metadata": {"resourceVersion": "17"}}),
     ("ADDED", {"metadata": {"resourceVersion": "17", "name": 1, "uid": "u"}})],
)  # fmt: skip
def test_an_unreadable_event_with_a_version_is_skipped(kind: str, item: object) -> None:
    assert SECRETS.decode_event(event(kind, item)) == Event("SKIPPED", "17", None)


@pytest.mark.parametrize("kind", ["ADDED", "BOOKMARK", "RENAMED"])
@pytest.mark.parametrize("version", [None, "", 7])
def test_an_event_without_a_version_is_refused(kind: str, version: object) -> None:
    metadata = {"name": "a", "uid": "u"} | ({"resourceVersion": version} if version != 7 else {})
    with pytest.raises(ProtocolError):
        SECRETS.decode_event(event(kind, {"metadata": metadata}))


@pytest.mark.parametrize(
    "line",
    [b"", b"null", b"[]", b"half", b'{"type":"ADDED"}', b'{"object":{}}',
     b'{"type":"ADDED","object":null}', b'{"type":1,"object":{}}', event("ERROR", {"code": "x"}),
     b'{"type":"ADDED","object":{"metadata":{"resourceVersion":"\xff"}}}'],
)  # fmt: skip
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        SECRETS.decode_event(line)


def test_an_error_event_is_raised_as_its_class() -> None:
    with pytest.raises(Gone):
        SECRETS.decode_event(event("ERROR", {"code": 410, "reason": "Expired"}))
    with pytest.raises(ServerError):
        SECRETS.decode_event(event("ERROR", {"message": "etcdserver: leader changed"}))


class Lease(msgspec.Struct):
    spec: dict[str, int]


def test_another_kind_needs_a_struct_alone() -> None:
    leases = resource(
        "leases",
        group="coordination.k8s.io",
        version="v1",
        partial=False,
        decode=struct_decoder(Lease),
    )
    body = b'{"metadata":{"resourceVersion":"3"},"spec":{"a":1}}'
    assert leases.decode(body) == Lease({"a": 1})
    found = leases.decode_event(b'{"type":"ADDED","object":' + body + b"}")
    assert found == Event("ADDED", "3", Lease({"a": 1}))
    with pytest.raises(ProtocolError, match="Lease"):
        leases.decode(b'{"spec":' + b'"x"}')
