"""Limits the lists that begin at one time: a takeover or a start lists every namespace twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PARALLEL = 8
"""Lists in progress at one time: the API server answers each from memory, and we decode in one
thread."""

TURN_S = 5.0
"""A list that takes longer frees its slot, and continues: one that hangs for its minute must not
delay the lists of other namespaces."""


class ListSlots:
    """Gives out a bounded number of slots, first come, first served."""

    def __init__(self, parallel: int = PARALLEL, *, turn_s: float = TURN_S) -> None:
        self._free = asyncio.Semaphore(parallel)
        self._turn_s = turn_s

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot; it is freed at the end of the block, or after `turn_s`.

        Cancel: the slot goes to the next waiter.
        """
        await self._free.acquire()
        is_held = True

        def free_slot() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._free.release()

        timer = asyncio.get_running_loop().call_later(self._turn_s, free_slot)
        try:
            yield
        finally:
            timer.cancel()
            free_slot()
