"""Standard error behind a thread: whoever logs never waits for whoever reads the log.

A pipe that no process reads (a container runtime that is stopped or being upgraded) is full after
64 KiB, and each write to it then blocks: without this, a log line would stop the event loop, the
election, the probes and the end of the process.
"""

import atexit
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

CAPACITY_BYTES = 4 * 1024 * 1024
"""What waits at most: a startup resync of ten thousand sessions writes 3 MiB. More is dropped."""

CHUNK_BYTES = 64 * 1024
"""Written at once; a pipe holds as much."""

GATHER_S = 0.01
"""After the first line others are waited for: a write for each would take the interpreter's lock
from the event loop as often. A process that is killed loses the lines of this time."""

CLOSE_S = 1.0
"""Longest wait, at the end, for what was not written yet."""


class StderrWriter(io.TextIOBase):
    """A text file whose `write` puts the text into a bounded queue and returns.

    A daemon thread, started by the first line, writes to the descriptor. What finds the queue full,
    or the descriptor broken, is dropped and counted. `write` may be called from any thread.

    Args:
        fd: Where the lines go; written to by nobody else.
        capacity_bytes: What waits at most, what is being written included.
    """

    def __init__(self, fd: int, *, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._fd = fd
        self._capacity = capacity_bytes
        # Reentrant: the garbage collector may run a finalizer that logs while the lock is held.
        self._lock = threading.RLock()
        self._items: deque[bytes] = deque()
        self._pending = 0
        self._wake = threading.Event()
        self._drained = threading.Event()
        self._drained.set()
        self._thread: threading.Thread | None = None
        self._is_broken = False
        self._reported = 0
        self.dropped_total = 0
        """Lines that were dropped since the start."""
        self.on_drained: Callable[[int], None] = lambda lines: None
        """Told in the thread, once the queue is empty again, how many lines were dropped."""

    def write(self, text: str) -> int:
        """Queue a text and return at once."""
        data = text.encode(errors="backslashreplace")
        with self._lock:
            if self._pending + len(data) > self._capacity:
                self.dropped_total += _lines(data)
                return len(text)
            self._items.append(data)
            self._pending += len(data)
            self._drained.clear()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
        if not self._wake.is_set():
            self._wake.set()
        return len(text)

    def flush(self) -> None:
        """Do nothing: nobody waits for the descriptor, but for `CLOSE_S` at the end."""

    def settle(self, limit_s: float = CLOSE_S) -> bool:
        """Wait until all is written, for `limit_s` at most; return whether it is."""
        return self._drained.wait(limit_s)

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute there
        return "utf-8"

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(GATHER_S)
            self._wake.clear()
            while data := self._take():
                self._deliver(data)
                with self._lock:
                    self._pending -= len(data)
                    if not self._items:
                        self._drained.set()
            self._report()

    def _take(self) -> bytes:
        """Return what comes next, several texts together, or nothing."""
        with self._lock:
            taken: list[bytes] = []
            size = 0
            while self._items and (not taken or size + len(self._items[0]) <= CHUNK_BYTES):
                size += len(self._items[0])
                taken.append(self._items.popleft())
        return b"".join(taken)

    def _deliver(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                self._wait_writable()
            except OSError:  # the reader is gone, a disk is full: there is no one to be told
                with self._lock:
                    self.dropped_total += _lines(rest)
                self._is_broken = True
                return
        self._is_broken = False

    def _wait_writable(self) -> None:
        """Wait for room: whoever made the descriptor may have made it non-blocking."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll()

    def _report(self) -> None:
        """Tell of dropped lines once there is room; where nothing arrives, that would not."""
        with self._lock:
            lines = self.dropped_total - self._reported
            if self._is_broken or self._items or not lines:
                return
            self._reported = self.dropped_total
        self.on_drained(lines)


def take_over_output(*, capacity_bytes: int = CAPACITY_BYTES) -> StderrWriter:
    """Put an outlet in the place of standard error, and of standard output, and return it.

    Tracebacks, warnings and whatever a library prints go through it as well. At the end of the
    process what waits is written for `CLOSE_S` at most.
    """
    # A process may be started with it closed.
    fd = sys.stderr.fileno() if sys.stderr is not None else os.open(os.devnull, os.O_WRONLY)
    outlet = StderrWriter(fd, capacity_bytes=capacity_bytes)
    atexit.register(outlet.settle)
    replacement: Any = outlet
    sys.stderr = sys.stdout = replacement
    return outlet


def _lines(data: bytes | memoryview) -> int:
    return max(1, bytes(data).count(b"\n"))
