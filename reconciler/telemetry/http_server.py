"""The HTTP server: /livez and /readyz with a reason in plain text, and /metrics."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary, WeakSet

from aiohttp import web

from reconciler.clock import Instant
from reconciler.errors import SettingsError
from reconciler.telemetry.registry import CONTENT_TYPE

Check = Callable[[], str]
"""Returns "" when all is well, otherwise one line that names what is missing."""


Scrape = Callable[[], Awaitable[bytes]]
"""Returns all metrics as text."""

Mount = Callable[[web.Application], None]
"""Adds the routes of another part (the status page)."""


FIRST_REQUEST_S = 10.0
"""Time limit for a new connection's first whole request. Without it idle connections accumulate
until the process has no file descriptor left for the API server."""

KEEP_ALIVE_S = 75.0
"""Time for which an idle connection waits for its next request; scrapes come every 15-60 s."""


class FirstRequestLimit:
    """Closes connections that have not sent a whole request in time.

    aiohttp has a time limit for idle connections, and none for the first request.

    Args:
        limit_s: Counted from the first check that sees a connection; a check runs every half of it.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._served: WeakSet[asyncio.BaseTransport] = WeakSet()
        self._seen_at: WeakKeyDictionary[asyncio.BaseTransport, Instant] = WeakKeyDictionary()

    @web.middleware
    async def record_request(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Record that this connection has sent a request."""
        if request.transport is not None:
            self._served.add(request.transport)
        return await handler(request)

    async def enforce(self, runner: web.AppRunner) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(self._limit_s / 2)
            self._close_silent(runner, Instant(time.monotonic()))

    def _close_silent(self, runner: web.AppRunner, now_at: Instant) -> None:
        for connection in runner.server.connections if runner.server is not None else ():
            transport = connection.transport
            if transport is None or transport in self._served:
                continue
            if now_at - self._seen_at.setdefault(transport, now_at) >= self._limit_s:
                transport.abort()


@asynccontextmanager
async def serve_health(
    listen: str,
    *,
    live: Check,
    ready: Check,
    scrape: Scrape | None = None,
    mounts: Sequence[Mount] = (),
    first_request_s: float = FIRST_REQUEST_S,
) -> AsyncIterator[None]:
    """Serve the probes, /metrics and the mounted routes at HOST:PORT while the context is open.

    `[::]` accepts IPv4 as well, as in Go, where the machine has both.

    Raises:
        SettingsError: The address cannot be bound.
    """
    host, port = split_address(listen)
    limit = FirstRequestLimit(first_request_s)
    app = health_app(live=live, ready=ready, scrape=scrape)
    app.middlewares.append(limit.record_request)
    for mount in mounts:
        mount(app)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_ALIVE_S)
    await runner.setup()
    enforcing = asyncio.create_task(limit.enforce(runner), name="first_request_limit")
    try:
        try:
            await _site(runner, host, port).start()
        except OSError as error:
            raise SettingsError(f"RECONCILER_LISTEN {listen}: {error.strerror}") from None
        yield
    finally:
        enforcing.cancel()
        await asyncio.wait((enforcing,))
        await runner.cleanup()


def _site(runner: web.AppRunner, host: str | None, port: int) -> web.BaseSite:
    if host != "::" or not socket.has_dualstack_ipv6():
        return web.TCPSite(runner, host, port)
    # asyncio restricts every IPv6 socket to IPv6.
    return web.SockSite(
        runner,
        socket.create_server(
            (host, port), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=False
        ),
    )


def health_app(*, live: Check, ready: Check, scrape: Scrape | None = None) -> web.Application:
    """Build the two probes, which answer 200 `ok` or 503 and the reason, and /metrics."""
    app = web.Application()
    app.router.add_get("/livez", _handler(live))
    app.router.add_get("/readyz", _handler(ready))
    if scrape is not None:
        app.router.add_get("/metrics", _metrics(scrape))
    return app


def _handler(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        reason = check()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    return handle


def _metrics(scrape: Scrape) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=await scrape(), headers={"Content-Type": CONTENT_TYPE})

    return handle


def split_address(listen: str) -> tuple[str | None, int]:
    """Split HOST:PORT; no host means every address, an IPv6 host is in brackets."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]") or None, int(port)
