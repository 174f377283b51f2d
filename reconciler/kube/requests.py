"""Sends one request: its time limit, and a second try with fresh credentials after a 401."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from reconciler.errors import KubeError, TransportError, Unauthorized
from reconciler.kube.api import Permit
from reconciler.kube.auth.connection import Credentials
from reconciler.kube.status_errors import from_response
from reconciler.net.client_pool import ClientPool, PooledClient
from reconciler.net.client_session import describe_error
from reconciler.net.exchange import CONNECT_LIMIT, Answer, read_limited
from reconciler.net.http_dates import parse_date, parse_retry_after
from reconciler.telemetry.trace import request_span

T = TypeVar("T")

MAX_OBJECT_BYTES = 4 * 1024 * 1024
"""Most bytes of an answer that has one object or a Status, decompressed. An object has 1.5 MB at
most (etcd's limit on a request); in JSON the 256 KiB of its annotations may be six times as long.
"""

MAX_LIST_BYTES = 64 * 1024 * 1024
"""Most bytes of a page, decompressed: 50 objects of the largest size."""

CLIENT_ERRORS = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError)
"""All errors that a request can raise; ValueError means an invalid address or proxy."""


def translate_error(error: Exception, what: str) -> TransportError:
    """Return our error for `error`, to be raised after the `except` block has ended."""
    return TransportError(f"{what}: {describe_error(error)}")


class Request(msgspec.Struct, frozen=True):
    """A request; `target` is the path with its query, encoded; `what` names it in errors."""

    method: str
    target: str
    what: str
    accept: str
    data: bytes | None = None
    content_type: str = ""
    before_send: Permit | None = None
    max_bytes: int = MAX_OBJECT_BYTES

    def __repr__(self) -> str:  # `data` may hold a token
        return f"<Request {self.what}>"


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
        attempt = _fetch if request.data is None else _write
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._send_authorized(pool or self._pool, request, attempt)
        except CLIENT_ERRORS as error:
            failure = translate_error(error, request.what)
        else:
            if (span := request_span()) is not None:
                span.status = answer.status
            if self._on_date is not None:
                self._on_date(answer.headers.get("Date"))
            return answer.body
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
        async def attempt(
            client: PooledClient, request: Request, headers: Mapping[str, str]
        ) -> aiohttp.ClientResponse:
            async with AsyncExitStack() as opening:
                await opening.enter_async_context(self._streams.hold(client))
                response = await opening.enter_async_context(_in_session(client, request, headers))
                if response.status >= 300:
                    body = await read_limited(response.content, request.max_bytes)
                    raise _refusal(request, Answer(response.status, response.headers, body))
                stack.push_async_exit(opening.pop_all())
                return response

        try:
            async with asyncio.timeout(start_s):
                return await self._send_authorized(self._streams, request, attempt)
        except CLIENT_ERRORS as error:
            failure = translate_error(error, request.what)
        raise failure

    async def _send_authorized(
        self, pool: ClientPool, request: Request, attempt: "_Attempt[T]"
    ) -> T:
        """Return what `attempt` returns.

        After a 401 it is called once more, with credentials that were read again. After a failed
        handshake, where nothing was sent, it is called again if the certificates have changed.
        """
        is_last = False
        while True:
            client = await pool.take()
            try:
                headers = CIMultiDict({"Accept": request.accept})
                if request.content_type:
                    headers["Content-Type"] = request.content_type
                headers.extend(await self._credentials.headers(client.connection.url))
                if client.is_closed():
                    raise _closed(request)
                if (span := request_span()) is not None:
                    span.send_to(client.connection.url + request.target)
                return await attempt(client, request, headers)
            except aiohttp.ClientSSLError:
                if is_last or not await pool.replace(client):
                    raise
                is_last = True
                continue
            except Unauthorized:
                if is_last:
                    raise
            except asyncio.CancelledError:
                # A closing connector cancels requests that wait for a free connection; our task
                # was not cancelled.
                task = asyncio.current_task()
                if client.is_closed() and task is not None and not task.cancelling():
                    raise _closed(request) from None
                raise
            finally:
                await pool.give_back(client)
            is_last = True
            await self._credentials.renew()
            await pool.replace(client)


_Attempt = Callable[[PooledClient, Request, Mapping[str, str]], Awaitable[T]]
"""Sends a request once with a client, and raises what a refusal means."""


async def _fetch(client: PooledClient, request: Request, headers: Mapping[str, str]) -> Answer:
    async with _in_session(client, request, headers) as response:
        body = await read_limited(response.content, request.max_bytes)
        answer = Answer(response.status, response.headers, body)
    return _success(request, answer)


async def _write(client: PooledClient, request: Request, headers: Mapping[str, str]) -> Answer:
    """Send a body; the fence is checked as its bytes go to the socket.

    Signing, connecting and waiting for a free connection happen before; a lease can end during each
    of them.
    """
    answer = await client.exchanges.send(
        request.method,
        request.target,
        headers,
        request.data or b"",
        max_bytes=request.max_bytes,
        before_send=request.before_send,
    )
    return _success(request, answer)


def _success(request: Request, answer: Answer) -> Answer:
    if answer.status < 300:
        return answer
    raise _refusal(request, answer)


def _refusal(request: Request, answer: Answer) -> KubeError:
    return from_response(
        answer.status,
        answer.body,
        what=request.what,
        retry_after_s=parse_retry_after(
            answer.headers.get("Retry-After"), now_s=parse_date(answer.headers.get("Date"))
        ),
    )


def _closed(request: Request) -> TransportError:
    return TransportError(f"{request.what}: the client of the API server is closed")


def _in_session(
    client: PooledClient, request: Request, headers: Mapping[str, str]
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    return client.session.request(
        request.method,
        URL(client.connection.url + request.target, encoded=True),
        headers=headers,
        timeout=CONNECT_LIMIT,
        allow_redirects=False,
        proxy=client.connection.proxy,
        server_hostname=client.connection.server_name,
    )
