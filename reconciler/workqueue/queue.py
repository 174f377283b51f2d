"""The work queue that workers wait on: the scheduler, a clock, one timer and waiting workers."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from reconciler.clock import LONG_AGO, Clock, Instant
from reconciler.errors import ReconcilerError
from reconciler.workqueue.items import EntryInfo, QueueStats, ScheduleRequest, WorkItem
from reconciler.workqueue.schedule import Scheduler

K = TypeVar("K", bound=Hashable)

MAX_SLEEP_S = 1.0
"""While the machine is suspended the loop's timers stop and the clock may not: the clock is read
again after this long, even if the next deadline is later."""

MIN_SLEEP_S = 0.001
"""The loop may wake early by a rounding error; a shorter sleep after that would spin."""


class QueueClosed(ReconcilerError):
    """The queue hands out no more work; the worker that asked may end."""


class WorkQueue(Generic[K]):
    """Hands each key to one worker at a time, when it is due, most urgent first.

    All calls must be on one event loop; only `get`, `wait_idle` and `drain` wait.

    Order: due work goes to the worker that has waited longest. `Scheduler` decides which work.
    Cost: about 200 dict insertions for add + get + done of one key among 100,000.

    Three requests for two keys become two runs:

    >>> from reconciler.clock import SystemClock
    >>> from reconciler.workqueue.items import Priority
    >>> async def take_two() -> list[tuple[str, tuple[str, ...]]]:
    ...     queue: WorkQueue[str] = WorkQueue(SystemClock())
    ...     queue.add("one", ScheduleRequest(0.0, Priority.ROUTINE, 270.0, "scheduled"))
    ...     queue.add("two", ScheduleRequest(0.0, Priority.EXPIRING, 0.0, "expired"))
    ...     queue.add("one", ScheduleRequest(0.0, Priority.CHANGED, 270.0, "requested"))
    ...     return [(work.key, work.reasons) for work in (await queue.get(), await queue.get())]
    >>> asyncio.run(take_two())
    [('two', ('expired',)), ('one', ('scheduled', 'requested'))]
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._scheduler: Scheduler[K] = Scheduler()
        self._workers: deque[asyncio.Future[WorkItem[K] | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: Instant = LONG_AGO
        self._paused = False
        self._closed = False
        self._ended = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_idle = True

    def add(self, key: K, request: ScheduleRequest) -> None:
        """Request a run of `key` no later than `request.at`; ignored once closed.

        Raises:
            ValueError: A time is not a number; nothing was changed.
        """
        if self._closed:
            return
        self._scheduler.add(key, request, now_at=self._clock.monotonic())
        self._dispatch()

    async def get(self) -> WorkItem[K]:
        """Wait for work; the caller must call `done` for it.

        Raises:
            QueueClosed: No more work will come.

        Cancel: nothing is lost; work that was assigned to the caller goes to the next worker.
        """
        if self._closed:
            raise QueueClosed("the work queue is closed")
        if not self._workers and not self._paused:
            # Without a future and a timer: a busy worker finds work at once, and saves 5 us.
            work = self._scheduler.pop(self._clock.monotonic())
            if work is not None:
                self._set_busy()
                return work
        waiter: asyncio.Future[WorkItem[K] | None] = asyncio.get_running_loop().create_future()
        self._workers.append(waiter)
        self._dispatch()
        try:
            work = await waiter
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise
        if work is None:
            raise QueueClosed("the work queue is closed")
        return work

    def done(self, key: K, *, next: ScheduleRequest | None) -> None:
        """End a run; `next` replaces all earlier deadlines, None removes the key.

        A dirty key runs once more, as soon as `next.not_before` allows.

        Raises:
            KeyError: The key is not running.
            ValueError: A time of `next` is not a number; the key still runs.
        """
        self._scheduler.done(key, next=next, now_at=self._clock.monotonic())
        self._dispatch()

    def record_failure(self, key: K) -> int:
        """Count a failure; return the number of consecutive failures.

        Raises:
            KeyError: The key is unknown.
        """
        return self._scheduler.record_failure(key)

    def forget(self, key: K) -> None:
        """Set a key's count of failures to zero."""
        self._scheduler.forget(key)

    def remove(self, key: K) -> bool:
        """Remove a key, unless it is running; return whether it is unknown now."""
        return self._scheduler.remove(key)

    def is_running(self, key: K) -> bool:
        return self._scheduler.is_running(key)

    def entry_info(self, key: K) -> EntryInfo | None:
        """Return a key's entry, or None for an unknown key; changes nothing."""
        return self._scheduler.entry_info(key)

    def wake_blocked(self, endpoint: str, *, only: Callable[[K], bool] | None = None) -> int:
        """Make work that is blocked on an endpoint due now; return the number of keys.

        Args:
            only: Selects the keys to wake; all by default.
        """
        count = self._scheduler.wake_blocked(endpoint, now_at=self._clock.monotonic(), only=only)
        self._dispatch()
        return count

    def retry_now(self, key: K) -> None:
        """Make a key due now that waits after a failure; no other is changed."""
        self._scheduler.retry_now(key, now_at=self._clock.monotonic())
        self._dispatch()

    def pause(self) -> None:
        """Hand out nothing until `resume`; everything else continues, runs in flight included."""
        self._paused = True
        self._dispatch()

    def resume(self) -> None:
        """Hand out work again, most urgent first."""
        self._paused = False
        self._dispatch()

    async def wait_idle(self) -> None:
        """Return once no key runs."""
        await self._idle.wait()

    async def drain(self, limit_s: float) -> bool:
        """Close, then wait for runs in flight; return whether all ended within `limit_s`.

        Queued work is not done: deadlines are persisted with the objects, and the next leader
        finds them there.

        Cancel: the queue stays closed.
        """
        self._close()
        try:
            async with asyncio.timeout(limit_s):
                await self._ended.wait()
        except TimeoutError:
            pass
        return self._scheduler.running == 0

    def stats(self) -> QueueStats:
        """Return the current figures."""
        state = "closed" if self._closed else "paused" if self._paused else "open"
        schedule = self._scheduler.stats(self._clock.monotonic())
        return QueueStats(schedule=schedule, idle_workers=len(self._workers), state=state)

    def __repr__(self) -> str:
        return f"<WorkQueue {repr(self.stats())[1:]}"

    def _dispatch(self) -> None:
        """Give due work to waiting workers, then set the timer; called after every change."""
        while self._workers and not self._paused:
            if self._workers[0].done():  # cancelled, but its task has not run yet
                del self._workers[0]
                continue
            work = self._scheduler.pop(self._clock.monotonic())
            if work is None:
                break
            self._workers.popleft().set_result(work)
        # Of a busy queue each change comes here: what has not changed costs a comparison.
        if self._workers or self._timer is not None:
            self._set_timer()
        if self._scheduler.running:
            self._set_busy()
        else:
            self._is_idle = True
            self._idle.set()
            if self._closed:
                self._ended.set()

    def _set_busy(self) -> None:
        if self._is_idle:
            self._is_idle = False
            self._idle.clear()

    def _abandon(self, waiter: asyncio.Future[WorkItem[K] | None]) -> None:
        if waiter.cancelled():
            if waiter in self._workers:
                self._workers.remove(waiter)
        elif (work := waiter.result()) is not None:
            self._scheduler.put_back(work.key)
        self._dispatch()

    def _set_timer(self) -> None:
        next_at = None
        if self._workers and not self._paused:
            next_at = self._scheduler.next_at()
        if next_at is None:
            self._cancel_timer()
            return
        if self._timer is not None and self._timer_at <= next_at:
            return
        self._cancel_timer()
        now_at = self._clock.monotonic()
        sleep_s = min(max(next_at - now_at, MIN_SLEEP_S), MAX_SLEEP_S)
        self._timer_at = now_at + sleep_s
        self._timer = asyncio.get_running_loop().call_later(sleep_s, self._wake)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = None
        self._dispatch()

    def _close(self) -> None:
        self._closed = True
        while self._workers:
            if not (waiter := self._workers.popleft()).done():
                waiter.set_result(None)
        self._dispatch()
