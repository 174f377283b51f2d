"""A thread that sends what it is given: whoever gives never waits, and what is too much is counted.

A collector that is away, slow or mad costs this thread's time and the queue's bounded memory.
"""

import math
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog

T = TypeVar("T")

log = structlog.get_logger()

AGAIN_S = 600.0
"""What stays undelivered is said again after this long."""

PAUSE_S = 60.0
"""Shortest time between two lines of loss: to take every other batch is one fault."""

FULL = "the queue is full: the collector is slower than what it is sent"


@dataclass(frozen=True, slots=True)
class ExporterStats:
    """Items since the start, and those that wait now."""

    sent: int
    failed: int
    dropped: int
    queued: int


class Send(Protocol[T]):
    """Delivers batches, in the exporter's thread."""

    @property
    def problem(self) -> str:
        """Why the last batch did not arrive, fit for the log; "" = unknown."""
        ...

    def __call__(self, batch: list[T]) -> bool:
        """Deliver a batch and return whether it arrived; ends within a limit of its own."""
        ...

    def close(self) -> None:
        """End; called once, after the last batch."""
        ...


class BatchExporter(Generic[T]):
    """A bounded queue with a daemon thread behind it, started by the first item.

    `offer` may be called from any thread; `send` runs in the exporter's own.

    Args:
        send: Delivers a batch.
        capacity: Items that wait at most; what comes beyond is dropped.
        batch: Items sent at once; so many wake the thread early.
        delay_s: Longest wait for a batch to fill.
    """

    def __init__(
        self,
        signal: str,
        send: Send[T],
        *,
        capacity: int = 2048,
        batch: int = 256,
        delay_s: float = 2.0,
    ) -> None:
        self.signal = signal
        self._send = send
        self._capacity = capacity
        self._batch = batch
        self._delay_s = delay_s
        self._items: deque[T] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._sent = self._failed = self._dropped = 0
        self._lock = threading.Lock()
        self._lost = 0
        self._is_losing = False
        self._said_at = -math.inf

    def enqueue(self, item: T) -> bool:
        """Queue an item and return at once; False if it was dropped."""
        if self._closing or len(self._items) >= self._capacity:
            self._dropped += 1
            self._lose(1, "this process ends" if self._closing else FULL)
            return False
        self._items.append(item)
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name=f"export {self.signal}", daemon=True
            )
            self._thread.start()
        if len(self._items) >= self._batch:
            self._wake.set()
        return True

    def close(self, limit_s: float) -> None:
        """Send what waits, for `limit_s` at most, and end; what is left then is dropped."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(limit_s)
        left = len(self._items)
        self._items.clear()
        if left:
            self._dropped += left
            self._lose(left, f"the collector did not take them within {limit_s:g} s of the end")

    def stats(self) -> ExporterStats:
        return ExporterStats(self._sent, self._failed, self._dropped, len(self._items))

    def __repr__(self) -> str:
        return f"<Exporter {self.signal} {self.stats()}>"

    def _run(self) -> None:
        while True:
            self._wake.wait(self._delay_s)
            self._wake.clear()
            while batch := self._take():
                self._deliver(batch)
            if self._closing:
                break
        self._send.close()

    def _take(self) -> list[T]:
        """Return what waits, a batch at most; `close` may empty the queue at the same time."""
        batch: list[T] = []
        with suppress(IndexError):
            while len(batch) < self._batch:
                batch.append(self._items.popleft())
        return batch

    def _deliver(self, batch: list[T]) -> None:
        lost = self._lost
        try:
            arrived = self._send(batch)
        except Exception as error:
            # A library's defect must not end the thread; its text may hold anything.
            arrived, why = False, type(error).__name__
        else:
            why = self._send.problem or "the collector did not take it"
        if not arrived:
            self._failed += len(batch)
            self._lose(len(batch), why)
            return
        self._sent += len(batch)
        with self._lock:
            # What was dropped while this batch was on its way is a loss that goes on.
            is_over = self._is_losing and self._lost == lost
            self._is_losing = self._is_losing and not is_over
        if is_over:
            log.info("telemetry_export_recovered", signal=self.signal)

    def _lose(self, items: int, why: str) -> None:
        """Count a loss, and say the first of a row; called by any thread."""
        now_at = time.monotonic()
        with self._lock:
            self._lost += items
            pause_s = AGAIN_S if self._is_losing else PAUSE_S
            if now_at - self._said_at < pause_s:
                return
            self._is_losing = True
            self._said_at = now_at
        log.warning("telemetry_export_failed", signal=self.signal, why=why, items=items)
