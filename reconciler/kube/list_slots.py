"""Long requests begun a few at one time: a takeover or a start lists every namespace twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PARALLEL = 8
"""Lists that begin together: the API server answers each from memory, and we decode it in one
thread."""

TURN_S = 5.0
"""A list that takes longer gives its turn on, and goes on: one that hangs for its minute must not
keep other namespaces from being listed."""


class ListSlots:
    """Gives turns to those who ask, in their order."""

    def __init__(self, parallel: int = PARALLEL, *, turn_s: float = TURN_S) -> None:
        self._free = asyncio.Semaphore(parallel)
        self._turn_s = turn_s

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a turn; it ends with the block, or after `turn_s`.

        Cancel: the turn goes to the next.
        """
        await self._free.acquire()
        is_held = True

        def give_on() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._free.release()

        timer = asyncio.get_running_loop().call_later(self._turn_s, give_on)
        try:
            yield
        finally:
            timer.cancel()
            give_on()
