"""A server on loopback that answers each request with the next turn of a script, byte by byte.

It finds the end of a request and knows no other rule of HTTP, so that it can break every rule.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.secrecy.outputs import OUTPUTS, body_of, head_of

Turn = Callable[["Peer"], Awaitable[None]]
"""Plays one answer; the connection stays open after it unless it closes or resets it."""


@dataclass
class Request:
    """What arrived: the request line, headers (names in lower case), and the body."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Peer:
    """The server's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Reset the connection, as after a crash of the host."""
        self.writer.transport.abort()

    async def wait_gone(self) -> None:
        """Return when the client has dropped the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except (ConnectionError, ssl.SSLError):
            return


@dataclass
class Scripted:
    """The server: the requests that it got, and the answers that are left."""

    turns: list[Turn] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    gone: int = 0
    url: str = ""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer)
        try:
            while (request := await self._read(reader)) is not None:
                self.requests.append(request)
                _note(request)
                await self.turns.pop(0)(peer)
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass  # clients of these tests leave in every way there is
        finally:
            self.gone += 1
            writer.transport.abort()
            self._tasks.discard(task)

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = await reader.readline()
            if not line:
                return None
            self.raw += line
            head += line
        first, *rest = head.decode("latin-1").strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in rest)
        original = {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in rest}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.raw += body
        return Request(first, original, body)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _note(request: Request) -> None:
    """Search a request for secrets, its own credentials excepted."""
    method, _, target = request.line.removesuffix(" HTTP/1.1").partition(" ")
    OUTPUTS.left(f"the head of {method}", head_of(target, request.headers))
    body = body_of(target, request.headers.get("content-type", ""), request.body)
    OUTPUTS.left(f"the body of {method}", body)


@asynccontextmanager
async def scripted(*turns: Turn, tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    """Serve `turns`, one a request, over all connections together."""
    state = Scripted(list(turns))
    server = await asyncio.start_server(state.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    state.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield state
    finally:
        server.close()
        await state.stop()
        await server.wait_closed()


def answer(
    status: int = 200, body: bytes = b"{}", *, headers: str = "", cut_to: int | None = None
) -> Turn:
    """Answer whole; with `cut_to`, promise the body's length, send that much, and reset."""

    async def turn(peer: Peer) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        await peer.send(head.encode() + body[:cut_to])
        if cut_to is not None:
            peer.close()

    return turn


def stream(*chunks: bytes, then: str = "hold") -> Turn:
    """Open a chunked answer; then `end` it cleanly, `reset` it, or `hold` it in silence."""

    async def turn(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for chunk in chunks:
            await peer.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if then == "end":
            await peer.send(b"0\r\n\r\n")
        elif then == "reset":
            peer.reset()
        else:
            await peer.wait_gone()

    return turn


def silence() -> Turn:
    """Read the request and send no answer."""

    async def turn(peer: Peer) -> None:
        await peer.wait_gone()

    return turn


def raw(data: bytes) -> Turn:
    """Send these bytes, and close."""

    async def turn(peer: Peer) -> None:
        await peer.send(data)
        peer.close()

    return turn
