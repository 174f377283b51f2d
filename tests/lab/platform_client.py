"""What the tests of the platform's client share: a client, its tokens, and a scripted server."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import aiohttp
from aiohttp import web

from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.client import PageLimits, PlatformClient
from reconciler.platform.models import PlatformSession, T
from reconciler.platform.pagination import ListResult
from tests.support import ManualClock


@dataclass
class Tokens:
    """A bearer that numbers its tokens; `asked` lists the arguments of the calls."""

    prefix: str = "synthetic-token"
    number: int = 1

    def __post_init__(self) -> None:
        self.asked: list[bool] = []

    @property
    def current(self) -> str:
        return f"{self.prefix}-{self.number:06}"

    async def __call__(self, refused: bool) -> str:
        self.asked.append(refused)
        self.number += refused
        return self.current


def whole(listing: ListResult[T]) -> list[T]:
    """Return a list's rows; raises the error of the page that failed."""
    if listing.error is not None:
        raise listing.error
    return listing.items


async def projects(client: PlatformClient) -> list[str]:
    return [project.id for project in whole(await client.list_projects())]


async def running_sessions(client: PlatformClient, project: str | None) -> list[PlatformSession]:
    return whole(await client.list_running(project))


@asynccontextmanager
async def client_of(
    url: str,
    *,
    tokens: Callable[[bool], Awaitable[str]] | None = None,
    limit_s: float = 5.0,
    page_size: int = 100,
    page_bytes: int = 1 << 20,
    max_body_bytes: int = 1 << 20,
) -> AsyncIterator[PlatformClient]:
    clock = ManualClock()
    breaker = CircuitBreaker("platform", clock, Random(1))
    async with aiohttp.ClientSession() as session:
        yield PlatformClient(
            session,
            url,
            tokens or Tokens(),
            clock,
            breaker,
            limit_s=limit_s,
            page_limits=PageLimits(page_size, page_bytes, max_body_bytes),
        )


@asynccontextmanager
async def scripted(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    """Serve every path with one handler on a free loopback port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
