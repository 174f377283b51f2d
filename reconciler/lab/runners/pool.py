"""A few gRPC channels for a thousand runners; whose call it is travels in its metadata."""

import asyncio
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from reconciler.lab.runners.runner import Draw, Ledger, Rates, Runner
from reconciler.lab.runners.server import MAX_METADATA_BYTES, PUSH, SERVICE, WATCH
from reconciler.naming import SessionKey

CHANNELS = 4
"""HTTP/2 connections: 250 streams each for 1,000 runners."""


class Channel:
    """One connection and its two methods; bytes in and out."""

    def __init__(self, target: str) -> None:
        # Channels with equal options would share one connection.
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ]
        self._channel = grpc.aio.insecure_channel(target, options=options)
        self.watch = self._channel.unary_stream(f"/{SERVICE}/{WATCH}")
        self.push = self._channel.unary_unary(f"/{SERVICE}/{PUSH}")

    async def close(self) -> None:
        await self._channel.close()


class Channels:
    """A fixed pool, dealt round robin, open while entered."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._all: list[Channel] = []
        self._next: Any = None

    async def __aenter__(self) -> Self:
        self._all = [Channel(self._target) for _ in range(CHANNELS)]
        self._next = cycle(self._all)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for channel in self._all:
            await channel.close()

    def deal(self) -> Channel:
        """Return the next channel; it stays the pool's."""
        channel: Channel = next(self._next)
        return channel


class Crew:
    """Starts and stops runners by container ID; their tasks belong to the caller's group."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        channels: Channels,
        ledger: Ledger,
        rates: Rates,
        draw: Draw,
    ) -> None:
        self._group = group
        self._channels = channels
        self._ledger = ledger
        self._rates = rates
        self._draw = draw
        self._tasks: dict[str, tuple[asyncio.Task[None], ...]] = {}

    def __repr__(self) -> str:
        return f"<Crew {len(self._tasks)} runners>"

    def start(self, container: str, session: SessionKey, directory: Path) -> None:
        """Start the runner that reads its token from this directory."""
        channel = self._channels.deal()
        runner = Runner(session, directory, channel, self._ledger, self._rates, self._draw)
        self._tasks[container] = tuple(
            self._group.create_task(work) for work in (runner.listen(), runner.push())
        )

    def stop(self, container: str) -> None:
        """Stop a runner at its next await; calls in flight are cancelled and not counted."""
        for task in self._tasks.pop(container, ()):
            task.cancel()

    def stop_all(self) -> None:
        for container in list(self._tasks):
            self.stop(container)
