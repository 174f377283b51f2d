"""Single flight: one run for all waiters, also when some leave."""

import asyncio

import pytest

from reconciler.lab.simulation.virtual_time import run_virtual
from reconciler.tokens.source import FlightClosed, SingleFlight


class _Slow:
    def __init__(self) -> None:
        self.runs = 0

    async def run(self) -> int:
        self.runs += 1
        await asyncio.sleep(1.0)
        return self.runs


def test_all_who_ask_meanwhile_share_one_run() -> None:
    async def main() -> None:
        slow = _Slow()
        flight = SingleFlight(slow.run)
        assert await asyncio.gather(*(flight.join() for _ in range(1000))) == [1] * 1000
        assert await flight.join() == 2

    run_virtual(main())


def test_a_waiter_that_gives_up_takes_nothing_from_the_others() -> None:
    async def main() -> None:
        slow = _Slow()
        flight = SingleFlight(slow.run)
        first = asyncio.create_task(flight.join())
        second = asyncio.create_task(flight.join())
        await asyncio.sleep(0.5)
        first.cancel()
        assert await second == 1
        assert first.cancelled()
        assert slow.runs == 1

    run_virtual(main())


def test_the_run_goes_on_when_everybody_has_left() -> None:
    async def main() -> None:
        slow = _Slow()
        flight = SingleFlight(slow.run)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await flight.join()
        assert flight.in_flight
        assert await flight.join() == 1

    run_virtual(main())


def test_closing_stops_the_run_and_tells_the_waiters() -> None:
    async def main() -> None:
        flight = SingleFlight(_Slow().run)
        waiter = asyncio.create_task(flight.join())
        await asyncio.sleep(0.5)
        await flight.close()
        assert not flight.in_flight
        with pytest.raises(FlightClosed):
            await waiter
        await flight.close()

    run_virtual(main())
