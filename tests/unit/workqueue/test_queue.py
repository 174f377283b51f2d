"""The queue as workers see it, on virtual time: the order of work, and the cost of a cancel."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from reconciler.clock import Instant
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.workqueue.items import Priority, ScheduleRequest, WorkItem
from reconciler.workqueue.queue import MAX_SLEEP_S, MIN_SLEEP_S, QueueClosed, WorkQueue
from tests.support import ManualClock


class Bench:
    """A queue on the virtual loop's clock, with the calls that most tests make."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = VirtualClock(self.loop)
        self.queue: WorkQueue[str] = WorkQueue(self.clock)

    def add(self, key: str, *, after_s: float = 0.0, priority: Priority = Priority.ROUTINE) -> None:
        at = self.clock.monotonic() + after_s
        self.queue.add(key, ScheduleRequest(at, priority, 300.0, "event"))

    async def getter(self) -> asyncio.Task[WorkItem[str]]:
        """Start a worker that waits for one piece of work."""
        task = asyncio.create_task(self.queue.get())
        await asyncio.sleep(0)
        return task

    async def work(self, served: list[str], *, run_s: float = 0.0) -> None:
        """Be a worker until the queue closes."""
        while True:
            try:
                work = await self.queue.get()
            except QueueClosed:
                return
            await asyncio.sleep(run_s)
            served.append(work.key)
            self.queue.done(work.key, next=None)


def on_virtual_time(test: Callable[[Bench], Awaitable[None]]) -> Callable[[], None]:
    """Run a test on a fresh virtual loop with a fresh bench."""

    async def main() -> None:
        await test(Bench())

    def run() -> None:
        run_virtual(main())

    run.__name__, run.__doc__ = getattr(test, "__name__", ""), test.__doc__
    return run


@on_virtual_time
async def test_a_waiting_worker_gets_a_key_at_the_instant_it_is_due(bench: Bench) -> None:
    task = await bench.getter()
    bench.add("a", after_s=3600.5)
    work = await task
    assert bench.clock.monotonic() == pytest.approx(3600.5, abs=0.002)
    assert (work.key, work.due_at) == ("a", Instant(3600.5))


@on_virtual_time
async def test_an_earlier_deadline_brings_the_timer_forward(bench: Bench) -> None:
    bench.add("late", after_s=60)
    task = await bench.getter()
    bench.add("early", after_s=0.25)
    assert (await task).key == "early"
    assert bench.clock.monotonic() == pytest.approx(0.25, abs=0.002)


@on_virtual_time
async def test_an_event_wakes_a_worker_at_once(bench: Bench) -> None:
    task = await bench.getter()
    bench.add("a", after_s=60)
    bench.add("a")
    assert (await task).key == "a"
    assert bench.clock.monotonic() == Instant(0)


@on_virtual_time
async def test_a_request_for_now_is_due_now(bench: Bench) -> None:
    bench.queue.add("a", ScheduleRequest(Instant(0), Priority.CHANGED, 1.0, "event"))
    assert (await bench.queue.get()).due_at == Instant(0)


@on_virtual_time
async def test_workers_are_served_in_the_order_in_which_they_came(bench: Bench) -> None:
    tasks = [await bench.getter() for _ in range(3)]
    for key in "abc":
        bench.add(key)
    assert [(await task).key for task in tasks] == ["a", "b", "c"]


@on_virtual_time
async def test_a_second_worker_waits_until_the_first_is_done_with_the_key(bench: Bench) -> None:
    bench.add("a")
    await bench.queue.get()
    bench.add("a")
    task = await bench.getter()
    await asyncio.sleep(10)
    assert not task.done()
    bench.queue.done("a", next=ScheduleRequest(Instant(1e6), Priority.ROUTINE, 300.0, "refresh"))
    assert (await task).reasons == ("event", "refresh")


@on_virtual_time
async def test_many_workers_run_each_key_once_and_never_two_at_once(bench: Bench) -> None:
    served: list[str] = []
    workers = [asyncio.create_task(bench.work(served, run_s=0.1)) for _ in range(16)]
    for number in range(500):
        bench.add(f"key {number}", after_s=number % 7)
    await asyncio.sleep(60)
    assert await bench.queue.drain(0)
    await asyncio.gather(*workers)
    assert sorted(served) == sorted(f"key {number}" for number in range(500))


@on_virtual_time
async def test_one_worker_means_one_run_at_a_time(bench: Bench) -> None:
    served: list[str] = []
    worker = asyncio.create_task(bench.work(served, run_s=1.0))
    for number in range(5):
        bench.add(f"key {number}")
    await asyncio.sleep(2.5)
    stats = bench.queue.stats()
    assert (len(served), stats.schedule.running) == (2, 1)
    assert await bench.queue.drain(5)
    await worker


