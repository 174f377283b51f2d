"""The platform's API server on virtual time: a pool of database connections, two for each request.

Its own client asks it, in full but for the socket, and so do the runners, whose calls it is for.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Any, cast

from yarl import URL

from reconciler.clock import Clock
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.client import BASE_PATH, PlatformClient
from reconciler.platform.errors import ErrorAnswer
from reconciler.platform.models import RUNNING, PlatformSession

CONNECTIONS = 50
"""Source: the platform's framework, max_open_connections."""

PATIENCE_S = 10.0
"""Longest wait for a connection; then the answer is a 500."""

TAKES_S = 0.02


class Pool:
    """The connections, and a server that takes the second one while it holds the first.

    Source: its session middleware reads the user before the handler's own transaction begins.
    """

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(CONNECTIONS)
        self.under_way = 0
        self.most = 0
        self.failed = 0

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Hold what one request needs; raises `TimeoutError` where the pool has it not."""
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            async with AsyncExitStack() as held:
                async with asyncio.timeout(PATIENCE_S):
                    await held.enter_async_context(self.free)
                    await asyncio.sleep(TAKES_S / 4)
                    await held.enter_async_context(self.free)
                await asyncio.sleep(TAKES_S)
                yield
        except TimeoutError:
            self.failed += 1
            raise
        finally:
            self.under_way -= 1


class PooledPlatform(PlatformClient):
    """The product's client; each of its requests is served by the pool.

    Attributes:
        list_s: What a list of sessions takes beyond the rest.
    """

    def __init__(self, breaker: CircuitBreaker, clock: Clock, pool: Pool, **options: Any) -> None:
        super().__init__(
            cast("Any", None), "http://platform.invalid", _bearer, clock, breaker, **options
        )
        self.pool = pool
        self.projects_there: list[str] = []
        self.sessions: dict[str, PlatformSession] = {}
        self.list_s = 0.0
        self.lists = 0
        self.lookups = 0

    async def _exchange(self, url: URL, headers: dict[str, str], most: int) -> ErrorAnswer | None:
        path = url.path.removeprefix(BASE_PATH)
        try:
            async with self.pool.serve():
                return await self._answer(path, headers.get("X-Ambient-Project"))
        except TimeoutError:
            body = {"kind": "Error", "code": "ambient-api-server-9"}
            return ErrorAnswer(500, json.dumps(body).encode(), None)

    async def _answer(self, path: str, project: str | None) -> ErrorAnswer:
        if path == "/projects":
            return _page([{"id": name} for name in self.projects_there])
        if path == "/sessions":
            self.lists += 1
            await asyncio.sleep(self.list_s)
            rows = [
                asdict(session)
                for session in self.sessions.values()
                if project in (None, session.project_id) and session.phase == RUNNING
            ]
            return _page(rows)
        self.lookups += 1
        found = self.sessions.get(path.removeprefix("/sessions/"))
        if found is None:
            body = {"kind": "Error", "code": "ambient-api-server-7"}
            return ErrorAnswer(404, json.dumps(body).encode(), None)
        return ErrorAnswer(200, json.dumps(asdict(found)).encode(), None)


def _page(items: list[dict[str, Any]]) -> ErrorAnswer:
    return ErrorAnswer(200, json.dumps({"total": len(items), "items": items}).encode(), None)


async def _bearer(_: bool) -> str:
    return "obviously-fake-bearer"
