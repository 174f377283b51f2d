"""Views of the newest snapshot as HTML or JSON. Each view is rendered once for all its readers."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from cachetools import LRUCache

from reconciler.controller.events.correlator import PodEvent
from reconciler.controller.status.history import RunRecord
from reconciler.controller.status.snapshot import SessionStatus, StatusSnapshot
from reconciler.controller.status.trend import TrendReading
from reconciler.errors import ReconcilerError
from reconciler.naming import SessionKey
from reconciler.statuspage.identity import PageIdentity
from reconciler.statuspage.page_model import PageModel
from reconciler.statuspage.query import SessionQuery, select
from reconciler.statuspage.render import Form, Render

MAX_AGE_S = 2.0
"""Greatest age of a snapshot; a view that is loaded again within it is the same."""

MAX_VIEWS = 64
"""Views kept of one snapshot, some 40 KB each."""

MAX_WAITING = 64
"""Most readers that wait for a view; one more gets an error."""


class TooManyReaders(ReconcilerError):
    """`MAX_WAITING` readers wait for a view already."""


class PageSource(Protocol):
    """The source of the page: `reconciler.controller.status.collector.StatusCollector`."""

    async def snapshot(self, *, max_age_s: float) -> StatusSnapshot: ...

    async def rows(self, snapshot: StatusSnapshot) -> tuple[SessionStatus, ...]: ...

    def runs(self, key: SessionKey) -> tuple[RunRecord, ...]: ...

    def events(self, namespace: str, pod: str) -> tuple[PodEvent, ...]: ...

    def trend(self) -> TrendReading: ...


class PageCache:
    """Renders one view at a time, in a thread: refreshes have priority.

    Args:
        not_ready: Returns why the replica is not ready, or "", as the probe does.
    """

    def __init__(
        self,
        source: PageSource,
        *,
        not_ready: Callable[[], str],
        identity: PageIdentity,
    ) -> None:
        self._source = source
        self._not_ready = not_ready
        self._render = Render(identity)
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._snapshot: StatusSnapshot | None = None
        self._rows: tuple[SessionStatus, ...] = ()
        self._views: LRUCache[tuple[SessionQuery, Form], str] = LRUCache(MAX_VIEWS)

    def __len__(self) -> int:
        """Return the number of views that are kept."""
        return len(self._views)

    async def page(self, query: SessionQuery) -> str:
        """Return the whole document; raises `TooManyReaders`."""
        return await self._view(query, "page")

    async def part(self, query: SessionQuery) -> str:
        """Return the part of the document that changes; raises `TooManyReaders`."""
        return await self._view(query, "part")

    async def json(self, query: SessionQuery) -> str:
        """Return what the document shows as JSON; raises `TooManyReaders`."""
        return await self._view(query, "json")

    async def _view(self, query: SessionQuery, form: Form) -> str:
        if self._waiting >= MAX_WAITING:
            raise TooManyReaders("too many readers wait for this page")
        self._waiting += 1
        try:
            async with self._lock:
                return await self._cached(query, form)
        finally:
            self._waiting -= 1

    async def _cached(self, query: SessionQuery, form: Form) -> str:
        snapshot = await self._source.snapshot(max_age_s=MAX_AGE_S)
        if snapshot is not self._snapshot:
            self._rows = await self._source.rows(snapshot)
            self._snapshot = snapshot
            self._views.clear()
        key = (query, form)
        cached = self._views.get(key)
        if cached is not None:
            return cached
        rows = self._rows
        result = await asyncio.to_thread(select, rows, query)
        runs = {row.key: self._source.runs(row.key) for row in result.rows}
        events = {
            row.key: self._source.events(row.namespace, row.pod)
            for row in result.rows
            if str(row.key) == query.opened
        }
        model = PageModel(
            snapshot, rows, query, result, runs, events, self._source.trend(), self._not_ready()
        )
        view = self._views[key] = await asyncio.to_thread(self._render.view, model, form)
        return view
