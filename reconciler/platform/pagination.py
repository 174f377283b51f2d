"""Reads a list so that rows which are added or removed between two pages hide no other row.

With offset pages (`page=2`) a row that is removed from page 1 moves all later rows forward, and the
first row of page 2 is never read. After page 1 we therefore request the rows with an ID above the
last one (a keyset), where a change elsewhere moves nothing. "Above" is in the server's order: its
collation may differ from Python's, so IDs are never compared here; an ID is only known or new.

Where the server does not support this, offset pages are read in passes until one finds no new row.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol

import msgspec

from reconciler.errors import PlatformAnswerTooLarge, PlatformError, RemoteError
from reconciler.platform.models import PlatformPage, T

SIZE = 100
"""Rows of a page; the platform's default, and what its SDK uses."""

PASSES = 3
"""Most offset passes: the first finds the rows, the second confirms them, the third allows for one
change between the two."""

MAX_REQUESTS = 2000
"""Most requests for one list (200,000 rows), for a server that never ends a list."""

_QUOTABLE = re.compile(r"[A-Za-z0-9_.-]+")
"""IDs that can be quoted in a search. SQL dialects differ in the escape of a quote; for an ID that
needs one, offset pages are used instead."""


@dataclass(frozen=True, slots=True)
class PageQuery:
    """A request for one page, ordered by ID; `keyset` marks a search that the server may refuse.

    `size` is the number of rows requested; `page` counts pages of that size.
    """

    search: str
    page: int = 1
    keyset: bool = False
    size: int = field(default=SIZE, compare=False)


def ignore_page(_rows: list[T]) -> None:
    """Wait for the whole list."""


class Fetch(Protocol[T]):
    """Returns one page, or raises `RemoteError`; if it is too large, a smaller one is requested."""

    async def __call__(self, query: PageQuery, /) -> PlatformPage[T]: ...


class ListResult(msgspec.Struct, Generic[T], frozen=True):
    """The result of one list.

    Args:
        items: One for each ID, in the order in which the IDs were first read.
        skipped: Number of rows that could not be read; they are not in `items`.
        requests: Number of pages requested.
        offset_passes: 0 where one page or keyset pages were enough.
        complete: False where rows may be missing: rows moved in every pass, or `error`.
        error: The error that ended it early; `items` holds the rows read until then.
    """

    items: list[T]
    skipped: int
    requests: int
    offset_passes: int
    complete: bool
    error: RemoteError | None


async def read(
    fetch: Fetch[T],
    search: str = "",
    *,
    size: int = SIZE,
    on_page: Callable[[list[T]], None] = ignore_page,
) -> ListResult[T]:
    """Read a whole list; a row that exists from start to end is in it exactly once.

    Args:
        fetch: Reads one page, of at most `size` rows.
        search: The condition; its operators must bind at least as tightly as `and`.
        on_page: Called with the readable rows of each page before the next one is requested; a row
            may come again.

    Raises:
        RemoteError: The first page failed. Later failures are in the result.
    """
    reading = _Reading(fetch, search, size, on_page)
    first = await reading.ask(search)
    complete, error = False, None
    try:
        complete = await reading.read_rest(first)
    except RemoteError as failure:
        error = failure
    return ListResult(
        list(reading.found.values()),
        reading.skipped,
        reading.requests,
        reading.offset_passes,
        complete,
        error,
    )


