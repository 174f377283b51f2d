"""Bytes that no API server sends: still one of our errors, and no error holds on to the bytes."""

import pytest

from reconciler.errors import KubeError, ProtocolError
from reconciler.kube.api import ApiResource, ObjectMeta
from reconciler.kube.decoding import metadata_resource
from reconciler.kube.status_errors import from_response
from reconciler.naming import Names
from reconciler.net.http_dates import MAX_RETRY_AFTER_S

SECRETS = metadata_resource("secrets", Names())
MARKER = b"m4rker-of-a-value"
DEEP = b"[" * 100_000 + b"]" * 100_000
OBJECT = b'{"metadata":{"name":"a","uid":"u","resourceVersion":"1"},"extra":%s}'

HOSTILE = {
    "nested too deeply": OBJECT % DEEP,
    "nested too deeply from the start": DEEP,
    "not UTF-8": OBJECT.replace(b'"a"', b'"%s\xff"' % MARKER) % b"1",
    "cut off": (OBJECT % (b'"%s"' % MARKER))[:-3],
    "of another shape": b'["%s"]' % MARKER,
}


def read(resource: ApiResource[ObjectMeta], form: str, data: bytes) -> object:
    match form:
        case "object":
            return resource.decode(data)
        case "page":
            return resource.decode_page(data)
        case "event":
            return resource.decode_event(data)
        case _:
            return resource.decode_event(b'{"type":"ERROR","object":%s}' % data)


def chain(error: BaseException) -> str:
    """Show an error and everything that it was raised from or during."""
    shown = []
    link: BaseException | None = error
    while link is not None:
        shown.append(f"{link!r} {link} {vars(link)}")
        link = link.__cause__ or link.__context__
    return "\n".join(shown)


@pytest.mark.parametrize("form", ["object", "page", "event", "error event"])
@pytest.mark.parametrize("case", HOSTILE)
def test_no_bytes_raise_anything_but_our_errors_or_stay_in_them(case: str, form: str) -> None:
    with pytest.raises((ProtocolError, KubeError)) as caught:
        read(SECRETS, form, HOSTILE[case])
    assert MARKER.decode() not in chain(caught.value)


@pytest.mark.parametrize("form", ["page", "event"])
def test_one_unreadable_object_keeps_nothing_of_itself_in_what_is_returned(form: str) -> None:
    item = HOSTILE["not UTF-8"]
    whole = {
        "page": b'{"metadata":{"resourceVersion":"9"},"items":[%s]}' % item,
        "event": b'{"type":"ADDED","object":%s}' % item,
    }
    assert MARKER.decode() not in repr(read(SECRETS, form, whole[form]))


@pytest.mark.parametrize("wish", [b"9" * 400, b"301", b"9999999999999999999999"])
def test_no_wish_for_patience_is_too_long_to_be_understood(wish: bytes) -> None:
    body = b'{"details":{"retryAfterSeconds":%s}}' % wish
    assert from_response(503, body, what="list").retry_after_s == MAX_RETRY_AFTER_S


def test_a_refusal_nested_too_deeply_still_has_its_class() -> None:
    assert from_response(503, DEEP, what="list").status == 503
