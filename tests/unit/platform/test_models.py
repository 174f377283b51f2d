"""Bytes to models: lenient about one item, strict about the envelope."""

from dataclasses import FrozenInstanceError

import pytest

from reconciler.errors import ProtocolError
from reconciler.platform.models import PlatformPage, PlatformProject, PlatformSession, decode


def test_unknown_and_absent_fields_cost_nothing() -> None:
    session = decode(PlatformSession, b'{"id":"2aB","kind":"Session","prompt":"x","phase":null}')
    assert session == PlatformSession(id="2aB", project_id="", phase="", kube_namespace="")


def test_session_cannot_be_changed() -> None:
    session = PlatformSession(id="2aB")
    with pytest.raises(FrozenInstanceError):
        session.phase = "Running"  # type: ignore[misc]  # that it cannot is tested


@pytest.mark.parametrize(
    "item", ["{}", '{"id":""}', '{"id":null}', '{"id":7}', "null", '"text"', "[]", '{"phase":{}}']
)
def test_unreadable_item_is_skipped_and_counted_and_the_page_stands(item: str) -> None:
    body = '{"kind":"SessionList","page":1,"size":3,"total":9,"items":[{"id":"a"},%s,{"id":"b"}]}'
    page = decode(PlatformPage[PlatformSession], (body % item).encode())
    assert [session.id for session in page.readable] == ["a", "b"]
    assert (page.skipped, len(page.items), page.total) == (1, 3, 9)


def test_null_items_are_no_items() -> None:
    assert decode(PlatformPage[PlatformSession], b'{"total":0,"items":null}').items == []


@pytest.mark.parametrize(
    ("item", "names"),
    [
        ('{"id":"alpha","name":"alpha"}', ["alpha"]),
        ('{"name":"alpha"}', ["alpha"]),
        ('{"id":null,"name":"alpha"}', ["alpha"]),
        ('{"description":"neither"}', []),
    ],
)
def test_project_is_known_by_its_id_or_its_name(item: str, names: list[str]) -> None:
    page = decode(PlatformPage[PlatformProject], f'{{"total":1,"items":[{item}]}}'.encode())
    assert [project.id for project in page.readable] == names


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!DOCTYPE html><html></html>",
        b"[]",
        b"null",
        b"{}",
        b'{"total":1}',
        b'{"items":[]}',
        b'{"total":-1,"items":[]}',
        b'{"total":1,"items":{}}',
        b'{"kind":"Error","reason":"secret-looking-text"}',
        b'{"total":1,"items":[{"id":"\xff"}]}',
        b'{"total":1,"items":[',
    ],
)
def test_what_is_no_list_is_a_wire_error_that_quotes_nothing(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(PlatformPage[PlatformSession], body)
    assert str(caught.value) == f"{len(body)} bytes are no PlatformPage[PlatformSession]"
    assert caught.value.__context__ is None
