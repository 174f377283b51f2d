"""Views of the newest survey as HTML, each made once for all who look at it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from cachetools import LRUCache

from reconciler.controller.status.history import RunRecord
from reconciler.controller.status.snapshot import SessionStatus, StatusSnapshot
from reconciler.errors import ReconcilerError
from reconciler.naming import SessionKey
from reconciler.statuspage.query import SessionQuery, select
from reconciler.statuspage.render import PageModel, Render

AGE_S = 2.0
"""A view may be this old: whoever reloads it in the meantime gets it again."""

KEEP = 64
"""Views kept of one survey, some 40 KB each; those that watch share a few."""

MAX_WAITING = 64
"""Readers that may wait while a view is made; whoever comes on top of them is sent away."""


class TooManyReaders(ReconcilerError):
    """More readers wait for a view than it makes sense to let wait."""


class PageSource(Protocol):
    """What the page is made of: `reconciler.controller.status.collector.StatusCollector`."""

    async def snapshot(self, *, max_age_s: float) -> StatusSnapshot: ...

    async def rows(self, survey: StatusSnapshot) -> tuple[SessionStatus, ...]: ...

    def runs(self, key: SessionKey) -> tuple[RunRecord, ...]: ...


class PageCache:
    """Makes one view at a time, beside the loop: renewals come first.

    Args:
        not_ready: As the probe: "" or what is missing.
        replica: Our own name.
        ignored: Of each variable that is no setting, that it has no effect.
    """

    def __init__(
        self,
        source: PageSource,
        *,
        not_ready: Callable[[], str],
        replica: str,
        ignored: Sequence[str] = (),
    ) -> None:
        self._source = source
        self._not_ready = not_ready
        self._render = Render(replica, ignored)
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._of: StatusSnapshot | None = None
        self._rows: tuple[SessionStatus, ...] = ()
        self._known: LRUCache[tuple[SessionQuery, bool], str] = LRUCache(KEEP)

    def __len__(self) -> int:
        """Return how many views are kept."""
        return len(self._known)

    async def page(self, query: SessionQuery) -> str:
        """Return the whole document; raises `TooManyReaders`."""
        return await self._view(query, whole=True)

    async def part(self, query: SessionQuery) -> str:
        """Return the part of the document that changes; raises `TooManyReaders`."""
        return await self._view(query, whole=False)

    async def _view(self, query: SessionQuery, *, whole: bool) -> str:
        if self._waiting >= MAX_WAITING:
            raise TooManyReaders("too many readers wait for this page")
        self._waiting += 1
        try:
            async with self._lock:
                return await self._made(query, whole=whole)
        finally:
            self._waiting -= 1

    async def _made(self, query: SessionQuery, *, whole: bool) -> str:
        survey = await self._source.snapshot(max_age_s=AGE_S)
        if survey is not self._of:
            self._rows = await self._source.rows(survey)
            self._of = survey
            self._known.clear()
        key = (query, whole)
        known = self._known.get(key)
        if known is not None:
            return known
        rows = self._rows
        found = await asyncio.to_thread(select, rows, query)
        past = {row.key: self._source.runs(row.key) for row in found.rows}
        shown = PageModel(survey, rows, query, found, past, self._not_ready())
        html = self._known[key] = await asyncio.to_thread(self._render.view, shown, whole=whole)
        return html
