"""Child processes of an exec plug-in: what they print, and those that outlive it."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Self

_READ_BYTES = 65536

LOOK_S = 30.0
"""Between two passes. Our own children are waited for within milliseconds of their end, so that a
zombie that two passes find is an orphan."""

_PROC = Path("/proc")


class ChildPipe:
    """A pipe that is read as it fills, up to a bound, so that no writer waits.

    The end of the pipe does not mark the end of the child: a process that the child has started may
    keep it open, and with uvloop a child inherits the writing ends twice. When the child has ended,
    all that it wrote is in the pipe.

    Args:
        keep_bytes: Most bytes that are kept.
        last: Keep the last bytes and continue to read; otherwise keep the first ones, and set
            `is_full` when there are more.
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
        """Return the kept bytes of all that was written until now."""
        # 32 reads are more than a pipe holds; a writer without end must not block us.
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
        if is_over:  # otherwise the event loop would report the end as readable again and again
            self._loop.remove_reader(self._reader)
        if self.is_cut and not self._last:
            self.is_full.set()
        return not is_over


class OrphanReaper:
    """Waits for processes that an exec plug-in left behind.

    Process 1 becomes their parent, and must wait for them, or they stay as zombies.
    """

    def __init__(self) -> None:
        self._before: set[int] = set()

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.reap_once()

    def reap_once(self) -> int:
        """Wait for each zombie that the last pass found, too; return how many there were."""
        now = _zombies()
        stale = now & self._before
        for pid in stale:
            with suppress(ChildProcessError):  # waited for in this instant
                os.waitpid(pid, 0)
        self._before = now - stale
        return len(stale)


def _zombies() -> set[int]:
    """Return the process IDs of our children that have ended.

    Source: proc_pid_stat(5): the state and the parent follow the last parenthesis.
    """
    found: set[int] = set()
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):  # ended and waited for in this instant
            state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            if state == "Z" and int(parent) == os.getpid():
                found.add(int(entry.name))
    return found
