"""What a child process writes to a pipe, up to a bound; nobody waits for the pipe's end."""

import asyncio
import os
from typing import Self

_READ_BYTES = 65536


class ChildPipe:
    """A pipe that is drained as it fills, so that no writer waits.

    Its end says nothing: a process that the child leaves behind holds it open, and below uvloop a
    child inherits the writing ends twice. What the child wrote is in the pipe when it has ended.

    Args:
        keep_bytes: How much is kept.
        last: Keep the last of it and read on; else the first, and `is_full` is set beyond.
    """

    def __init__(self, keep_bytes: int, *, last: bool = False) -> None:
        self.is_full = asyncio.Event()
        self.is_cut = False
        self._keep_bytes = keep_bytes
        self._last = last
        self._kept = b""

    def __enter__(self) -> Self:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader, self._drain)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        self.close_writer()

    def close_writer(self) -> None:
        """Close our own copy of the writing end."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def kept(self) -> bytes:
        """Return what is kept of all that was written until now."""
        # More than a pipe holds, and less than a writer without end would keep us busy with.
        for _ in range(32):
            if not self._drain():
                break
        return self._kept

    def _drain(self) -> bool:
        """Read once; return whether there may be more."""
        try:
            found = os.read(self._reader, _READ_BYTES)
        except BlockingIOError:
            return False
        whole = self._kept + found
        if len(whole) > self._keep_bytes:
            self.is_cut = True
            whole = whole[-self._keep_bytes :] if self._last else whole[: self._keep_bytes]
        self._kept = whole
        is_over = not found or (self.is_cut and not self._last)
        if is_over:  # the end, too, would be ready to be read without end
            self._loop.remove_reader(self._reader)
        if self.is_cut and not self._last:
            self.is_full.set()
        return not is_over
