"""The work queue that workers wait on: the schedule, a clock, one timer and those who wait."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from reconciler.clock import Clock
from reconciler.errors import ReconcilerError
from reconciler.workqueue.items import EntryInfo, Priority, Requeue, Trigger, WorkItem
from reconciler.workqueue.schedule import Scheduler
from reconciler.workqueue.stats import QueueStats

K = TypeVar("K", bound=Hashable)

LONGEST_SLEEP_S = 1.0
"""The loop's timers stand still while the machine is suspended, and the clock may not: however far
the next deadline is, the clock is read again after this long."""

SHORTEST_SLEEP_S = 0.001
"""The loop may wake a rounding error early; asking for less than this again would spin."""


class QueueClosed(ReconcilerError):
    """The queue hands out no work any more; the worker that asked may end."""


class WorkQueue(Generic[K]):
    """Hands each key to one worker at a time, when it is due, most urgent first.

    All calls belong on one event loop; only `get` and `drain` wait.

    Order: work that is due goes to the worker that has waited longest. `Scheduler` says which work.
    Cost: about 200 dict insertions for add + get + done of one key among 100,000.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._schedule: Scheduler[K] = Scheduler()
        self._workers: deque[asyncio.Future[WorkItem[K] | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._paused = False
        self._closed = False
        self._ended = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(
        self,
        key: K,
        *,
        reason: str,
        band: Priority,
        slack_s: float,
        at: float | None = None,
        news: Trigger = Trigger.NONE,
        about: str = "",
    ) -> None:
        """Ask for a run of `key` no later than `at` (default: now); ignored once closed.

        Args:
            at: Instant on the clock's `monotonic`.
            slack_s: Seconds from now until it is too late; negative where it is already.
            news: What this wish knows that the last failure did not; see `NotBefore`.
            about: What the run is to do; compared with what failed.

        Raises:
            ValueError: A time is not a number; nothing was changed.
        """
        if self._closed:
            return
        now_at = self._clock.monotonic()
        due_at = now_at if at is None else at
        self._schedule.add(
            key,
            reason=reason,
            at=due_at,
            band=band,
            slack_s=slack_s,
            now_at=now_at,
            news=news,
            about=about,
        )
        self._hand_out()

    async def get(self) -> WorkItem[K]:
        """Wait for work; the caller owes a `done` for it.

        Raises:
            QueueClosed: No more work will come.

        Cancel: nothing is lost; work that was meant for the caller goes to the next.
        """
        if self._closed:
            raise QueueClosed("the work queue is closed")
        place: asyncio.Future[WorkItem[K] | None] = asyncio.get_running_loop().create_future()
        self._workers.append(place)
        self._hand_out()
        try:
            work = await place
        except asyncio.CancelledError:
            self._give_up(place)
            raise
        if work is None:
            raise QueueClosed("the work queue is closed")
        return work

    def done(self, key: K, *, next: Requeue | None) -> None:
        """End a run; `next` replaces all earlier deadlines, None forgets the key.

        A dirty key runs once more, as soon as `next.hold` allows.

        Raises:
            KeyError: The key is not running.
            ValueError: A time of `next` is not a number; the key still runs.
        """
        self._schedule.done(key, next=next, now_at=self._clock.monotonic())
        self._hand_out()

    def record_failure(self, key: K) -> int:
        """Count a failure; return how many there were in a row.

        Raises:
            KeyError: The key is unknown.
        """
        return self._schedule.record_failure(key)

    def forget(self, key: K) -> None:
        """Set a key's count of failures to zero."""
        self._schedule.forget(key)

    def remove(self, key: K) -> bool:
        """Forget a key, unless it is running; tell whether it is unknown now."""
        return self._schedule.remove(key)

    def look(self, key: K) -> EntryInfo | None:
        """Return what is held of a key, or None for an unknown one; changes nothing."""
        return self._schedule.look(key)

    def wake_blocked(self, name: str, *, only: Callable[[K], bool] | None = None) -> int:
        """Make work that waits at a endpoint due now; return how many keys that are.

        Args:
            only: Says of a key whether it is let through; all are by default.
        """
        count = self._schedule.wake_blocked(name, now_at=self._clock.monotonic(), only=only)
        self._hand_out()
        return count

    def pause(self) -> None:
        """Hand out nothing more until `resume`; all else goes on, what is in flight too."""
        self._paused = True
        self._hand_out()

    def resume(self) -> None:
        """Hand out work again, most urgent first."""
        self._paused = False
        self._hand_out()

    async def wait_idle(self) -> None:
        """Return once no key runs."""
        await self._idle.wait()

    async def drain(self, limit_s: float) -> bool:
        """Close, then wait for what is in flight; tell whether all of it ended within `limit_s`.

        What is queued stays undone: deadlines are persisted with the objects, and the next leader
        finds them there.

        Cancel: the queue stays closed.
        """
        self._close()
        try:
            async with asyncio.timeout(limit_s):
                await self._ended.wait()
        except TimeoutError:
            pass
        return self._schedule.running == 0

    def shutdown(self) -> None:
        """Close now, and end a `drain` that still waits; late calls of `done` do no harm."""
        self._close()
        self._ended.set()

    def stats(self) -> QueueStats:
        """Return the figures of this moment."""
        state = "closed" if self._closed else "paused" if self._paused else "open"
        schedule = self._schedule.stats(self._clock.monotonic())
        return QueueStats(schedule=schedule, idle_workers=len(self._workers), state=state)

    def __repr__(self) -> str:
        return f"<WorkQueue {repr(self.stats())[1:]}"

    def _hand_out(self) -> None:
        """Give due work to those who wait, then set the timer; called after every change."""
        while self._workers and not self._paused:
            if self._workers[0].done():  # cancelled, and not yet awake to say so
                del self._workers[0]
                continue
            work = self._schedule.pop(self._clock.monotonic())
            if work is None:
                break
            self._workers.popleft().set_result(work)
        self._set_timer()
        if self._schedule.running:
            self._idle.clear()
        else:
            self._idle.set()
            if self._closed:
                self._ended.set()

    def _give_up(self, place: asyncio.Future[WorkItem[K] | None]) -> None:
        if place.cancelled():
            if place in self._workers:
                self._workers.remove(place)
        elif (work := place.result()) is not None:
            self._schedule.put_back(work.key)
        self._hand_out()

    def _set_timer(self) -> None:
        next_at = self._schedule.next_at()
        if next_at is None or not self._workers or self._paused:
            self._cancel_timer()
            return
        if self._timer is not None and self._timer_at <= next_at:
            return
        self._cancel_timer()
        now_at = self._clock.monotonic()
        sleep_s = min(max(next_at - now_at, SHORTEST_SLEEP_S), LONGEST_SLEEP_S)
        self._timer_at = now_at + sleep_s
        self._timer = asyncio.get_running_loop().call_later(sleep_s, self._wake)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = None
        self._hand_out()

    def _close(self) -> None:
        self._closed = True
        while self._workers:
            if not (place := self._workers.popleft()).done():
                place.set_result(None)
        self._hand_out()
