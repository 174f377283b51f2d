"""The last bytes of what a child process writes to a pipe, for which nobody waits."""

import asyncio
import os
from typing import Self

TAIL_BYTES = 4096
"""How much is kept."""

_PIPE_BYTES = 65536
"""What a pipe holds on Linux: one read takes all that was written before a process ended."""


class PipeTail:
    """A pipe that is drained as it fills, so that no writer waits; its last bytes are kept.

    Nobody waits for its end: a process that the child leaves behind may hold it open.
    """

    def __init__(self) -> None:
        self.is_cut = False
        self._tail = b""

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

    def tail(self) -> bytes:
        """Return the last of what was written until now."""
        self._drain()
        return self._tail

    def _drain(self) -> None:
        """Read once: as much as a pipe holds, whoever writes on."""
        try:
            found = os.read(self._reader, _PIPE_BYTES)
        except BlockingIOError:
            return
        if not found:  # the end, which would be ready without end
            self._loop.remove_reader(self._reader)
        whole = self._tail + found
        self.is_cut = self.is_cut or len(whole) > TAIL_BYTES
        self._tail = whole[-TAIL_BYTES:]
