"""The protobuf bodies of kubectl that the lab reads; real ones are in tests/lab."""

import pytest

from reconciler.lab.apiserver.protobuf import decode
from reconciler.lab.apiserver.status_errors import StatusError


def part(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2, len(value)]) + value


def body(kind: bytes, raw: bytes, version: bytes = b"v1") -> bytes:
    return b"k8s\0" + part(1, part(1, version) + part(2, kind)) + part(2, raw)


METADATA = part(1, part(1, b"creds") + part(8, b"") + part(11, part(1, b"a") + part(2, b"")))


def test_a_secret_is_read_with_its_labels_and_bytes() -> None:
    data = part(2, part(1, b"key") + part(2, b"\xff")) + part(2, part(1, b"b") + part(2, b"b"))
    assert decode(body(b"Secret", METADATA + data + part(3, b"Opaque"))) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "creds", "labels": {"a": ""}},
        "data": {"key": "/w==", "b": "Yg=="},
        "type": "Opaque",
    }


FINALIZERS = part(1, part(14, b"example.com/x"))
SECRET = body(b"Secret", METADATA)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (body(b"Pod", METADATA), 415),
        (body(b"Secret", FINALIZERS), 400),
        (body(b"Secret", part(1, part(1, b"\xff"))), 400),
        (body(b"Secret", bytes([1 << 3, 5])), 400),
        (body(b"Secret", bytes([1 << 3 | 5, 0, 0, 0, 0])), 400),
        (body(b"Secret", b"\xff" * 11), 400),
        (b"k8s\0" + bytes([2 << 3, 5]), 400),
        (b"{}", 400),
        (SECRET[:-1], 400),
        (b"k8s\0", 415),
    ],
)
def test_what_is_not_in_the_tables_is_refused(data: bytes, code: int) -> None:
    with pytest.raises(StatusError) as caught:
        decode(data)
    assert caught.value.code == code
