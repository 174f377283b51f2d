"""A child's pipe: what is kept of it, and that its end costs nothing."""

import asyncio
import os

import pytest

from reconciler.kube.auth.child_processes import ChildPipe

read = os.read


@pytest.mark.parametrize(
    ("last", "kept", "is_full"), [(True, b"89", False), (False, b"01", True)], ids=["last", "first"]
)
async def test_so_much_is_kept_as_was_asked_for(last: bool, kept: bytes, is_full: bool) -> None:
    with ChildPipe(2, last=last) as pipe:
        os.write(pipe.writer, b"0123456789")
        assert pipe.kept() == kept
        assert (pipe.is_cut, pipe.is_full.is_set()) == (True, is_full)


async def test_what_fits_is_kept_whole_though_no_process_closes_the_pipe() -> None:
    with ChildPipe(4) as pipe:
        os.write(pipe.writer, b"01")
        os.write(pipe.writer, b"23")
        assert pipe.kept() == b"0123"
        assert (pipe.is_cut, pipe.is_full.is_set()) == (False, False)


@pytest.mark.parametrize("text", [b"", b"text"])
async def test_its_end_is_read_once(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    def counted(reader: int, size: int) -> bytes:
        reads.append(size)
        return read(reader, size)

    with ChildPipe(8) as pipe:
        monkeypatch.setattr(os, "read", counted)
        os.write(pipe.writer, text)
        pipe.close_writer()
        for _ in range(100):
            await asyncio.sleep(0)
        monkeypatch.undo()
        assert len(reads) == (2 if text else 1)
        assert pipe.kept() == text
