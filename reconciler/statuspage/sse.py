"""Server-sent events: each reader gets its view when it changes, at a bounded cost.

An event `beat` says that the reader's view is that of now, and in how many seconds the next one is
due: a reader that gets none knows that its view grows old.
"""

import asyncio
from asyncio import Task
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

import msgspec
from aiohttp import web

from reconciler.clock import Clock
from reconciler.statuspage.cache import PageCache, TooManyReaders
from reconciler.statuspage.query import SessionQuery

MAX_STREAMS = 32
"""Most readers at a time; one more gets 503, and its page is not live."""

PERIOD_S = 2.0
"""Shortest time between two renderings of a view, in seconds."""

PAUSE_FACTOR = 20
"""A view is rendered again after this many times its rendering time: on a fleet so large that this
is longer than `PERIOD_S`, a page that is read costs a twentieth of a core."""

LONGEST_S = 15.0
"""Longest time between two events, with heartbeats: a proxy or a reader may close a stream that is
silent for longer."""

DROP_S = 10.0
"""A reader that does not receive an event within this is disconnected."""

BUFFER_BYTES = 128 * 1024
"""The socket's send buffer for one reader; a slow reader is detected in time."""

HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
"""`X-Accel-Buffering` makes nginx forward events at once."""


class SseStreams:
    """The open streams; `close` ends them.

    Args:
        period_s: Shortest time between two renderings, in seconds.
        drop_s: Longest wait for a reader, in seconds.
        most: Most readers at a time.
        pause_factor: A view is rendered again after this many times its rendering time.
    """

    def __init__(
        self,
        views: PageCache,
        clock: Clock,
        *,
        period_s: float = PERIOD_S,
        drop_s: float = DROP_S,
        most: int = MAX_STREAMS,
        pause_factor: float = PAUSE_FACTOR,
    ) -> None:
        self._views = views
        self._clock = clock
        self._period_s = period_s
        self._drop_s = drop_s
        self._most = most
        self._pause_factor = pause_factor
        self._open: set[Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one reader until it disconnects or is too slow."""
        task = asyncio.current_task()
        if task is None or len(self._open) >= self._most:
            return web.Response(
                status=503, text="too many readers\n", headers={"Retry-After": "10"}
            )
        self._open.add(task)
        try:
            return await self._serve(request)
        finally:
            self._open.discard(task)

    async def close(self) -> None:
        """End every stream; the readers reconnect."""
        for task in self._open:
            task.cancel()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        query = SessionQuery.parse(request.query)
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        if request.transport is not None:
            peer = request.transport.get_extra_info("socket")
            peer.setsockopt(SOL_SOCKET, SO_SNDBUF, BUFFER_BYTES)
        try:
            await self._send(response, query)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # the reader has disconnected
        return response

    async def _send(self, response: web.StreamResponse, query: SessionQuery) -> None:
        await self._write(response, "retry: 2000\n\n")
        last = ""
        while True:
            began_at = self._clock.monotonic()
            try:
                html = await self._views.part(query)
            except TooManyReaders:
                html = ""
            taken_s = self._clock.monotonic() - began_at
            wait_s = min(max(self._period_s, self._pause_factor * taken_s), LONGEST_S)
            if not html:
                await self._write(response, ": too many readers\n\n")  # keeps the stream open
            else:
                view = "" if html == last else f"event: view\ndata: {_line(html)}\n\n"
                due_s = wait_s + taken_s  # the next one takes its time, too, behind other readers
                await self._write(response, f"{view}event: beat\ndata: {due_s:.3f}\n\n")
                last = html
            await asyncio.sleep(wait_s)

    async def _write(self, response: web.StreamResponse, text: str) -> None:
        async with asyncio.timeout(self._drop_s):
            await response.write(text.encode())


def _line(html: str) -> str:
    """Return a document as one line, as an event's data must be."""
    return msgspec.json.encode(html).decode()
