"""The seam over HTTP: one session, a time limit on every await, every failure one of our errors."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from aiohttp.payload import BytesPayload
from multidict import CIMultiDictProxy
from yarl import URL

from reconciler import __version__
from reconciler.errors import DeposedError, TransportError, Unauthorized, WireError
from reconciler.kube.api import Body, Event, Page, Permit, Resource, Scope, Watch
from reconciler.kube.credentials import Connection, Credentials
from reconciler.kube.failures import error_of_answer
from reconciler.kube.lines import LineBuffer
from reconciler.names import Names

T = TypeVar("T")

CONNECT_S = 5.0
WATCH_START_S = 15.0
"""Longest wait for a watch's status line: the server sends it at once, a dead proxy never."""

_FOREIGN = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
_PARTIAL = "application/json;as={};g=meta.k8s.io;v=v1,application/json"


class _GuardedBody(BytesPayload):
    """A body that asks for leave at the moment its bytes go to the socket, with no await between.

    Signing, connecting and waiting for a free connection all happen before; a lease can end in
    each of them.
    """

    def __init__(self, data: bytes, content_type: str, permit: Permit | None) -> None:
        super().__init__(data, content_type=content_type)
        self._permit = permit

    async def write(self, writer: Any) -> None:
        self._ask()
        await super().write(writer)

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        self._ask()
        await super().write_with_length(writer, content_length)

    def _ask(self) -> None:
        if self._permit is not None:
            self._permit()


class HttpKube:
    """The five verbs against a real API server.

    Args:
        credentials: Read for every request; read again once after a 401.
        connections: Size of the pool: watches + workers + a few, or requests queue unseen.
    """

    def __init__(self, credentials: Credentials, names: Names, *, connections: int) -> None:
        self._credentials = credentials
        self._manager = names.field_manager
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._connection: Connection | None = None

    async def __aenter__(self) -> "HttpKube":
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def list(
        self,
        resource: Resource[T],
        scope: Scope,
        *,
        limit: int = 0,
        continue_token: str = "",
        version: str = "",
        limit_s: float = 30.0,
    ) -> Page[T]:
        params = _selectors(scope)
        if limit:
            params["limit"] = str(limit)
        if continue_token:
            params["continue"] = continue_token
        elif version:
            params["resourceVersion"] = version
            params["resourceVersionMatch"] = "NotOlderThan"
        accept = _accept(resource, "PartialObjectMetadataList")
        body = await self._request(
            "GET", _path(resource, scope.namespace), limit_s, params=params, accept=accept
        )
        return resource.decode_page(body)

    @asynccontextmanager
    async def watch(
        self, resource: Resource[T], scope: Scope, *, version: str, timeout_s: int
    ) -> AsyncIterator[Watch[T]]:
        params = _selectors(scope) | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(timeout_s),
        }
        what = f"watch {resource.plural}"
        headers = {"Accept": _accept(resource, "PartialObjectMetadata")}
        response = await self._start_watch(_path(resource, scope.namespace), params, headers, what)
        try:
            yield HttpWatch(response, resource, what)
        finally:
            response.close()

    async def get(
        self, resource: Resource[T], namespace: str, name: str, *, limit_s: float = 10.0
    ) -> T:
        accept = _accept(resource, "PartialObjectMetadata")
        path = _path(resource, namespace, name)
        return resource.decode(await self._request("GET", path, limit_s, accept=accept))

    async def create(
        self,
        resource: Resource[T],
        namespace: str,
        body: Body,
        *,
        limit_s: float = 10.0,
        permit: Permit | None = None,
    ) -> T:
        answer = await self._write(
            "POST", _path(resource, namespace), "application/json", resource, body, limit_s, permit
        )
        return resource.decode(answer)

    async def patch(
        self,
        resource: Resource[T],
        namespace: str,
        name: str,
        body: Body,
        *,
        limit_s: float = 10.0,
        permit: Permit | None = None,
    ) -> T:
        answer = await self._write(
            "PATCH",
            _path(resource, namespace, name),
            "application/merge-patch+json",
            resource,
            body,
            limit_s,
            permit,
        )
        return resource.decode(answer)

    async def ready(self, *, limit_s: float = 5.0) -> None:
        await self._request("GET", "/readyz", limit_s)

    async def _write(
        self,
        method: str,
        path: str,
        content_type: str,
        resource: Resource[T],
        body: Body,
        limit_s: float,
        permit: Permit | None,
    ) -> bytes:
        data = msgspec.json.encode(body)
        return await self._request(
            method,
            path,
            limit_s,
            params={"fieldManager": self._manager},
            accept=_accept(resource, "PartialObjectMetadata"),
            data=data,
            content_type=content_type,
            permit=permit,
        )

    async def _request(
        self,
        method: str,
        path: str,
        limit_s: float,
        *,
        params: Mapping[str, str] | None = None,
        accept: str = "application/json",
        data: bytes | None = None,
        content_type: str = "",
        permit: Permit | None = None,
    ) -> bytes:
        """Send one request; a 401 is sent once more with credentials that were read again."""
        what = f"{method} {path}"
        for last in (False, True):
            session = await self._open()
            payload = None if data is None else _GuardedBody(data, content_type, permit)
            headers = {"Accept": accept} | await self._credentials.headers()
            try:
                async with session.request(
                    method,
                    self._url(path, params),
                    headers=headers,
                    data=payload,
                    timeout=aiohttp.ClientTimeout(total=limit_s, sock_connect=CONNECT_S),
                    allow_redirects=False,
                    proxy=self._proxy,
                ) as response:
                    body = await response.read()
                    status, answer_headers = response.status, response.headers
            except _FOREIGN as error:
                _raise_transport(error, what)
            if status < 300:
                return body
            error_of = error_of_answer(
                status, body, what=what, retry_after_s=_retry_after(answer_headers)
            )
            if last or not isinstance(error_of, Unauthorized):
                raise error_of
            await self._renew()
        raise AssertionError("unreachable: the second round returns or raises")

    async def _start_watch(
        self, path: str, params: Mapping[str, str], headers: Mapping[str, str], what: str
    ) -> aiohttp.ClientResponse:
        for last in (False, True):
            session = await self._open()
            sent = dict(headers) | await self._credentials.headers()
            try:
                async with asyncio.timeout(WATCH_START_S):
                    response = await session.get(
                        self._url(path, params),
                        headers=sent,
                        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                        allow_redirects=False,
                        proxy=self._proxy,
                    )
                    if response.status == 200:
                        return response
                    async with response:
                        body = await response.read()
            except _FOREIGN as error:
                _raise_transport(error, what)
            error_of = error_of_answer(
                response.status, body, what=what, retry_after_s=_retry_after(response.headers)
            )
            if last or not isinstance(error_of, Unauthorized):
                raise error_of
            await self._renew()
        raise AssertionError("unreachable: the second round returns or raises")

    async def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._connection = await self._credentials.connection()
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections,
                    ssl=self._connection.tls or True,
                    socket_factory=_keepalive_socket,
                ),
                headers={"User-Agent": f"{self._manager}/{__version__}"},
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=True,
            )
        return self._session

    async def _renew(self) -> None:
        """Read credentials again; new certificates need a new session, the old one is closed."""
        await self._credentials.renew()
        connection = await self._credentials.connection()
        if self._connection is not None and connection.identity != self._connection.identity:
            await self.close()

    def _url(self, path: str, params: Mapping[str, str] | None) -> URL:
        """Return a URL that is encoded already: yarl's own quoting is a tenth of a request."""
        assert self._connection is not None  # noqa: S101 - `_open` ran just before
        query = f"?{urlencode(params)}" if params else ""
        return URL(f"{self._connection.url}{quote(path)}{query}", encoded=True)

    @property
    def _proxy(self) -> str | None:
        return self._connection.proxy if self._connection else None


