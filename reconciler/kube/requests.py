"""Sends one request: its time limit, and a second try with fresh credentials after a 401."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.payload import BytesPayload
from multidict import CIMultiDict
from yarl import URL

from reconciler.errors import NotLeaderError, TransportError, Unauthorized
from reconciler.kube.api import Permit
from reconciler.kube.auth.connection import Credentials
from reconciler.kube.status_errors import from_response, retry_after
from reconciler.net.client_pool import ClientPool, PooledClient
from reconciler.net.client_session import describe_error

CLIENT_ERRORS = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError)
"""All errors that a request can raise; ValueError means an invalid address or proxy."""


def translate_error(error: Exception, what: str) -> TransportError | NotLeaderError:
    """Return our error for `error`, to be raised after the `except` block has ended."""
    if isinstance(error.__cause__, NotLeaderError):  # aiohttp wraps what a body's writer raised
        return error.__cause__
    return TransportError(f"{what}: {describe_error(error)}")


CONNECT_S = 5.0

_LIMITS = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
"""For connecting only: the rest of a request, its credentials included, has one time limit."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `target` is the path with its query, encoded; `what` names it in errors."""

    method: str
    target: str
    what: str
    accept: str
    data: bytes | None = field(default=None, repr=False)
    content_type: str = ""
    before_send: Permit | None = None


class FencedBody(BytesPayload):
    """A body that calls the write fence as its bytes go to the socket, with no await between.

    Signing, connecting and waiting for a free connection happen before; a lease can end during each
    of them. The headers wait for the body: nothing of a fenced write is sent.
    """

    def __init__(self, data: bytes, content_type: str, permit: Permit | None) -> None:
        super().__init__(data, content_type=content_type)
        self._permit = permit

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        if self._permit is not None:
            self._permit()
        await super().write_with_length(writer, content_length)

    async def write(self, writer: Any) -> None:
        await self.write_with_length(writer, None)


class RequestSender:
    """Sends requests; every failure is a `KubeError`, or the `NotLeaderError` of the write fence.

    Args:
        pool: Connections for answers that are read whole.
        streams: Connections for answers that stay open.
    """

    def __init__(
        self,
        credentials: Credentials,
        pool: ClientPool,
        streams: ClientPool,
        on_date: Callable[[str | None], None] | None = None,
    ) -> None:
        self._credentials = credentials
        self._pool = pool
        self._streams = streams
        self._on_date = on_date

    async def read(
        self, request: Request, *, limit_s: float, pool: ClientPool | None = None
    ) -> bytes:
        """Return the whole body of a success.

        Args:
            limit_s: Time limit for all of it: credentials, a free connection, a second try after a
                401.
            pool: Connections to use in place of the default pool.
        Cancel: The request may have been sent.
        """
        try:
            async with asyncio.timeout(limit_s), AsyncExitStack() as stack:
                response = await self._send_authorized(pool or self._pool, request, stack)
                if self._on_date is not None:
                    self._on_date(response.headers.get("Date"))
                return await response.read()
        except CLIENT_ERRORS as error:
            failure = translate_error(error, request.what)
        raise failure

    @asynccontextmanager
    async def stream(
        self, request: Request, *, start_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the open response of a success; its connection is closed afterwards, never reused.

        Args:
            start_s: Longest wait for the status line.
        """
        async with AsyncExitStack() as stack:
            response = await self._open(request, stack, start_s)
            stack.callback(response.close)  # at once, see `Connector`
            if response.status != 200:
                raise from_response(response.status, b"", what=request.what)
            yield response

    async def _open(
        self, request: Request, stack: AsyncExitStack, start_s: float
    ) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(start_s):
                return await self._send_authorized(self._streams, request, stack)
        except CLIENT_ERRORS as error:
            failure = translate_error(error, request.what)
        raise failure

    async def _send_authorized(
        self, pool: ClientPool, request: Request, stack: AsyncExitStack
    ) -> aiohttp.ClientResponse:
        """Return the response of a success; closing `stack` releases its connection.

        After a 401 the request is sent once more with credentials that were read again. After a
        failed handshake, where nothing was sent, it is sent again if the certificates have changed.
        """
        is_last = False
        while True:
            async with AsyncExitStack() as attempt_stack:
                client = await attempt_stack.enter_async_context(pool.acquire())
                headers = CIMultiDict({"Accept": request.accept})
                headers.extend(await self._credentials.headers(client.connection.url))
                try:
                    response = await _send(client, request, headers, attempt_stack)
                except aiohttp.ClientSSLError:
                    if is_last or not await pool.replace(client):
                        raise
                    is_last = True
                    continue
                if response.status < 300:
                    stack.push_async_exit(attempt_stack.pop_all())
                    return response
                refusal = from_response(
                    response.status,
                    await response.read(),
                    what=request.what,
                    retry_after_s=retry_after(response.headers.get("Retry-After", "")),
                )
            if is_last or not isinstance(refusal, Unauthorized):
                raise refusal
            is_last = True
            await self._credentials.renew()
            await pool.replace(client)


async def _send(
    client: PooledClient, request: Request, headers: CIMultiDict[str], stack: AsyncExitStack
) -> aiohttp.ClientResponse:
    closed = TransportError(f"{request.what}: the client of the API server is closed")
    if client.is_closed():
        raise closed
    body = None
    if request.data is not None:
        body = FencedBody(request.data, request.content_type, request.before_send)
    try:
        return await stack.enter_async_context(
            client.session.request(
                request.method,
                URL(client.connection.url + request.target, encoded=True),
                headers=headers,
                data=body,
                timeout=_LIMITS,
                allow_redirects=False,
                proxy=client.connection.proxy,
                server_hostname=client.connection.server_name,
            )
        )
    except asyncio.CancelledError:
        # A closing connector cancels requests that wait for a free connection; our task was not
        # cancelled.
        task = asyncio.current_task()
        if client.is_closed() and task is not None and not task.cancelling():
            raise closed from None
        raise