@on_virtual_time
async def test_work_given_to_a_worker_that_is_cancelled_goes_to_the_next(bench: Bench) -> None:
    first = await bench.getter()
    second = await bench.getter()
    bench.add("a")
    first.cancel()  # the key is assigned to it already
    assert (await second).key == "a"
    await asyncio.wait([first])
    assert first.cancelled()


@on_virtual_time
async def test_work_given_to_a_cancelled_worker_waits_where_no_other_is(bench: Bench) -> None:
    task = await bench.getter()
    bench.add("a")
    task.cancel()
    await asyncio.wait([task])
    assert bench.queue.stats().schedule.running == 0
    assert (await bench.queue.get()).key == "a"


@on_virtual_time
async def test_a_cancelled_worker_takes_nothing(bench: Bench) -> None:
    task = await bench.getter()
    task.cancel()
    bench.add("a")
    assert bench.queue.stats().schedule.running == 0
    await asyncio.wait([task])
    assert bench.queue.stats().idle_workers == 0
    assert (await bench.queue.get()).key == "a"


@on_virtual_time
async def test_a_worker_that_gives_up_leaves_no_waiter_behind(bench: Bench) -> None:
    patient = await bench.getter()
    for _ in range(100):
        task = await bench.getter()
        task.cancel()
        await asyncio.wait([task])
    assert bench.queue.stats().idle_workers == 1
    bench.add("a")
    assert (await patient).key == "a"


@on_virtual_time
async def test_workers_that_come_and_go_lose_nothing(bench: Bench) -> None:
    """Every second worker is cancelled as its work arrives; each key is still served."""
    served = []
    for number in range(100):
        doomed, other = await bench.getter(), await bench.getter()
        bench.add(f"key {number}")
        doomed.cancel()
        served.append((await other).key)
        await asyncio.wait([doomed])
    assert served == [f"key {number}" for number in range(100)]


@on_virtual_time
async def test_a_time_limit_around_get_loses_nothing(bench: Bench) -> None:
    bench.add("a", after_s=5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.queue.get(), 2)
    assert (await asyncio.wait_for(bench.queue.get(), 10)).key == "a"


@on_virtual_time
async def test_a_paused_queue_fills_and_hands_out_nothing_until_it_is_resumed(
    bench: Bench,
) -> None:
    bench.queue.pause()
    task = await bench.getter()
    for key, priority in [("routine", Priority.ROUTINE), ("expiring", Priority.EXPIRING)]:
        bench.add(key, priority=priority)
        bench.add(key, priority=priority)
    await asyncio.sleep(100)
    assert not task.done()
    assert repr(bench.queue) == (
        "<WorkQueue paused: ready 2 (expiring 1, routine 1), waiting 0, blocked 0, running 0, "
        "oldest 100.0 s, idle workers 1>"
    )
    bench.queue.resume()
    assert (await task).key == "expiring"


@on_virtual_time
async def test_a_recovering_endpoint_wakes_the_workers(bench: Bench) -> None:
    bench.add("a")
    await bench.queue.get()
    assert bench.queue.record_failure("a") == 1
    bench.queue.done(
        "a", next=ScheduleRequest(Instant(300), Priority.ROUTINE, 300.0, "issuer down", "issuer")
    )
    task = await bench.getter()
    await asyncio.sleep(7)
    assert bench.queue.wake_blocked("issuer") == 1
    work = await task
    assert (work.attempt, bench.clock.monotonic()) == (2, Instant(7))
    bench.queue.forget("a")
    assert bench.queue.record_failure("a") == 1


@on_virtual_time
async def test_a_removed_key_is_never_handed_out(bench: Bench) -> None:
    bench.add("a", after_s=1)
    assert bench.queue.remove("a")
    task = await bench.getter()
    await asyncio.sleep(5)
    assert not task.done()
    assert await bench.queue.drain(0)
    with pytest.raises(QueueClosed):
        await task


@on_virtual_time
async def test_drain_waits_for_what_is_in_flight_and_hands_out_nothing_more(
    bench: Bench,
) -> None:
    served: list[str] = []
    workers = [asyncio.create_task(bench.work(served, run_s=3.0)) for _ in range(2)]
    for key in "abcd":
        bench.add(key)
    await asyncio.sleep(1)
    assert await bench.queue.drain(10)
    assert (sorted(served), bench.clock.monotonic()) == (["a", "b"], Instant(3))
    await asyncio.gather(*workers)


@on_virtual_time
async def test_drain_gives_up_at_its_limit(bench: Bench) -> None:
    bench.add("stuck")
    await bench.queue.get()
    assert not await bench.queue.drain(5)
    assert bench.clock.monotonic() == Instant(5)


@on_virtual_time
async def test_a_key_that_became_dirty_is_not_run_again_by_a_drained_queue(bench: Bench) -> None:
    bench.add("a")
    await bench.queue.get()
    bench.add("a")
    draining = asyncio.create_task(bench.queue.drain(5))
    await asyncio.sleep(0)
    bench.queue.done("a", next=None)
    assert await draining
    with pytest.raises(QueueClosed):
        await bench.queue.get()


