"""The session that requests share: a connection pool under one TLS identity, replaced as a whole.

Every client of ours has one: whatever certificates, keys or configuration are rotated, the session
is built again from the files as they are then. The old one is retired, not closed: requests and
watches that are under way on it end as they would have, and the last of them closes it.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import aiohttp
import structlog
from yarl import URL

from reconciler.errors import SettingsError, TransportError
from reconciler.net.connector import Connector

log = structlog.get_logger()

UNLIMITED = 0
"""As aiohttp has it; for callers whose number is bounded elsewhere."""

POOL = 100
"""aiohttp's own size of a pool."""

AGAIN_S = 30.0
"""Between tries of files that could not be used and stay as they are: a plug-in that one of them
names may have failed, not the file."""


MAX_HEADER_BYTES = 64 * 1024
"""Longest header of an answer, and longest first line. aiohttp's 8,190 bytes are less than what an
issuer's gateway adds for a browser: policies and cookies."""

MAX_HEADERS = 1000
"""Most headers of an answer; aiohttp's limit is 128."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a peer is; `tls` is None for plain http.

    Args:
        identity: Digest of everything below a session: it changes when a certificate or key file
            does, and then the session is built anew.
        server_name: The name that the server's certificate must hold, where it is not the host's.
    """

    url: str = field(repr=False)
    tls: ssl.SSLContext | None
    proxy: str | None = field(repr=False)
    identity: str
    server_name: str | None = None


class ConnectionSource(Protocol):
    """Says where to connect, from files that others rotate."""

    def version(self, *, fresh: bool = False) -> str:
        """Return what changes when one of the files does; see `Rotation.version`."""
        ...

    async def connection(self) -> Connection:
        """Return where to connect, from the files as they are now.

        Raises:
            SettingsError: It cannot be known: a file is missing, empty or half written.
        """
        ...


@dataclass(eq=False)
class PooledClient:
    """One session, where it leads, and the version of the files that it was made of."""

    session: aiohttp.ClientSession
    connection: Connection
    version: str
    users: int = 0

    def is_closed(self) -> bool:
        return self.session.closed


class ClientPool:
    """Lends the current session; replaces it when the files behind it have changed.

    Args:
        what: The peer's name in the log, "" where another client of the same peer speaks.
        connections: Size of the pool, or `UNLIMITED`.
        headers: Sent with every request.
        header_bytes: Longest header of an answer.
        max_headers: Most headers of an answer; with `header_bytes` they bound what it may take.
    """

    def __init__(
        self,
        source: ConnectionSource,
        *,
        what: str,
        connections: int = POOL,
        headers: Mapping[str, str] | None = None,
        header_bytes: int = MAX_HEADER_BYTES,
        max_headers: int = MAX_HEADERS,
    ) -> None:
        self._source = source
        self._what = what
        self._connections = connections
        self._headers = headers
        self._header_bytes = header_bytes
        self._max_headers = max_headers
        self._lock = asyncio.Lock()
        self._current: PooledClient | None = None
        self._retired: set[PooledClient] = set()
        self._closed = asyncio.Event()
        self._unusable = ""
        self._again_at = 0.0
        self._renewal: asyncio.Task[bool] | None = None

    async def __aenter__(self) -> Self:
        """Open the first session; raises `SettingsError` as `open`."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> PooledClient:
        """Return the current link, opened if there is none.

        Raises:
            SettingsError: The first one cannot be opened.
            TransportError: `close` was called.
        """
        if self._current is None:
            async with self._lock:
                await self._open_first()
        if self._current is None:
            raise TransportError("the client is closed")
        return self._current

    async def _open_first(self) -> None:
        if self._current is not None or self._closed.is_set():
            return
        version = self._source.version(fresh=True)
        connection = await self._source.connection()
        if not self._closed.is_set():
            self._current = self._link(connection, version)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[PooledClient]:
        """Lend the current link; it stays open until it is given back, replaced or not.

        Where the files have changed, another one is made beside it: a plug-in that they name may
        hang, and what there is may well be good for another while.
        """
        link = await self.open()
        version = self._source.version()
        if version != link.version and self._is_worth_a_try(version):
            self._renew_beside(link, version)
        link.users += 1
        try:
            yield link
        finally:
            link.users -= 1
            if not link.users and link in self._retired:
                self._retired.discard(link)
                await link.session.close()

    @asynccontextmanager
    async def request(
        self, method: str, url: str | URL, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request, as aiohttp's session does.

        After a failed handshake, when nothing was sent yet, it is sent once more if the files have
        changed meanwhile.
        """
        is_last = False
        while True:
            async with AsyncExitStack() as stack:
                link = await stack.enter_async_context(self.acquire())
                try:
                    response = await stack.enter_async_context(
                        link.session.request(
                            method,
                            url,
                            proxy=link.connection.proxy,
                            server_hostname=link.connection.server_name,
                            **options,
                        )
                    )
                except aiohttp.ClientSSLError:
                    if is_last or not await self.replace(link):
                        raise
                    is_last = True
                    continue
                yield response
                return

    def _renew_beside(self, link: PooledClient, version: str) -> None:
        if self._renewal is not None:
            if not self._renewal.done():
                return
            self._renewal.result()  # a defect of ours: whoever asks next is told
        self._renewal = asyncio.create_task(self._replace(link, version), name="renew_link")

    def _is_worth_a_try(self, version: str) -> bool:
        now_at = asyncio.get_running_loop().time()
        return version != self._unusable or now_at >= self._again_at

    async def replace(self, refused: PooledClient) -> bool:
        """Open a new session if `refused` is not what the files say now; return whether it is not.

        Files that cannot be used, because they are just being replaced, change nothing.
        """
        return await self._replace(refused, self._source.version(fresh=True))

    async def _replace(self, refused: PooledClient, version: str) -> bool:
        """Replace a link by that of a version; the last good one stays, which is said once."""
        async with self._lock:
            if self._closed.is_set() or self._current is not refused:
                return not self._closed.is_set()
            try:
                connection = await self._source.connection()
            except SettingsError as error:
                self._again_at = asyncio.get_running_loop().time() + AGAIN_S
                if self._unusable != version and self._what:
                    log.warning("rotated_file_kept", peer=self._what, reason=str(error))
                self._unusable = version
                return False
            if self._closed.is_set():
                return False
            self._unusable = ""
            if connection.identity == refused.connection.identity:
                refused.version = version
                return False
            self._current = self._link(connection, version)
            if self._what:
                log.info("rotated_file_read", peer=self._what)
            if refused.users:
                self._retired.add(refused)
                return True
        await refused.session.close()
        return True

    async def close(self) -> None:
        """Close everything, under requests that are under way too; each of them then fails."""
        self._closed.set()
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        links = [*self._retired, *([self._current] if self._current else [])]
        self._retired.clear()
        self._current = None
        for link in links:
            await link.session.close()

    def _link(self, connection: Connection, version: str) -> PooledClient:
        session = aiohttp.ClientSession(
            connector=Connector(limit=self._connections, ssl=connection.tls or True),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            max_line_size=self._header_bytes,
            max_field_size=self._header_bytes,
            max_headers=self._max_headers,
        )
        return PooledClient(session, connection, version)


Requests = ClientPool | aiohttp.ClientSession
"""What sends a request; the latter where nothing is rotated."""