class HttpWatch(Watch[T]):
    """One open watch; `receive` splits lines and decodes one at a time."""

    def __init__(self, response: aiohttp.ClientResponse, resource: Resource[T], what: str) -> None:
        self._response = response
        self._resource = resource
        self._what = what
        self._lines = LineBuffer()

    async def receive(self, *, idle_s: float) -> Event[T] | None:
        while (line := self._lines.take()) is None:
            try:
                async with asyncio.timeout(idle_s):
                    chunk = await self._response.content.readany()
            except _FOREIGN as error:
                _raise_transport(error, self._what)
            if not chunk:
                if self._lines.has_rest:
                    raise TransportError(f"{self._what}: ended in the middle of a line")
                return None
            try:
                self._lines.feed(chunk)
            except ValueError as error:
                raise WireError(f"{self._what}: {error}") from None
        return self._resource.decode_event(line)


def _raise_transport(error: Exception, what: str) -> NoReturn:
    """Map a foreign failure; aiohttp wraps what a body's writer raised, so look inside first."""
    if isinstance(error.__cause__, DeposedError):
        raise error.__cause__
    cause = type(error).__name__ if isinstance(error, TimeoutError) else str(error).splitlines()[:1]
    raise TransportError(f"{what}: {''.join(cause) or type(error).__name__}") from error


def _selectors(scope: Scope) -> dict[str, str]:
    named = {"labelSelector": scope.labels, "fieldSelector": scope.fields}
    return {name: value for name, value in named.items() if value}


def _path(resource: Resource[Any], namespace: str | None, name: str = "") -> str:
    base = f"/apis/{resource.group}" if resource.group else "/api"
    parts = [base, resource.version]
    if namespace:
        parts += ["namespaces", namespace]
    parts.append(resource.plural)
    if name:
        parts.append(name)
    return "/".join(parts)


def _accept(resource: Resource[Any], view: str) -> str:
    return _PARTIAL.format(view) if resource.partial else "application/json"


def _retry_after(headers: CIMultiDictProxy[str]) -> float | None:
    """Read Retry-After in seconds; the API server never sends the date form."""
    try:
        return max(0.0, float(headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _keepalive_socket(address: Any) -> socket.socket:
    """Make sockets that notice a dead peer in about a minute.

    Source: client-go's HTTP/2 pings find it in 45 s; HTTP/1.1 has none, and load balancers drop an
    idle flow without a word after four minutes.
    """
    family, kind, proto, *_ = address
    sock = socket.socket(family, kind, proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 30),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 60_000),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock
