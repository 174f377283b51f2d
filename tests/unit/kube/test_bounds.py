"""What is kept of objects does not grow with what tenants write into them."""

import json
from typing import Any

import msgspec
import pytest

from reconciler.kube.api import ObjectMeta
from reconciler.kube.decoding import VALUE_CHARS, metadata_resource
from reconciler.naming import Names
from tests.memory import measured

NAMES = Names()
SECRETS = metadata_resource("secrets", NAMES)
HUGE = 250_000
"""Bytes of one value; the API server takes 256 KiB of annotations an object."""

PAGE = 20


def secret(number: int, annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"session-{number}-creds",
            "namespace": "team",
            "uid": f"u{number}",
            "resourceVersion": str(number + 1),
            "labels": {NAMES.session_id: str(number)},
            "annotations": annotations,
        }
    }


def page_of(first: int, annotations: dict[str, Any]) -> bytes:
    items = [secret(first + number, annotations) for number in range(PAGE)]
    return json.dumps({"metadata": {"resourceVersion": "9"}, "items": items}).encode()


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\U0001f511"], ids=["ascii", "2 bytes", "4"])
def test_what_is_kept_of_secrets_with_huge_values_is_as_much_as_of_small_ones(
    letter: str,
) -> None:
    names = NAMES.annotations()
    value = letter * (HUGE // len(names) // len(letter.encode()))
    kept: list[ObjectMeta] = []
    with measured() as memory:
        for first in range(0, 10 * PAGE, PAGE):
            page = SECRETS.decode_page(page_of(first, dict.fromkeys(names, value)))
            assert page.skipped == 0
            kept += page.items
    assert len(kept) == 10 * PAGE
    assert memory.kept < len(kept) * 4_000  # of 250 KB each
    for meta in kept:
        values = msgspec.structs.astuple(meta.annotations)
        assert None not in values
        assert max(map(len, values)) <= VALUE_CHARS


def test_decoding_a_page_of_huge_values_materialises_none_of_them() -> None:
    data = page_of(0, dict.fromkeys(NAMES.annotations(), "x" * (HUGE // 10)))
    with measured() as memory:
        page = SECRETS.decode_page(data)
    assert len(page.items) == PAGE
    assert memory.peak < len(data) / 10


def test_events_and_single_objects_are_bounded_alike() -> None:
    item = secret(1, {NAMES.requested_at: "x" * HUGE})
    line = json.dumps({"type": "MODIFIED", "object": item}).encode()
    with measured() as memory:
        event, one = SECRETS.decode_event(line), SECRETS.decode(json.dumps(item).encode())
    assert event.object is not None
    assert event.object.annotations == one.annotations
    assert memory.kept < 10_000


def test_a_digest_stands_for_its_value_and_for_no_other() -> None:
    def shown(value: str) -> str:
        data = json.dumps(secret(1, {NAMES.requested_at: value})).encode()
        return SECRETS.decode(data).annotations.requested_at or ""

    bound = "b" * VALUE_CHARS
    assert shown(bound) == bound
    assert shown(bound + "b").startswith("sha256:")
    assert shown(bound + "b") == shown(bound + "b")
    assert shown(bound + "b") != shown(bound + "c")


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\U0001f511"], ids=["ascii", "2 bytes", "4"])
@pytest.mark.parametrize("more", [0, 1], ids=["shown", "a digest"])
def test_the_same_is_kept_of_a_value_whatever_the_other_objects_of_its_page(
    letter: str, more: int
) -> None:
    value = letter * (VALUE_CHARS + more)
    item = secret(1, {NAMES.requested_at: value})
    alone = SECRETS.decode(json.dumps(item).encode())
    items = [item, secret(2, {NAMES.requested_at: "x" * HUGE})]
    page = SECRETS.decode_page(
        json.dumps({"metadata": {"resourceVersion": "9"}, "items": items}).encode()
    )
    assert page.items[0] == alone
    assert (alone.annotations.requested_at == value) is (more == 0)


@pytest.mark.parametrize("value", [5, ["x" * HUGE], {"a": "x" * HUGE}, True])
def test_a_value_that_is_no_text_makes_its_object_unreadable_and_no_other(value: Any) -> None:
    items = [secret(1, {NAMES.confirmation: value}), secret(2, {NAMES.confirmation: "fine"})]
    page = SECRETS.decode_page(
        json.dumps({"metadata": {"resourceVersion": "9"}, "items": items}).encode()
    )
    assert (len(page.items), page.skipped) == (1, 1)
    line = json.dumps({"type": "MODIFIED", "object": items[0]}).encode()
    assert SECRETS.decode_event(line).type == "SKIPPED"
