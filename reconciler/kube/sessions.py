"""The session that requests share: a connection pool under one TLS identity, replaced as a whole.

A session whose certificates were rotated is retired, not closed: requests and watches that are
under way on it end as they would have, and the last of them closes it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from reconciler.errors import SettingsError, TransportError
from reconciler.kube.connection import Connection, Credentials
from reconciler.sockets import Connector

UNLIMITED = 0
"""As aiohttp has it; for callers whose number is bounded elsewhere."""


@dataclass(eq=False)
class Link:
    """One session and where it leads."""

    session: aiohttp.ClientSession
    connection: Connection
    users: int = 0

    def is_closed(self) -> bool:
        return self.session.closed


class Sessions:
    """Lends the current session; replaces it when the files behind it have changed.

    Args:
        connections: Size of the pool, or `UNLIMITED`.
    """

    def __init__(self, credentials: Credentials, *, connections: int, user_agent: str) -> None:
        self._credentials = credentials
        self._connections = connections
        self._user_agent = user_agent
        self._lock = asyncio.Lock()
        self._current: Link | None = None
        self._retired: set[Link] = set()
        self._closed = asyncio.Event()

    async def open(self) -> Link:
        """Return the current link, opened if there is none.

        Raises:
            SettingsError: The first one cannot be opened.
            TransportError: `close` was called.
        """
        if self._current is None:
            async with self._lock:
                await self._open_first()
        if self._current is None:
            raise TransportError("the client of the API server is closed")
        return self._current

    async def _open_first(self) -> None:
        if self._current is not None or self._closed.is_set():
            return
        connection = await self._credentials.connection()
        if not self._closed.is_set():
            self._current = self._link(connection)

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Link]:
        """Lend the current link; it stays open until it is given back, replaced or not."""
        link = await self.open()
        link.users += 1
        try:
            yield link
        finally:
            link.users -= 1
            if not link.users and link in self._retired:
                self._retired.discard(link)
                await link.session.close()

    async def replace(self, refused: Link) -> bool:
        """Open a new session if `refused` is not what the files say now; return whether it is not.

        Files that cannot be read, because they are just being replaced, change nothing.
        """
        async with self._lock:
            if self._closed.is_set() or self._current is not refused:
                return not self._closed.is_set()
            try:
                connection = await self._credentials.connection()
            except SettingsError:
                return False
            if self._closed.is_set() or connection.identity == refused.connection.identity:
                return False
            self._current = self._link(connection)
            if refused.users:
                self._retired.add(refused)
                return True
        await refused.session.close()
        return True

    async def close(self) -> None:
        """Close everything, under requests that are under way too; each of them then fails."""
        self._closed.set()
        links = [*self._retired, *([self._current] if self._current else [])]
        self._retired.clear()
        self._current = None
        for link in links:
            await link.session.close()

    def _link(self, connection: Connection) -> Link:
        session = aiohttp.ClientSession(
            connector=Connector(limit=self._connections, ssl=connection.tls or True),
            headers={"User-Agent": self._user_agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return Link(session, connection)
