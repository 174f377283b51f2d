"""A few gRPC channels shared by up to 1,000 runners; each call's metadata names its runner."""

from itertools import cycle
from types import TracebackType
from typing import Any, Self

import grpc

from reconciler.lab.runners.server import MAX_METADATA_BYTES, PUSH, SERVICE, WATCH

CHANNELS = 4
"""HTTP/2 connections: 250 streams each for 1,000 runners."""


class Channel:
    """One connection with the two methods of the service; requests and responses are bytes."""

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
    """A fixed pool, used round robin, open while entered."""

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

    def next_channel(self) -> Channel:
        """Return the next channel; the pool still owns it."""
        channel: Channel = next(self._next)
        return channel
