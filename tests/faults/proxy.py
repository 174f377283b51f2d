"""A proxy in front of a real server, which relays each answer, or breaks it as a fault says.

It ends TLS with the server's own certificate, so that a fault can change HTTP; a fault of bytes
gets what TLS sends, of a connection that the proxy only forwards.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

CHUNK = 64 * 1024
LINE_LIMIT = 2**20
GONE = (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError, TimeoutError)
"""How an end of a connection ends that one of both peers, or a fault, has closed."""


@dataclass
class Answer:
    """One answer of the real server: its head, and its body as it comes, without its framing.

    Attributes:
        request: First line of the request.
        head: Status line and headers with their line ends, without the empty line.
    """

    request: str
    head: bytes
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    @property
    def is_watch(self) -> bool:
        return "watch=1" in self.request

    @property
    def is_chunked(self) -> bool:
        return b"transfer-encoding: chunked" in self.head.lower()

    @property
    def start(self) -> bytes:
        """The head without the headers of the body's framing."""
        lines = self.head.split(b"\r\n")
        framing = (b"content-length:", b"transfer-encoding:")
        return b"\r\n".join(line for line in lines if not line.lower().startswith(framing))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        self._writer.transport.abort()

    async def data(self) -> AsyncIterator[bytes]:
        """Yield the body's pieces as the server sends them; each chunk of a watch is a line."""
        if not self.is_chunked:
            yield await self._reader.readexactly(_length(self.head))
            return
        while size := int((await self._reader.readline()).partition(b";")[0], 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()

    async def body(self) -> bytes:
        """Return the whole body; of a watch, the first line."""
        found = b""
        async for piece in self.data():
            found += piece
            if self.is_watch:
                break
        return found

    async def relay(self, *, extension: bytes = b"", trailers: bytes = b"") -> None:
        """Send the answer as it came, with chunk extensions and trailers where it has chunks."""
        await self.send(self.head + b"\r\n")
        async for piece in self.data():
            await self.send(chunk(piece, extension) if self.is_chunked else piece)
        if self.is_chunked:
            await self.send(b"0\r\n" + trailers + b"\r\n")


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)


Play = Callable[[Answer], Awaitable[None]]
"""Sends what a fault makes of an answer."""

Mangle = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
"""Sends what a fault leaves of some bytes of the server."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class FaultProxy:
    """Listens on loopback while `running`; both faults apply from now on, also to what is open.

    A front forwards bytes, of TLS if there is any, to a second listener, which ends TLS and relays
    requests.

    Attributes:
        upstreams: URLs of the real servers; connections take them in turn.
        serving: Certificate of the proxy; None: plain HTTP.
        trust: How the real servers are verified.
        play: The fault of HTTP, of each answer; None relays.
        mangle: The fault of bytes, of all that servers send; None forwards.
        requests: When each request came, and its first line.
        connections: When each connection came.
    """

    upstreams: list[str]
    serving: ssl.SSLContext | None = None
    trust: ssl.SSLContext | None = None
    play: Play | None = None
    mangle: Mangle | None = None
    requests: list[tuple[float, str]] = field(default_factory=list)
    connections: list[float] = field(default_factory=list)
    url: str = ""
    _relayed: int = 0
    _relay_port: int = 0
    _open: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FaultProxy"]:
        relay = await asyncio.start_server(
            self._accepted(self._exchange), "127.0.0.1", 0, ssl=self.serving, limit=LINE_LIMIT
        )
        front = await asyncio.start_server(self._accepted(self._forward), "127.0.0.1", 0)
        self._relay_port = relay.sockets[0].getsockname()[1]
        scheme = "https" if self.serving else "http"
        self.url = f"{scheme}://127.0.0.1:{front.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            front.close()
            relay.close()
            self.play = self.mangle = None
            self.reset_connections()
            if self._open:
                await asyncio.wait(self._open)

    def reset_connections(self) -> None:
        """Reset what is open."""
        for writer in list(self._open.values()):
            writer.transport.abort()

    def _accepted(self, serve: Serve) -> Serve:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._open[task] = writer
            try:
                await serve(reader, writer)
            except GONE:
                writer.transport.abort()
            finally:
                del self._open[task]
                writer.close()

        return accept

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(monotonic())
        relay_reader, relay_writer = await asyncio.open_connection("127.0.0.1", self._relay_port)

        async def upwards() -> None:
            while data := await reader.read(CHUNK):
                relay_writer.write(data)

        async def downwards() -> None:
            while data := await relay_reader.read(CHUNK):
                await (self.mangle or _send)(data, writer)

        try:
            await _first(upwards(), downwards())
        finally:
            relay_writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._relayed += 1
        target = urlsplit(self.upstreams[self._relayed % len(self.upstreams)])
        up_reader, up_writer = await asyncio.open_connection(
            target.hostname, target.port, ssl=self.trust, limit=LINE_LIMIT
        )
        try:
            while (head := await _read_head(reader)) and not writer.is_closing():
                line = head.partition(b"\r\n")[0].decode("latin-1")
                self.requests.append((monotonic(), line))
                body = await reader.readexactly(_length(head))
                up_writer.write(head + b"\r\n" + body)
                answer = Answer(line, await _read_head(up_reader), up_reader, writer)
                playing = self._play(answer)
                await (_first(playing, _wait_gone(reader)) if answer.is_watch else playing)
        finally:
            up_writer.transport.abort()
            writer.transport.abort()  # TLS would wait for the peer's close_notify

    async def _play(self, answer: Answer) -> None:
        await (answer.relay() if self.play is None else self.play(answer))


async def _first(*works: Coroutine[Any, Any, None]) -> None:
    """Return when one of them has ended, and cancel the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, GONE):
                raise result


async def _send(data: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(data)
    await writer.drain()


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    """Return a first line and its headers, without the empty line; b"" at a clean end."""
    head = b""
    while (line := await reader.readline()) not in (b"\r\n", b""):
        head += line
    return head


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def _wait_gone(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(*GONE):
        while await reader.read(CHUNK):
            pass
