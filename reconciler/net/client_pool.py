"""A shared client session: a connection pool with one TLS identity, replaced as a whole.

Every client of ours uses one. When certificates, keys or configuration files change, a new session
is made from the current files. The old one is drained, not closed at once: requests and watches in
progress continue on it, and the last of them closes it.
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
from reconciler.net.exchange import Exchanges

log = structlog.get_logger()

UNLIMITED = 0
"""No limit, as in aiohttp; for callers that another limit bounds."""

POOL = 100
"""Connections of a pool; aiohttp's default."""

RETRY_S = 30.0
"""Time between two attempts to use files that were unusable and have not changed: a plug-in that
one of them names may have failed, not the file."""


MAX_HEADER_BYTES = 64 * 1024
"""Longest header of an answer, and longest first line. aiohttp's 8,190 bytes are too few for the
policies and cookies that an issuer's gateway adds for browsers."""

MAX_HEADERS = 1000
"""Most headers of an answer; aiohttp's limit is 128."""


@dataclass(frozen=True, slots=True)
class Connection:
    """The address and TLS of a peer; `tls` is None for plain http.

    Args:
        identity: Digest of all inputs of a session: it changes when a certificate or key file
            changes, and then a new session is made.
        server_name: The name that the server's certificate must have, where it is not the host.
    """

    url: str = field(repr=False)
    tls: ssl.SSLContext | None
    proxy: str | None = field(repr=False)
    identity: str
    server_name: str | None = None


class ConnectionSource(Protocol):
    """Provides a peer's address and TLS, from files that other processes rotate."""

    def version(self, *, fresh: bool = False) -> str:
        """Return a value that changes when one of the files changes; see `FileRotation.version`."""
        ...

    async def connection(self) -> Connection:
        """Return the peer's address and TLS, from the files as they are now.

        Raises:
            SettingsError: A file is missing, empty or half written.
        """
        ...


@dataclass(eq=False)
class PooledClient:
    """One session, its connection, and the version of the files from which it was made.

    `exchanges` sends requests with a body on the session's connections, for less CPU.
    """

    session: aiohttp.ClientSession
    exchanges: Exchanges
    connection: Connection
    version: str
    users: int = 0

    def is_closed(self) -> bool:
        return self.session.closed


class ClientPool:
    """Lends the current session; replaces it when its files have changed.

    Args:
        what: The peer's name in the log; "" = another client of the same peer logs for both.
        connections: Size of the pool, or `UNLIMITED`.
        headers: Sent with every request.
        header_bytes: Longest header of an answer.
        max_headers: Most headers of an answer; with `header_bytes` it bounds their memory.
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
        self._draining: set[PooledClient] = set()
        self._closed = asyncio.Event()
        self._unusable_version = ""
        self._retry_at = 0.0
        self._renewal: asyncio.Task[bool] | None = None

    async def __aenter__(self) -> Self:
        """Open the first session; raises `SettingsError` as `open`."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> PooledClient:
        """Return the current client; open the first one if there is none.

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
            self._current = self._new_client(connection, version)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[PooledClient]:
        """Lend the current client; it stays open to the end of the block, replaced or not.

        Where the files have changed, a task makes a new client. The caller does not wait for it: a
        plug-in that the files name may hang, and the current credentials may still be valid.
        """
        client = await self.take()
        try:
            yield client
        finally:
            await self.give_back(client)

    async def take(self) -> PooledClient:
        """Do what `acquire` does; the caller must call `give_back`. A write saves 5 us so."""
        client = self._current or await self.open()
        version = self._source.version()
        if version != client.version and self._may_retry(version):
            self._start_renewal(client, version)
        client.users += 1
        return client

    @asynccontextmanager
    async def hold(self, client: PooledClient) -> AsyncIterator[None]:
        """Keep a client that `acquire` lent open to the end of this block, too."""
        client.users += 1
        try:
            yield
        finally:
            await self.give_back(client)

    async def give_back(self, client: PooledClient) -> None:
        """Undo `take`: a client that was replaced closes with its last user."""
        client.users -= 1
        if not client.users and client in self._draining:
            self._draining.discard(client)
            await client.session.close()

    @asynccontextmanager
    async def request(
        self, method: str, url: str | URL, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request, as aiohttp's session does.

        After a failed handshake, where nothing was sent, it is sent once more if the files have
        changed.
        """
        is_last = False
        while True:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(self.acquire())
                try:
                    response = await stack.enter_async_context(
                        client.session.request(
                            method,
                            url,
                            proxy=client.connection.proxy,
                            server_hostname=client.connection.server_name,
                            **options,
                        )
                    )
                except aiohttp.ClientSSLError:
                    if is_last or not await self.replace(client):
                        raise
                    is_last = True
                    continue
                yield response
                return

    def _start_renewal(self, client: PooledClient, version: str) -> None:
        if self._renewal is not None:
            if not self._renewal.done():
                return
            self._renewal.result()  # raises a defect of ours in the next caller
        self._renewal = asyncio.create_task(self._replace(client, version), name="renew_link")

    def _may_retry(self, version: str) -> bool:
        now_at = asyncio.get_running_loop().time()
        return version != self._unusable_version or now_at >= self._retry_at

    async def replace(self, refused: PooledClient) -> bool:
        """Open a new session if `refused` was made from other files; return whether it was.

        Files that cannot be used, because they are being replaced, change nothing.
        """
        return await self._replace(refused, self._source.version(fresh=True))

    async def _replace(self, refused: PooledClient, version: str) -> bool:
        """Replace a client by one of a version; a failure is logged once and keeps the old one."""
        async with self._lock:
            if self._closed.is_set() or self._current is not refused:
                return not self._closed.is_set()
            try:
                connection = await self._source.connection()
            except SettingsError as error:
                self._retry_at = asyncio.get_running_loop().time() + RETRY_S
                if self._unusable_version != version and self._what:
                    log.warning("rotated_file_kept", peer=self._what, reason=str(error))
                self._unusable_version = version
                return False
            if self._closed.is_set():
                return False
            self._unusable_version = ""
            if connection.identity == refused.connection.identity:
                refused.version = version
                return False
            self._current = self._new_client(connection, version)
            if self._what:
                log.info("rotated_file_read", peer=self._what)
            if refused.users:
                self._draining.add(refused)
                return True
        await refused.session.close()
        return True

    async def close(self) -> None:
        """Close all sessions; requests in progress fail."""
        self._closed.set()
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        clients = [*self._draining, *([self._current] if self._current else [])]
        self._draining.clear()
        self._current = None
        for client in clients:
            await client.session.close()

    def _new_client(self, connection: Connection, version: str) -> PooledClient:
        tls = connection.tls
        if tls is None and (connection.proxy or "").startswith("https:"):
            tls = ssl.create_default_context()  # for the proxy: aiohttp's own may be without CAs
        connector = Connector(limit=self._connections, ssl=tls or True)
        limits: dict[str, Any] = {
            "max_line_size": self._header_bytes,
            "max_field_size": self._header_bytes,
            "max_headers": self._max_headers,
        }
        session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            **limits,
        )
        exchanges = Exchanges(
            connector,
            connection.url,
            headers=self._headers,
            proxy=connection.proxy,
            server_name=connection.server_name,
            limits=limits,
        )
        return PooledClient(session, exchanges, connection, version)


Requests = ClientPool | aiohttp.ClientSession
"""A sender of requests; aiohttp's session where no file is rotated."""