class _Reading(Generic[T]):
    """A list that is being read."""

    def __init__(
        self, fetch: Fetch[T], search: str, size: int, on_page: Callable[[list[T]], None]
    ) -> None:
        self._fetch = fetch
        self._on_page = on_page
        self._search = search
        self._size = size
        self.found: dict[str, T] = {}
        self.skipped = 0
        self.requests = 0
        self.offset_passes = 0

    async def ask(self, search: str, *, keyset: bool = False, offset: int = 0) -> PlatformPage[T]:
        """Request the page at this offset, in rows; a smaller one where it is too large.

        Args:
            offset: A multiple of the page size, because the server counts in pages.
        """
        while True:
            if self.requests >= MAX_REQUESTS:
                raise PlatformError(f"a list has not ended after {MAX_REQUESTS} pages")
            self.requests += 1
            try:
                return await self._fetch(
                    PageQuery(search, offset // self._size + 1, keyset, self._size)
                )
            except PlatformAnswerTooLarge:
                if self._size == 1:
                    raise
            self._size = _smaller(self._size)

    async def read_rest(self, first: PlatformPage[T]) -> bool:
        """Take the first page and read the rest; return whether every row was read."""
        self._take(first)
        self.skipped = _skipped_for_good(first)
        if not first.items:
            return first.total == 0
        if _ends_list(first):
            return True
        return await self._read_keyset(first) or await self._read_offset()

    async def _read_keyset(self, first: PlatformPage[T]) -> bool:
        page = first
        while not _ends_list(page):
            search = self._search_after(page)
            if search is None:
                return False
            try:
                page = await self.ask(search, keyset=True)
            except PlatformError as error:
                if error.status in (400, 500):  # bad search, or SQL that its database refuses
                    return False
                raise
            self.skipped += _skipped_for_good(page)
            # A known ID cannot be above all known ones: the server ignored the condition.
            if self._take(page) < len(page.readable):
                return False
        return await self._is_all_read(first.total)

    async def _is_all_read(self, total: int) -> bool:
        """Return False where the server counts more rows than we read.

        Rows may have been deleted since, so its count is requested again. If the count is still
        higher, the server does not order by ID, and its keyset pages skipped rows.
        """
        seen = len(self.found) + self.skipped
        if seen >= total:
            return True
        again = await self.ask(self._search)
        self._take(again)
        return len(self.found) + self.skipped >= again.total

    def _search_after(self, page: PlatformPage[T]) -> str | None:
        """Return the search for the rows after a page; None if its last ID cannot be quoted."""
        readable = page.readable
        if not readable or not _QUOTABLE.fullmatch(readable[-1].id):
            return None
        condition = f"id > '{readable[-1].id}'"
        return f"{self._search} and {condition}" if self._search else condition

    async def _read_offset(self) -> bool:
        while self.offset_passes < PASSES:
            self.offset_passes += 1
            known = len(self.found)
            is_stable = await self._read_pass()
            # A row that was removed during the pass may have hidden another, though none was new.
            if is_stable and len(self.found) == known:
                return True
        return False

    async def _read_pass(self) -> bool:
        """Read all offset pages; return whether all of them had the same total."""
        offset, received, skipped = 0, 0, 0
        totals: set[int] = set()
        while True:
            page = await self.ask(self._search, offset=offset)
            offset += self._size
            self._take(page)
            totals.add(page.total)
            received += len(page.items)
            skipped += page.skipped
            # Both, because a server may send fewer rows in a page than were requested.
            if not page.items or page.total <= min(offset, received):
                self.skipped = skipped
                return len(totals) == 1

    def _take(self, page: PlatformPage[T]) -> int:
        """Add a page's rows, the newest version of each; return the number of new ones."""
        known, rows = len(self.found), page.readable
        self.found.update({item.id: item for item in rows})
        self._on_page(rows)
        return len(self.found) - known


def _smaller(size: int) -> int:
    """Return the largest proper divisor: pages of both sizes then begin at the same rows."""
    return next(size // each for each in range(2, size + 1) if size % each == 0)


def _skipped_for_good(page: PlatformPage[T]) -> int:
    """Count a keyset page's unreadable rows; the next page repeats those at its end."""
    if _ends_list(page):
        return page.skipped
    tail = 0
    while tail < len(page.items) and page.items[-1 - tail] is None:
        tail += 1
    return page.skipped - tail


def _ends_list(page: PlatformPage[T]) -> bool:
    """Return whether no row follows a first page or a keyset page.

    The total is compared with the rows sent, not with those requested: otherwise a server that
    limits pages to fewer rows than we request would end the list with its first page.
    """
    return not page.items or page.total <= len(page.items)
