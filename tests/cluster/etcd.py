"""Calls of etcd's gRPC API that put the store into a state: compacted, or out of space.

Messages are encoded here, field by field. Source: etcd's `api/etcdserverpb/rpc.proto`.
"""

import grpc

LIMIT_S = 10.0

_DEACTIVATE, _ACTIVATE = 2, 1
_NOSPACE = 1


def compact(url: str, revision: int) -> None:
    """Delete the history before `revision`; a watch or a list from before it gets a 410."""
    _call(url, "KV/Compact", {1: revision, 2: 1})


def set_no_space(url: str, *, on: bool) -> None:
    """Raise the alarm of a store whose quota is used up, or clear it; with it no write succeeds."""
    _call(url, "Maintenance/Alarm", {1: _ACTIVATE if on else _DEACTIVATE, 3: _NOSPACE})


def _call(url: str, method: str, fields: dict[int, int]) -> None:
    request = b"".join(_varint(number << 3) + _varint(value) for number, value in fields.items())
    with grpc.insecure_channel(url) as channel:
        channel.unary_unary(f"/etcdserverpb.{method}")(request, timeout=LIMIT_S)


def _varint(value: int) -> bytes:
    """Encode an integer.

    >>> _varint(300)
    b'\\xac\\x02'
    """
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
