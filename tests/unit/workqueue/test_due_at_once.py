"""A fleet becomes due at one instant: no call makes more than `MAX_PROMOTED` entries ready."""

import asyncio

from reconciler.clock import Instant
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.workqueue.items import Priority, ScheduleRequest
from reconciler.workqueue.queue import WorkQueue
from reconciler.workqueue.schedule import MAX_PROMOTED, PROMOTION_PAUSE_S, Scheduler

NOW = Instant(1000)
DUE = NOW + 60.0
KEYS = 3 * MAX_PROMOTED + 7
FAR_S = 1e6


def waiting(*, endpoint: str = "") -> Scheduler[int]:
    """Return a scheduler with `KEYS` entries that are due at `DUE`, or blocked on an endpoint."""
    schedule: Scheduler[int] = Scheduler()
    for key in range(KEYS):
        request = ScheduleRequest(DUE, Priority.ROUTINE, FAR_S - key, "scheduled", endpoint)
        schedule.add(key, request, now_at=NOW)
    return schedule


def ready(schedule: Scheduler[int], now_at: Instant) -> int:
    return schedule.stats(now_at).ready[Priority.ROUTINE]


def test_a_call_makes_a_bounded_number_ready_and_the_next_ones_the_rest() -> None:
    schedule = waiting()
    found: list[int] = []
    now_at = DUE
    while not found or found[-1] < KEYS:
        found.append(ready(schedule, now_at))
        assert ready(schedule, now_at) == found[-1]  # no more at the same instant
        next_at = schedule.next_at()
        assert next_at in (None, now_at + PROMOTION_PAUSE_S)
        now_at += PROMOTION_PAUSE_S
    assert found == [MAX_PROMOTED, 2 * MAX_PROMOTED, 3 * MAX_PROMOTED, KEYS]
    assert schedule.next_at() is None
    first = schedule.pop(now_at)
    assert first is not None
    assert first.key == KEYS - 1  # of all, the one with the least slack


def test_a_new_urgent_key_passes_all_of_them() -> None:
    schedule = waiting()
    ready(schedule, DUE)
    schedule.add(-1, ScheduleRequest(DUE, Priority.EXPIRING, 0.0, "expired"), now_at=DUE)
    first = schedule.pop(DUE)
    assert first is not None
    assert first.key == -1


def test_a_recovery_wakes_all_in_turns_but_none_that_has_failed_again_since() -> None:
    schedule = waiting(endpoint="issuer")
    now_at = NOW + 1.0
    assert schedule.wake_blocked("issuer", now_at=now_at) == KEYS
    assert ready(schedule, now_at) == MAX_PROMOTED
    schedule.add(KEYS - 1, ScheduleRequest(now_at, Priority.EXPIRING, 0.0, "pod"), now_at=now_at)
    work = schedule.pop(now_at)
    assert work is not None
    assert work.key == KEYS - 1
    again = ScheduleRequest(now_at + 30.0, Priority.ROUTINE, FAR_S, "failed", "issuer")
    schedule.done(work.key, next=again, now_at=now_at)
    for _ in range(10):
        now_at += PROMOTION_PAUSE_S
        ready(schedule, now_at)
    assert ready(schedule, now_at) == KEYS - 1
    info = schedule.entry_info(KEYS - 1)
    assert info is not None
    assert (info.stage, info.blocked_on) == ("waiting", "issuer")


def test_workers_get_every_key_and_a_new_one_is_not_delayed() -> None:
    async def main() -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        queue: WorkQueue[int] = WorkQueue(clock)
        served: dict[int, Instant] = {}

        async def work() -> None:
            while True:
                item = await queue.get()
                served[item.key] = clock.monotonic()
                queue.done(item.key, next=None)

        workers = [asyncio.create_task(work()) for _ in range(4)]
        due_at = clock.monotonic() + 60.0
        for key in range(KEYS):
            queue.add(key, ScheduleRequest(due_at, Priority.ROUTINE, FAR_S, "scheduled"))
        await asyncio.sleep(61.0)
        assert len(served) == KEYS
        assert max(served.values()) - due_at <= 4 * (PROMOTION_PAUSE_S + 0.001)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    run_virtual(main())
