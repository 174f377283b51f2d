"""Orphaned child processes: process 1 must wait for them, or they stay as zombies."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

LOOK_S = 30.0
"""Between two passes. Our own children are waited for within milliseconds of their end, so that a
zombie that two passes find is an orphan."""

_PROC = Path("/proc")


class OrphanReaper:
    """Waits for child processes that an exec plug-in left behind."""

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
