"""/livez and /readyz: plain text that says why; /metrics beside them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from reconciler.errors import SettingsError
from reconciler.observe.meters import CONTENT_TYPE

Check = Callable[[], str]
"""Returns "" when all is well, else one line that says what is missing."""


Scrape = Callable[[], Awaitable[bytes]]
"""Returns all metrics as text."""

Mount = Callable[[web.Application], None]
"""Adds routes of its own."""


@asynccontextmanager
async def serve_health(
    listen: str,
    *,
    live: Check,
    ready: Check,
    scrape: Scrape | None = None,
    mounts: Sequence[Mount] = (),
) -> AsyncIterator[None]:
    """Answer the probes, scrapes, and what is mounted, at HOST:PORT as long as the context lasts.

    Raises:
        SettingsError: The address cannot be bound.
    """
    host, port = split_address(listen)
    app = health_app(live=live, ready=ready, scrape=scrape)
    for mount in mounts:
        mount(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise SettingsError(f"RECONCILER_LISTEN {listen}: {error.strerror}") from None
        yield
    finally:
        await runner.cleanup()


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
        why = check()
        return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)

    return handle


def _metrics(scrape: Scrape) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=await scrape(), headers={"Content-Type": CONTENT_TYPE})

    return handle


def split_address(listen: str) -> tuple[str | None, int]:
    """Split HOST:PORT; no host means every address, IPv6 hosts stand in brackets."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]") or None, int(port)
