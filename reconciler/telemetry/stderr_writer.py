"""A thread that writes to standard error: a log line never waits for the reader of the log.

A pipe that no process reads (a container runtime that is stopped or being upgraded) is full after
64 KiB, and each write to it then blocks. Without this thread a log line would block the event loop,
the election, the probes and the end of the process.
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

import structlog

log = structlog.get_logger()

CAPACITY_BYTES = 4 * 1024 * 1024
"""Most bytes that wait; more is dropped. A startup resync of ten thousand sessions writes 3 MiB."""

CHUNK_BYTES = 64 * 1024
"""Most bytes of one write; a pipe holds as much."""

GATHER_S = 0.01
"""Wait after the first line for further ones: a write for each line would take the interpreter's
lock from the event loop each time. A process that is killed loses the lines of this time."""

CLOSE_S = 1.0
"""Longest wait, at the end of the process, for lines that were not written yet."""


def _warn_of_dropped(lines: int) -> None:
    log.warning("log_lines_dropped", lines=lines, reason="no process read the log in time")


class StderrWriter(io.TextIOBase):
    """A text file; `write` puts the text into a bounded queue and returns.

    A daemon thread, started by the first line, writes to the descriptor. Lines are dropped and
    counted where the queue is full or the descriptor is broken. `write` may be called from any
    thread.

    Args:
        fd: The descriptor; no other part of the process writes to it.
        capacity_bytes: Most bytes that wait, those of the write in progress included.
        on_drained: Called in the thread with the number of dropped lines, once the queue is empty
            again; it logs them.
    """

    def __init__(
        self,
        fd: int,
        *,
        capacity_bytes: int = CAPACITY_BYTES,
        on_drained: Callable[[int], None] = _warn_of_dropped,
    ) -> None:
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
        self._on_drained = on_drained

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
        """Do nothing: no caller waits for the descriptor, except for `CLOSE_S` at the end."""

    def settle(self, limit_s: float = CLOSE_S) -> bool:
        """Wait until all is written, for `limit_s` at most; return whether all is written."""
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
        """Return the next texts, `CHUNK_BYTES` at most together, or b"" for none."""
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
            except OSError:  # the reader is gone, or a disk is full: no place is left to report it
                with self._lock:
                    self.dropped_total += _lines(rest)
                self._is_broken = True
                return
        self._is_broken = False

    def _wait_writable(self) -> None:
        """Wait for room: the parent process may have made the descriptor non-blocking."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll()

    def _report(self) -> None:
        """Report dropped lines once the queue is empty and the descriptor works."""
        with self._lock:
            lines = self.dropped_total - self._reported
            if self._is_broken or self._items or not lines:
                return
            self._reported = self.dropped_total
        self._on_drained(lines)


def redirect_output(*, capacity_bytes: int = CAPACITY_BYTES) -> StderrWriter:
    """Replace standard error and standard output by a `StderrWriter`, and return it.

    Tracebacks, warnings and the output of libraries go through it as well. At the end of the
    process waiting lines are written for `CLOSE_S` at most.
    """
    # A process may be started with it closed.
    fd = sys.stderr.fileno() if sys.stderr is not None else os.open(os.devnull, os.O_WRONLY)
    writer = StderrWriter(fd, capacity_bytes=capacity_bytes)
    atexit.register(writer.settle)
    replacement: Any = writer
    sys.stderr = sys.stdout = replacement
    return writer


def _lines(data: bytes | memoryview) -> int:
    return max(1, bytes(data).count(b"\n"))
