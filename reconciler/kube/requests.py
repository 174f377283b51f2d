"""One request and its answer: for how long, and what a refusal of our credentials does."""

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

FOREIGN = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError)
"""All that a request can raise; ValueError stands for an address or proxy that is none."""


def translate_error(error: Exception, what: str) -> TransportError | NotLeaderError:
    """Return our error for `error`, to be raised after the `except` block has ended."""
    if isinstance(error.__cause__, NotLeaderError):  # aiohttp wraps what a body's writer raised
        return error.__cause__
    return TransportError(f"{what}: {describe_error(error)}")


CONNECT_S = 5.0

_LIMITS = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
"""Only for connecting: the rest of a request has one limit, which its credentials share."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; `target` is the path with its query, encoded; `what` names it in errors."""

    method: str
    target: str
    what: str
    accept: str
    data: bytes | None = field(default=None, repr=False)
    content_type: str = ""
    before_send: Permit | None = None


class FencedBody(BytesPayload):
    """A body that asks for leave at the moment its bytes go to the socket, with no await between.

    Signing, connecting and waiting for a free connection all happen before; a lease can end in
    each of them. The headers wait for the body: of a write that is stopped, nothing is sent.
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
    """Sends requests; every failure is a `KubeError`, or the `NotLeaderError` of a permit.

    Args:
        sessions: For answers that are read whole.
        streams: For those that stay open.
    """

    def __init__(
        self,
        credentials: Credentials,
        sessions: ClientPool,
        streams: ClientPool,
        on_date: Callable[[str | None], None] | None = None,
    ) -> None:
        self._credentials = credentials
        self._sessions = sessions
        self._streams = streams
        self._on_date = on_date

    async def read(
        self, request: Request, *, limit_s: float, sessions: ClientPool | None = None
    ) -> bytes:
        """Return the whole body of a success.

        Args:
            limit_s: For all of it: credentials, a free connection, a repetition after a 401.
            sessions: Whose connections are used, in place of those for answers read whole.
        Cancel: May have been sent.
        """
        try:
            async with asyncio.timeout(limit_s), AsyncExitStack() as stack:
                response = await self._accepted(sessions or self._sessions, request, stack)
                if self._on_date is not None:
                    self._on_date(response.headers.get("Date"))
                return await response.read()
        except FOREIGN as error:
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
            response = await self._started(request, stack, start_s)
            stack.callback(response.close)  # at once, see `Connector`
            if response.status != 200:
                raise from_response(response.status, b"", what=request.what)
            yield response

    async def _started(
        self, request: Request, stack: AsyncExitStack, start_s: float
    ) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(start_s):
                return await self._accepted(self._streams, request, stack)
        except FOREIGN as error:
            failure = translate_error(error, request.what)
        raise failure

    async def _accepted(
        self, sessions: ClientPool, request: Request, stack: AsyncExitStack
    ) -> aiohttp.ClientResponse:
        """Return the response of a success; `stack` gives back what it holds.

        A 401 is sent once more with credentials that were read again. So is a failed handshake,
        where nothing was sent yet, if the certificates have changed meanwhile.
        """
        is_last = False
        while True:
            async with AsyncExitStack() as own:
                link = await own.enter_async_context(sessions.acquire())
                headers = CIMultiDict({"Accept": request.accept})
                headers.extend(await self._credentials.headers(link.connection.url))
                try:
                    response = await _send(link, request, headers, own)
                except aiohttp.ClientSSLError:
                    if is_last or not await sessions.replace(link):
                        raise
                    is_last = True
                    continue
                if response.status < 300:
                    stack.push_async_exit(own.pop_all())
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
            await sessions.replace(link)


async def _send(
    link: PooledClient, request: Request, headers: CIMultiDict[str], stack: AsyncExitStack
) -> aiohttp.ClientResponse:
    closed = TransportError(f"{request.what}: the client of the API server is closed")
    if link.is_closed():
        raise closed
    body = None
    if request.data is not None:
        body = FencedBody(request.data, request.content_type, request.before_send)
    try:
        return await stack.enter_async_context(
            link.session.request(
                request.method,
                URL(link.connection.url + request.target, encoded=True),
                headers=headers,
                data=body,
                timeout=_LIMITS,
                allow_redirects=False,
                proxy=link.connection.proxy,
                server_hostname=link.connection.server_name,
            )
        )
    except asyncio.CancelledError:
        # A closing connector cancels what waits for a free connection: nobody cancelled us.
        task = asyncio.current_task()
        if link.is_closed() and task is not None and not task.cancelling():
            raise closed from None
        raise
