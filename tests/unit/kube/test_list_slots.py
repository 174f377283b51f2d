"""A few at one time, in order; one that takes long gives its turn on."""

import asyncio

from reconciler.kube.list_slots import ListSlots
from reconciler.lab.simulation.virtual_time import run_virtual


class Tally:
    def __init__(self) -> None:
        self.now = self.most = 0
        self.began: list[tuple[int, float]] = []

    async def hold(self, slices: ListSlots, number: int, seconds: float) -> None:
        async with slices.slot():
            self.began.append((number, asyncio.get_running_loop().time()))
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.now -= 1


def test_short_ones_begin_as_many_at_one_time_as_there_are_turns() -> None:
    async def main() -> None:
        slices, tally = ListSlots(3, turn_s=5.0), Tally()
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(tally.hold(slices, number, 1.0))
        assert tally.most == 3
        assert [number for number, _ in tally.began] == list(range(10))

    run_virtual(main())


def test_one_that_hangs_holds_its_turn_for_its_time_alone() -> None:
    async def main() -> None:
        slices, tally = ListSlots(2, turn_s=5.0), Tally()
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(tally.hold(slices, number, 60.0))
            for number in range(4, 10):
                group.create_task(tally.hold(slices, number, 0.1))
        assert max(at for _, at in tally.began) < 10.5
        assert tally.most <= 6

    run_virtual(main())


def test_a_cancelled_waiter_and_a_cancelled_holder_give_their_turns_back_once() -> None:
    async def main() -> None:
        slices, tally = ListSlots(1, turn_s=5.0), Tally()
        tasks = [asyncio.create_task(tally.hold(slices, number, 60.0)) for number in range(3)]
        await asyncio.sleep(6.0)  # the first has given its turn on to the second
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        tally = Tally()
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(tally.hold(slices, number, 1.0))
        assert tally.most == 1

    run_virtual(main())
