"""Chunks -> lines, however the bytes were cut."""

import time
import timeit
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.kube import lines
from reconciler.kube.lines import LineBuffer

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
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 10)
    buffer = LineBuffer()
    buffer.feed(b"12345")
    with pytest.raises(ValueError, match="longer"):
        buffer.feed(b"678901")


def test_the_cost_of_a_long_line_is_linear() -> None:
    """Sixteen times the length: quadratic cost would be 256 times, caches that overflow 30."""

    def cost_s(chunks: int) -> float:
        parts = [b"x" * 1024] * chunks + [b"\n"]
        return min(timeit.repeat(lambda: taken(*parts), timer=time.thread_time, number=1, repeat=5))

    assert cost_s(24_576) < 100 * cost_s(1_536)
