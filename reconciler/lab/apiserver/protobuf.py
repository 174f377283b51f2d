"""Decodes the protobuf bodies of `kubectl auth can-i` and `kubectl create`.

For built-in types kubectl has no other form, and accepts JSON as the answer. A kind or a field that
is not in the tables below is refused, not left out.

Source: apimachinery, runtime/serializer/protobuf: `k8s`, a zero byte, and a runtime.Unknown. The
numbers are those of generated.proto in k8s.io/api and k8s.io/apimachinery.
"""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reconciler.lab.apiserver import status_errors

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\0"
_VARINT_BITS = 64

Read = Callable[[Any], Any]
"""Takes bytes, or a number; raises TypeError or AttributeError for the other one."""

Message = Mapping[int, tuple[str, Read]]
"""Number -> JSON name and how the value is read."""


def decode(data: bytes) -> dict[str, Any]:
    """Return the object of a body as its JSON form; raises `StatusError` 400 and 415."""
    if not data.startswith(_MAGIC):
        raise status_errors.bad_request("the body of the request is not Kubernetes protobuf")
    envelope = _decode(data.removeprefix(_MAGIC), _UNKNOWN)
    names = envelope.get("typeMeta", {})
    message = _KINDS.get((names.get("apiVersion", ""), names.get("kind", "")))
    if message is None:
        raise status_errors.unsupported_media_type(["application/json"])
    return {**names, **_decode(envelope.get("raw", b""), message)}


def _decode(data: bytes, message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in _fields(data):
        if not value:
            continue  # Go writes fields without a value, too
        if number not in message:
            raise status_errors.bad_request(f"the lab does not decode field {number} of protobuf")
        name, read = message[number]
        try:
            one = read(value)
        except (AttributeError, TypeError, UnicodeDecodeError):
            raise _not_protobuf() from None
        if isinstance(one, dict):  # each entry of a map is a field
            one = found.get(name, {}) | one
        if one != {}:
            found[name] = one
    return found


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield number and value of each field; these messages have numbers and bytes alone."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _varint(data, at)
        match tag & 7:
            case 0:
                yield tag >> 3, value
            case 2 if at + value <= len(data):
                yield tag >> 3, data[at : at + value]
                at += value
            case _:
                raise _not_protobuf()


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and the place after it."""
    number = 0
    for shift in range(0, _VARINT_BITS, 7):
        if at >= len(data):
            break
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number, at
    raise _not_protobuf()


def _not_protobuf() -> Exception:
    return status_errors.bad_request("the body of the request is not protobuf of that type")


def _text(value: Any) -> str:
    return str(value.decode())


def _base64(value: Any) -> str:
    return b64encode(value).decode()


def _raw(value: Any) -> bytes:
    return bytes(memoryview(value))  # bytes(8) would be eight zeros


def _message(message: Message) -> Read:
    return lambda value: _decode(value, message)


def _map(read: Read) -> Read:
    def entry(value: Any) -> dict[str, Any]:
        pair = dict(_fields(value))
        return {_text(pair.get(1, b"")): read(pair.get(2, b""))}

    return entry


_UNKNOWN: Message = {
    1: ("typeMeta", _message({1: ("apiVersion", _text), 2: ("kind", _text)})),
    2: ("raw", _raw),
}
_METADATA = _message(
    {
        1: ("name", _text),
        2: ("generateName", _text),
        3: ("namespace", _text),
        11: ("labels", _map(_text)),
        12: ("annotations", _map(_text)),
    }
)
_RESOURCE = (
    "namespace", "verb", "group", "version", "resource", "subresource", "name"
)  # fmt: skip
_ACCESS = {
    1: (
        "resourceAttributes",
        _message({number: (name, _text) for number, name in enumerate(_RESOURCE, 1)}),
    ),
    2: ("nonResourceAttributes", _message({1: ("path", _text), 2: ("verb", _text)})),
}
_EMPTY = _message({})
"""A part without any value, which Go writes nevertheless."""

_KINDS: Mapping[tuple[str, str], Message] = {
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): {
        1: ("metadata", _METADATA),
        2: ("spec", _message(_ACCESS)),
        3: ("status", _EMPTY),
    },
    ("v1", "Namespace"): {
        1: ("metadata", _METADATA),
        2: ("spec", _EMPTY),
        3: ("status", _EMPTY),
    },
    ("v1", "Secret"): {
        1: ("metadata", _METADATA),
        2: ("data", _map(_base64)),
        3: ("type", _text),
        4: ("stringData", _map(_text)),
        5: ("immutable", bool),
    },
    ("v1", "ServiceAccount"): {1: ("metadata", _METADATA)},
}
