"""/livez and /readyz: plain text that says why."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from reconciler.errors import SettingsError

Check = Callable[[], str]
"""Returns "" when all is well, else one line that says what is missing."""


@asynccontextmanager
async def serve_health(listen: str, *, live: Check, ready: Check) -> AsyncIterator[None]:
    """Answer both probes at HOST:PORT as long as the context lasts.

    Raises:
        SettingsError: The address cannot be bound.
    """
    host, port = split_address(listen)
    runner = web.AppRunner(health_app(live=live, ready=ready), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise SettingsError(f"RECONCILER_LISTEN {listen}: {error.strerror}") from None
        yield
    finally:
        await runner.cleanup()


def health_app(*, live: Check, ready: Check) -> web.Application:
    """Build the two probes; each answers 200 `ok`, or 503 and the reason."""
    app = web.Application()
    app.router.add_get("/livez", _handler(live))
    app.router.add_get("/readyz", _handler(ready))
    return app


def _handler(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        why = check()
        return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)

    return handle


def split_address(listen: str) -> tuple[str | None, int]:
    """Split HOST:PORT; no host means every address, IPv6 hosts stand in brackets."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]") or None, int(port)
