"""A thread that sends items in batches: a caller never waits, and dropped items are counted.

A collector that is unreachable, slow or faulty costs this thread's time and the queue's bounded
memory, and nothing else.
"""

import threading
import time
from collections import deque
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import msgspec
import structlog

from reconciler.clock import LONG_AGO, Instant

T = TypeVar("T")

log = structlog.get_logger()

REPEAT_S = 600.0
"""Time between two log lines of one streak of losses."""

PAUSE_S = 60.0
"""Shortest time between two log lines of losses: a collector that takes every other batch is one
fault, not many."""

FULL = "the queue is full: the collector is slower than what it is sent"


class ExporterStats(msgspec.Struct, frozen=True):
    """Items since the start by result; `queued` counts those that wait now."""

    sent: int
    failed: int
    dropped: int
    queued: int


class Send(Protocol[T]):
    """Delivers batches, in the exporter's thread."""

    @property
    def problem(self) -> str:
        """The reason why the last batch did not arrive, safe to log; "" = unknown."""
        ...

    def __call__(self, batch: list[T]) -> bool:
        """Deliver a batch within the sender's own time limit; return whether it arrived."""
        ...

    def close(self) -> None:
        """Release the connections; called once, after the last batch."""
        ...


class BatchExporter(Generic[T]):
    """A bounded queue with a daemon thread behind it, started by the first item.

    `enqueue` may be called from any thread; `send` runs in the exporter's thread.

    Args:
        signal: The name of the items in logs and metrics (`traces`).
        send: Delivers a batch.
        capacity: Most items that wait; further ones are dropped.
        batch: Most items in a batch; so many wake the thread early.
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
        self._in_flight = 0
        self._lost = 0
        self._is_losing = False
        self._logged_at: Instant = LONG_AGO

    def enqueue(self, item: T) -> bool:
        """Queue an item and return at once; False if it was dropped."""
        if self._closing or len(self._items) >= self._capacity:
            self._dropped += 1
            self._record_loss(1, "this process ends" if self._closing else FULL)
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
        """Send the waiting items for `limit_s` at most, and end; the rest is dropped.

        A batch that is still being sent then counts as dropped, also if it arrives later.
        """
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(limit_s)
        left = len(self._items) + self._end_flight()
        self._items.clear()
        if left:
            self._dropped += left
            self._record_loss(
                left, f"the collector did not take them within {limit_s:g} s of the end"
            )

    def stats(self) -> ExporterStats:
        return ExporterStats(self._sent, self._failed, self._dropped, len(self._items))

    def __repr__(self) -> str:
        return f"<BatchExporter {self.signal} {self.stats()}>"

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
        """Return the next batch; `close` may empty the queue at the same time."""
        batch: list[T] = []
        with suppress(IndexError):
            while len(batch) < self._batch:
                batch.append(self._items.popleft())
        return batch

    def _end_flight(self) -> int:
        """Return the size of the batch that is being sent, once; 0 if the other thread has it."""
        with self._lock:
            items, self._in_flight = self._in_flight, 0
        return items

    def _deliver(self, batch: list[T]) -> None:
        self._in_flight = len(batch)
        lost = self._lost
        try:
            arrived = self._send(batch)
        except Exception as error:
            # A library's defect must not end the thread; the text of its error may hold a secret.
            arrived, reason = False, type(error).__name__
        else:
            reason = self._send.problem or "the collector did not take it"
        if not self._end_flight():
            return
        if not arrived:
            self._failed += len(batch)
            self._record_loss(len(batch), reason)
            return
        self._sent += len(batch)
        with self._lock:
            # Items that were dropped while this batch was sent continue the streak of losses.
            is_over = self._is_losing and self._lost == lost
            self._is_losing = self._is_losing and not is_over
        if is_over:
            log.info("telemetry_export_recovered", signal=self.signal)

    def _record_loss(self, items: int, reason: str) -> None:
        """Count lost items, and log the first loss of a streak; called by any thread."""
        now_at = Instant(time.monotonic())
        with self._lock:
            self._lost += items
            pause_s = REPEAT_S if self._is_losing else PAUSE_S
            if now_at - self._logged_at < pause_s:
                return
            self._is_losing = True
            self._logged_at = now_at
        log.warning("telemetry_export_failed", signal=self.signal, reason=reason, items=items)
