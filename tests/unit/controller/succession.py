"""A replica that stands by until the test has it lead."""

import asyncio


class Succession:
    """A leadership that the test starts: until then this replica stands by."""

    def __init__(self) -> None:
        self._began = asyncio.Event()

    @property
    def leads(self) -> bool:
        return self._began.is_set()

    def begin(self) -> None:
        self._began.set()

    async def wait_started(self) -> None:
        await self._began.wait()

    async def wait_stopped(self) -> None:
        await asyncio.Event().wait()

    async def release(self) -> None:
        return
