"""List, then watch: keeps one kind of object synchronized with the API server."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Protocol

import structlog

from reconciler.errors import KubeError, ProtocolError
from reconciler.lab.kubelet.api_client import ApiClient, Query, version_of

log = structlog.get_logger()

PAUSE_FIRST_S = 0.2
PAUSE_CAP_S = 5.0
GONE = 410


class ObjectHandler(Protocol):
    """Receives objects as bytes, and decodes them."""

    def replace(self, items: list[bytes]) -> None:
        """Handle a complete list: objects that it lacks were removed."""
        ...

    def put(self, data: bytes) -> None: ...

    def drop(self, data: bytes) -> None: ...


class ListWatch:
    """One list+watch loop; it resumes a broken watch, and lists again after a 410.

    Args:
        rand: `Random.uniform`, to spread the pauses between attempts.
    """

    def __init__(
        self,
        api: ApiClient,
        path: str,
        query: Query,
        handler: ObjectHandler,
        rand: Callable[[float, float], float],
    ) -> None:
        self._api = api
        self._path = path
        self._query = query
        self._handler = handler
        self._rand = rand
        self._version = ""
        self.listed = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled."""
        pause_s = PAUSE_FIRST_S
        while True:
            version = self._version
            try:
                await self._follow()
            except (KubeError, ProtocolError) as error:
                status = error.status if isinstance(error, KubeError) else 0
                log.warning("lab_watch_failed", path=self._path, status=status)
                if isinstance(error, ProtocolError) or status == GONE:
                    self._version = ""
            pause_s = PAUSE_FIRST_S if self._version != version else min(pause_s * 2, PAUSE_CAP_S)
            await asyncio.sleep(self._rand(pause_s / 2, pause_s))

    async def _follow(self) -> None:
        if not self._version:
            items, version = await self._api.list(self._path, self._query)
            self._handler.replace([bytes(item) for item in items])
            self._version = version
            self.listed.set()
        events = self._api.watch(self._path, self._query, version=self._version)
        async with aclosing(events) as watch:
            async for event in watch:
                self._take(event.type, bytes(event.object))

    def _take(self, kind: str, data: bytes) -> None:
        if kind == "ERROR":
            raise KubeError(f"WATCH {self._path}: ended by the server", status=GONE)
        if kind in ("ADDED", "MODIFIED"):
            self._handler.put(data)
        elif kind == "DELETED":
            self._handler.drop(data)
        self._version = version_of(data)
