"""A thread that sends what it is given: whoever gives never waits, and what is too much is counted.

A collector that is away, slow or mad costs this thread's time and the queue's bounded memory.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")

log = structlog.get_logger()

AGAIN_S = 600.0
"""What stays undelivered is said again after this long."""


@dataclass(frozen=True, slots=True)
class ExporterStats:
    """Items since the start, and those that wait now."""

    sent: int
    failed: int
    dropped: int
    queued: int


class Exporter(Generic[T]):
    """A bounded queue with a daemon thread behind it, started by the first item.

    `offer` may be called from any thread; `send` runs in the exporter's own.

    Args:
        send: Delivers a batch and tells whether it arrived; must end within a limit of its own.
        capacity: Items that wait at most; what comes beyond is dropped.
        batch: Items sent at once; so many wake the thread early.
        delay_s: Longest wait for a batch to fill.
    """

    def __init__(
        self,
        signal: str,
        send: Callable[[list[T]], bool],
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
        self._complained_at: float | None = None

    def offer(self, item: T) -> bool:
        """Queue an item and return at once; False if it was dropped."""
        if self._closing or len(self._items) >= self._capacity:
            self._dropped += 1
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
        self._dropped += len(self._items)
        self._items.clear()

    def stats(self) -> ExporterStats:
        return ExporterStats(self._sent, self._failed, self._dropped, len(self._items))

    def __repr__(self) -> str:
        return f"<Exporter {self.signal} {self.stats()}>"

    def _run(self) -> None:
        while True:
            self._wake.wait(self._delay_s)
            self._wake.clear()
            while self._items:
                count = min(self._batch, len(self._items))
                self._deliver([self._items.popleft() for _ in range(count)])
            if self._closing:
                return

    def _deliver(self, batch: list[T]) -> None:
        try:
            arrived = self._send(batch)
        except Exception as error:
            # A library's defect must not end the thread; its text may hold anything.
            arrived, why = False, type(error).__name__
        else:
            why = "the collector did not take it"
        if arrived:
            self._sent += len(batch)
            if self._complained_at is not None:
                self._complained_at = None
                log.info("telemetry_delivered_again", signal=self.signal)
            return
        self._failed += len(batch)
        now_at = time.monotonic()
        if self._complained_at is None or now_at - self._complained_at >= AGAIN_S:
            self._complained_at = now_at
            log.warning("telemetry_not_delivered", signal=self.signal, why=why, items=len(batch))
