"""One runner's gRPC client: a token in memory, a stream, and pushes at random intervals.

Source: the platform's runner, `_grpc_client.py`: the file is read when the client is made and when
it reconnects, never because it changed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import grpc

from reconciler.lab.kubelet.pods import FILE_NAME
from reconciler.lab.runners.server import (
    MAX_METADATA_BYTES,
    PUSH,
    SERVICE,
    SESSION_HEADER,
    WATCH,
)
from reconciler.lab.runners.tokens import Bearer, read_bearer
from reconciler.naming import SessionKey

CALL_LIMIT_S = 5.0
"""Source: the platform's runner, `_session_messages_api.py`: pushes have 5 s."""
FILE_POLL_S = 0.5

CHANNELS = 4
"""HTTP/2 connections that the runners share: 250 streams each for 1,000 runners."""

Rand = Callable[[float, float], float]
T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds between two calls, chosen uniformly.

    Args:
        push_s: Between two pushes.
        reconnect_s: How long a stream is kept before it is dropped and opened again.
        pause_s: After a stream that could not be opened. The real runner pauses about 30 s, which
            would hide failures in a demo of one minute.
    """

    push_s: tuple[float, float] = (5.0, 25.0)
    reconnect_s: tuple[float, float] = (60.0, 300.0)
    pause_s: tuple[float, float] = (1.0, 3.0)


class CallLedger(Protocol):
    """Records refused calls."""

    def refused(self, session: SessionKey, *, retry_succeeded: bool) -> None: ...


class Runner:
    """The client of one container; `listen` and `push` run at the same time until cancelled."""

    def __init__(
        self,
        session: SessionKey,
        directory: Path,
        channel: Channel,
        ledger: CallLedger,
        rates: Rates,
        rand: Rand,
    ) -> None:
        self._session = session
        self._file = directory / FILE_NAME
        self._channel = channel
        self._ledger = ledger
        self._rates = rates
        self._rand = rand
        self._bearer: Bearer | None = None

    def __repr__(self) -> str:
        return f"<Runner {self._session}>"

    async def listen(self) -> None:
        """Keep a stream open; drop it after a random time, read the file, open the next at once."""
        await self._wait_token()
        while True:
            stream = await self._retrying(self._open)
            if stream is None or not await self._hold(stream):
                await asyncio.sleep(self._rand(*self._rates.pause_s))
            self._reload()

    async def push(self) -> None:
        """Push at random intervals."""
        await self._wait_token()
        while True:
            await asyncio.sleep(self._rand(*self._rates.push_s))
            await self._retrying(self._push_once)

    async def _wait_token(self) -> None:
        while self._bearer is None:
            self._reload()
            if self._bearer is None:
                await asyncio.sleep(FILE_POLL_S)

    def _reload(self) -> None:
        self._bearer = read_bearer(self._file) or self._bearer

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        header = self._bearer.header() if self._bearer is not None else ""
        return (("authorization", header), (SESSION_HEADER, str(self._session)))

    async def _retrying(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Make a call; if it is refused, read the file once and retry once. None: it failed."""
        try:
            return await call()
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            if not _unauthenticated(error):
                return None
        self._reload()
        try:
            result = await call()
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            if _unauthenticated(error):
                self._ledger.refused(self._session, retry_succeeded=False)
            return None
        self._ledger.refused(self._session, retry_succeeded=True)
        return result

    async def _open(self) -> Any:
        """Open the stream and wait for its first event, which proves that the token is accepted."""
        stream = self._channel.watch(b"", metadata=self._metadata())
        async with asyncio.timeout(CALL_LIMIT_S):
            await stream.read()
        return stream

    async def _push_once(self) -> bytes:
        call = self._channel.push(b"", metadata=self._metadata(), timeout=CALL_LIMIT_S)
        answer: bytes = await call
        return answer

    async def _hold(self, stream: Any) -> bool:
        """Read the stream for a random time, then drop it; returns False if it ended before.

        Cancel: the stream is dropped; grpc.aio cancels a call whose read is cancelled.
        """
        try:
            async with asyncio.timeout(self._rand(*self._rates.reconnect_s)):
                while await stream.read() is not grpc.aio.EOF:
                    pass
        except TimeoutError:
            return True
        except grpc.aio.AioRpcError:
            return False
        finally:
            stream.cancel()
        return False


def _unauthenticated(error: Exception) -> bool:
    code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
    return code is grpc.StatusCode.UNAUTHENTICATED
