"""The platform's gRPC server for runners: a stream and a unary call that check tokens.

The platform checks a token once, when a call begins, with no leeway; an open stream continues after
its token expires. Source: `sessions.proto` of the platform's API server, and its framework.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import grpc

from reconciler.clock import Clock
from reconciler.lab.runners.tokens import Verify, expiry_of
from reconciler.naming import SessionKey

SERVICE = "ambient.v1.SessionService"
WATCH = "WatchSessions"
PUSH = "PushSessionMessage"

SESSION_HEADER = "lab-session"
"""The caller as `namespace/session`: runners share a token, which does not identify them."""

HELLO = b"\x08\x02"
"""A SessionWatchEvent with only its type, UPDATED: the server accepts the stream."""

STOP_LIMIT_S = 1.0
MAX_METADATA_BYTES = 64 * 1024
"""Enough for a huge token; gRPC's default of 8 KiB would cause another error."""

OnCall = Callable[[SessionKey, bool], None]
"""Called with the session of each call, and whether the server accepts it."""

Context = Any
"""A grpc.aio.ServicerContext; the library has no types."""


class CallTasks(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # the library has no types
    """The tasks of the calls that have not ended: a server's `stop` may return before they end.

    Source: github.com/grpc/grpc/issues/37239.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """Record the task of a call; gRPC calls this in it, before the call's handler."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this coroutine runs in one
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await continuation(details)

    async def wait(self, limit_s: float) -> None:
        """Return when all of them have ended, or after the limit."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_s)


class SessionServer:
    """Listens on a free loopback port while entered."""

    def __init__(self, verify: Verify, clock: Clock, on_call: OnCall) -> None:
        self._verify = verify
        self._clock = clock
        self._on_call = on_call
        self._closing = asyncio.Event()
        self._calls = CallTasks()
        self._server: Any = None
        self.target = ""

    def __repr__(self) -> str:
        return f"<SessionServer {self.target}>"

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server(
            interceptors=[self._calls],
            options=[("grpc.so_reuseport", 0), ("grpc.max_metadata_size", MAX_METADATA_BYTES)],
        )
        self._server.add_generic_rpc_handlers((self._handlers(),))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        await self._server.stop(STOP_LIMIT_S)
        await self._calls.wait(STOP_LIMIT_S)

    def _handlers(self) -> Any:
        """Return the service; messages are bytes, so that no code is generated."""
        methods = {
            WATCH: grpc.unary_stream_rpc_method_handler(self._watch),
            PUSH: grpc.unary_unary_rpc_method_handler(self._push),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def _watch(self, _request: bytes, context: Context) -> AsyncIterator[bytes]:
        await self._authenticate(context)
        yield HELLO
        await self._closing.wait()

    async def _push(self, _request: bytes, context: Context) -> bytes:
        await self._authenticate(context)
        return b""

    async def _authenticate(self, context: Context) -> None:
        """End the call as UNAUTHENTICATED unless its token is valid now."""
        metadata = dict(context.invocation_metadata())
        token = str(metadata.get("authorization", "")).removeprefix("Bearer ")
        accepted = self._clock.wall() < expiry_of(self._verify, token)
        namespace, _, session_id = str(metadata.get(SESSION_HEADER, "")).partition("/")
        self._on_call(SessionKey(namespace, session_id), accepted)
        if not accepted:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid token")
