"""Whether we lead, as the main loop sees it: what the elector said, in its order."""

import asyncio
from collections.abc import Awaitable, Callable


class LeadershipState:
    """Implements `control.leadership.Leadership`; `begin` and `end` belong on the main loop.

    Args:
        resign: Gives the Lease up; returns when that is done.
    """

    is_exclusive = True

    def __init__(self, resign: Callable[[], Awaitable[None]]) -> None:
        self._resign = resign
        self._held = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()

    @property
    def leads(self) -> bool:
        return self._held.is_set()

    def started(self, _term: str) -> None:
        self._free.clear()
        self._held.set()

    def stopped(self, _why: str) -> None:
        self._held.clear()
        self._free.set()

    async def wait_began(self) -> None:
        await self._held.wait()

    async def wait_ended(self) -> None:
        await self._free.wait()

    async def release(self) -> None:
        await self._resign()
