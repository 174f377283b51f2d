"""Chunks -> lines, however the bytes were cut."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.kube import watch
from reconciler.kube.watch import LineBuffer

PIECES = st.sampled_from([b"a", b"\n", b"\r", b" ", "\u0085".encode(), "\u2028".encode(), b"{}"])


def taken(*chunks: bytes) -> tuple[list[bytes], bool]:
    buffer = LineBuffer()
    found = []
    for chunk in chunks:
        buffer.feed(chunk)
        while (line := buffer.take()) is not None:
            found.append(line)
    return found, buffer.has_rest


@given(st.lists(PIECES).map(b"".join), st.lists(st.integers(0, 200)))
def test_any_chunking_gives_the_same_lines(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[a:b] for a, b in pairwise(edges)]
    *complete, rest = data.split(b"\n")
    assert taken(*chunks) == ([one for one in complete if one.strip()], bool(rest.strip()))


def test_only_a_newline_byte_ends_a_line() -> None:
    text = '{"a":"x\u0085y\u2028z\x0c\x1e"}'.encode()
    assert taken(text + b"\n") == ([text], False)


def test_a_line_longer_than_any_object_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_LINE_BYTES", 10)
    buffer = LineBuffer()
    buffer.feed(b"12345")
    with pytest.raises(ValueError, match="longer"):
        buffer.feed(b"678901")


class CountingBytes(bytearray):
    """A buffer that counts the bytes that each operation on it reads or writes.

    An in-place change costs the length of the addition; any other use costs the whole length.
    All buffers of this class count together.
    """

    operations: ClassVar[int] = 0

    def __iadd__(self, more: Any) -> Self:
        CountingBytes.operations += len(more)
        return super().__iadd__(more)

    def __add__(self, more: Any) -> "CountingBytes":
        CountingBytes.operations += len(self) + len(more)
        return CountingBytes(bytes(super().__add__(more)))

    def __bytes__(self) -> bytes:
        CountingBytes.operations += len(self)
        return bytes(memoryview(self))


def _counted(name: str) -> Callable[..., Any]:
    plain = getattr(bytearray, name)

    def count(self: CountingBytes, *args: Any) -> Any:
        CountingBytes.operations += len(self)
        return plain(self, *args)

    return count


for name in ("__contains__", "__getitem__", "count", "find", "index", "isspace", "partition"):
    setattr(CountingBytes, name, _counted(name))
for name in ("copy", "join", "replace", "rfind", "rpartition", "split", "splitlines", "strip"):
    setattr(CountingBytes, name, _counted(name))


def test_the_cost_of_a_long_line_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is appended once and copied once; a look at the whole line a chunk is 1,536."""
    chunk, chunks = b"x" * 1024, 3072
    monkeypatch.setattr(CountingBytes, "operations", 0)
    buffer = LineBuffer(CountingBytes())
    for _ in range(chunks):
        buffer.feed(chunk)
    buffer.feed(b"\n")
    assert buffer.take() == chunk * chunks
    assert len(chunk) * chunks <= CountingBytes.operations <= 3 * len(chunk) * chunks
