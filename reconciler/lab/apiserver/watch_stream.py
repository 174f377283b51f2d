"""One watch over HTTP: events as lines, bookmarks, and the end at its timeout."""

import asyncio

from aiohttp import web

from reconciler.clock import Clock
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.faults import HttpFaults
from reconciler.lab.apiserver.representations import Representation, event_bytes
from reconciler.lab.apiserver.watch_cache import WatchFeed, bookmark

LINES_A_WRITE = 500


class WatchStream:
    """An open watch of a client.

    Args:
        bookmark_s: Seconds between bookmarks, 0: none.
    """

    def __init__(
        self,
        core: Core,
        clock: Clock,
        faults: HttpFaults,
        *,
        representation: Representation,
        bookmark_s: float,
    ) -> None:
        self._core = core
        self._clock = clock
        self._faults = faults
        self._representation = representation
        self._bookmark_s = bookmark_s
        self._wakeup = asyncio.Event()
        self._closed = False
        self._sent = False

    def wake(self) -> None:
        """Check the state again: an event arrived, or a fault began or ended."""
        self._wakeup.set()

    def close(self) -> None:
        """End the stream cleanly after the pending events."""
        self._closed = True
        self.wake()

    async def run(self, response: web.StreamResponse, feed: WatchFeed, *, timeout_s: float) -> None:
        """Send events until `timeout_s` passed, the feed ended, or `close` was called."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        period_s = self._bookmark_s or 2 * timeout_s
        bookmark_at = loop.time() + period_s
        while loop.time() < ends_at:
            self._wakeup.clear()
            due = loop.time() >= bookmark_at
            if due:
                bookmark_at = loop.time() + period_s
            if not self._faults.silent:
                while await self._send_pending(response, feed):
                    pass
                if feed.ended:
                    return
                if due and self._bookmark_s and feed.may_bookmark(self._core.version):
                    await self._send_bookmark(response, feed)
            if self._closed:
                return
            try:
                async with asyncio.timeout_at(min(ends_at, bookmark_at)):
                    await self._wakeup.wait()
            except TimeoutError:
                continue

    async def _send_pending(self, response: web.StreamResponse, feed: WatchFeed) -> bool:
        lines: list[bytes] = []
        while len(lines) < LINES_A_WRITE and (event := feed.next()) is not None:
            lines.append(
                event_bytes(
                    feed.kind,
                    event,
                    self._representation,
                    now_s=self._clock.wall(),
                    first=not self._sent,
                )
            )
            self._sent = True
        if lines:
            await response.write(b"".join(lines))
        return bool(lines)

    async def _send_bookmark(self, response: web.StreamResponse, feed: WatchFeed) -> None:
        event = bookmark(feed.kind, self._core.version)
        first, self._sent = not self._sent, True
        await response.write(
            event_bytes(
                feed.kind, event, self._representation, now_s=self._clock.wall(), first=first
            )
        )
