"""One request for all who ask at the same time, whoever of them gives up."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class FlightClosed(Exception):
    """The run was stopped from outside while somebody waited for it."""


class SingleFlight(Generic[T]):
    """Runs a coroutine function at most once at a time and gives its result to all who wait.

    Args:
        run: Must end by itself within a time limit; an error that the waiters should see is best
            returned, since one raised object collects a traceback from each of them.
    """

    def __init__(self, run: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._run = run
        self._task: asyncio.Task[T] | None = None

    @property
    def in_flight(self) -> bool:
        return self._task is not None and not self._task.done()

    async def join(self) -> T:
        """Wait for the run in flight, or start one.

        Cancel: only this caller stops waiting; the run goes on for the others and for the cache.
        Raises:
            FlightClosed: The run was stopped meanwhile.
        """
        task = self._task
        if task is None or task.done():
            task = self._task = asyncio.create_task(self._run(), name="single_flight")
        await asyncio.wait((task,))
        if task.cancelled():
            raise FlightClosed
        return task.result()

    async def close(self) -> None:
        """Stop the run in flight and wait until it is gone."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))