@on_virtual_time
async def test_drain_of_an_idle_queue_is_over_at_once_even_with_keys_in_it(bench: Bench) -> None:
    bench.add("waits", after_s=60)
    assert await bench.queue.drain(5)
    assert bench.clock.monotonic() == Instant(0)


@on_virtual_time
async def test_drain_ends_when_the_last_in_flight_is_put_back(bench: Bench) -> None:
    task = await bench.getter()
    bench.add("a")
    task.cancel()
    assert await bench.queue.drain(5)
    assert bench.clock.monotonic() == Instant(0)


@on_virtual_time
async def test_closing_ends_all_waiting_workers(bench: Bench) -> None:
    tasks = [await bench.getter() for _ in range(3)]
    assert await bench.queue.drain(0)
    for task in tasks:
        with pytest.raises(QueueClosed):
            await task
    with pytest.raises(QueueClosed):
        await bench.queue.get()
    bench.add("late")
    assert repr(bench.queue) == (
        "<WorkQueue closed: ready 0, waiting 0, blocked 0, running 0, idle workers 0>"
    )


@on_virtual_time
async def test_a_drain_while_work_is_handed_out_neither_hangs_nor_loses_it(
    bench: Bench,
) -> None:
    """A worker with an assigned key still gets it, and must call `done`; the others end."""
    tasks = [await bench.getter() for _ in range(4)]
    bench.add("a")
    assert not await bench.queue.drain(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [WorkItem, QueueClosed, QueueClosed, QueueClosed]
    assert not await bench.queue.drain(1)
    bench.queue.done("a", next=None)
    assert await bench.queue.drain(1)


@on_virtual_time
async def test_a_worker_cancelled_as_the_queue_closes_is_just_cancelled(bench: Bench) -> None:
    task = await bench.getter()
    assert await bench.queue.drain(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


class TimerCount:
    """Counts the queue's timers: those that are set and have not been cancelled or fired."""

    def __init__(self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self._loop = loop
        self._call_later = loop.call_later
        self._handles: list[asyncio.TimerHandle] = []
        self.delays_s: list[float] = []
        monkeypatch.setattr(loop, "call_later", self._record)

    def _record(
        self, delay_s: float, callback: Callable[..., Any], *args: Any, **options: Any
    ) -> asyncio.TimerHandle:
        handle = self._call_later(delay_s, callback, *args, **options)
        if callback.__module__ == WorkQueue.__module__:  # not the sleep of the test itself
            self._handles.append(handle)
            self.delays_s.append(delay_s)
        return handle

    def pending(self) -> int:
        now_s = self._loop.time()
        return sum(not h.cancelled() and h.when() > now_s for h in self._handles)


def test_the_whole_queue_has_one_timer_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        bench = Bench()
        timers = TimerCount(bench.loop, monkeypatch)
        for number in range(100):
            bench.add(f"key {number}", after_s=200 - number)
        assert timers.pending() == 0, "no caller waits, so there is none to wake"
        tasks = [await bench.getter() for _ in range(5)]
        for number in range(100):
            bench.add(f"key {number}", after_s=0.9 - number / 1000)
            assert timers.pending() == 1
        bench.queue.pause()
        assert timers.pending() == 0
        bench.queue.resume()
        assert timers.pending() == 1
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert timers.pending() == 0
        assert all(0 < delay_s <= MAX_SLEEP_S for delay_s in timers.delays_s)

    run_virtual(main())


def test_a_clock_that_leaps_over_a_suspension_is_noticed_within_a_second() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clock = ManualClock()  # does not advance with the loop's time, as across a suspension
        queue: WorkQueue[str] = WorkQueue(clock)
        at = clock.monotonic() + 1800
        queue.add("a", ScheduleRequest(at, Priority.ROUTINE, 300.0, "refresh"))
        task = asyncio.create_task(queue.get())
        await asyncio.sleep(10)
        assert not task.done()
        clock.advance(3600)
        leapt_s = loop.time()
        assert (await task).key == "a"
        assert loop.time() - leapt_s <= MAX_SLEEP_S

    run_virtual(main())


def test_a_clock_that_lags_the_loop_by_a_rounding_error_does_not_make_it_spin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        clock = ManualClock()
        queue: WorkQueue[str] = WorkQueue(clock)
        timers = TimerCount(asyncio.get_running_loop(), monkeypatch)
        at = clock.monotonic() + 1e-9
        queue.add("a", ScheduleRequest(at, Priority.ROUTINE, 300.0, "refresh"))
        task = asyncio.create_task(queue.get())
        await asyncio.sleep(0.1)
        assert 50 <= sum(delay_s == MIN_SLEEP_S for delay_s in timers.delays_s) <= 101
        clock.advance(1)
        assert (await task).key == "a"

    run_virtual(main())
