"""Doubles that the tests share; each is small enough to be read instead of trusted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from reconciler.clock import EpochTime, Instant


@dataclass
class ManualClock:
    """A `Clock` that a test moves by hand; both clocks advance together unless stepped."""

    now_at: Instant = Instant(1000)
    wall_s: EpochTime = EpochTime(1_767_225_600)

    def monotonic(self) -> Instant:
        return self.now_at

    def wall(self) -> EpochTime:
        return self.wall_s

    def advance(self, seconds: float) -> None:
        self.now_at += seconds
        self.wall_s += seconds


@dataclass
class Turns:
    """The number of turns that the event loop has made."""

    count: int = 0


@asynccontextmanager
async def counted_turns() -> AsyncIterator[Turns]:
    """Count the turns of the event loop inside of the block."""
    turns = Turns()

    async def count() -> None:
        while True:
            await asyncio.sleep(0)
            turns.count += 1

    counting = asyncio.create_task(count())
    try:
        yield turns
    finally:
        counting.cancel()
