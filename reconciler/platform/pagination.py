"""How a list is read so that rows which come and go between pages cost no other row.

With offset pages (`page=2`) a row that disappears from page 1 moves all later ones forward, and
the first of page 2 is never seen. After page 1 we therefore ask for what lies behind the last ID
(a keyset), where a change elsewhere moves nothing. "Behind" is in the server's order: its collation
need not be Python's, so IDs are never compared here, only known or new.

Where the server does not do it, offset pages are read in passes until one finds nothing new.
"""

import re
from dataclasses import dataclass, field
from typing import Generic, Protocol

from reconciler.errors import PlatformAnswerTooLarge, PlatformError, RemoteError
from reconciler.platform.models import PlatformPage, T

SIZE = 100
"""Rows asked for a page; the platform's own default and what its SDK uses."""

PASSES = 3
"""Offset passes at most: the first finds, the second confirms, the third forgives one shift."""

MAX_REQUESTS = 2000
"""Requests for one list at most, 200,000 rows: a server that never says "end" must not hold us."""

_QUOTABLE = re.compile(r"[A-Za-z0-9_.-]+")
"""IDs put between quotes in a search. Dialects differ in how a quote is escaped; an ID that would
need it is not sent, and offset pages are used instead."""


@dataclass(frozen=True, slots=True)
class PageQuery:
    """One page to ask for, ordered by ID; `keyset` marks a search that the server may refuse.

    `size` is how many rows are asked for; `page` counts pages of that size.
    """

    search: str
    page: int = 1
    keyset: bool = False
    size: int = field(default=SIZE, compare=False)


class Fetch(Protocol[T]):
    """Returns one page, or raises `RemoteError`; a smaller one is asked for if it is too large."""

    async def __call__(self, query: PageQuery, /) -> PlatformPage[T]: ...


@dataclass(frozen=True, slots=True)
class ListResult(Generic[T]):
    """What one list gave.

    Args:
        items: One an ID, in the order in which the IDs were first seen.
        skipped: Rows that could not be read; they are in no list.
        requests: How many pages were asked for.
        offset_passes: 0 where one page or keyset pages were enough.
        settled: False where rows may be missing: rows kept shifting, or `error`.
        error: What ended it early; `items` holds what was read until then.
    """

    items: list[T]
    skipped: int
    requests: int
    offset_passes: int
    complete: bool
    error: RemoteError | None


async def read(fetch: Fetch[T], search: str = "", *, size: int = SIZE) -> ListResult[T]:
    """Read a whole list; a row that is there from start to end is in it exactly once.

    Args:
        fetch: Asked for pages of at most `size` rows.
        search: The condition; must bind as tightly as `and`.

    Raises:
        RemoteError: The first page failed. Later failures are in the result.
    """
    reading = _Reading(fetch, search, size)
    first = await reading.ask(search)
    settled, error = False, None
    try:
        settled = await reading.read_rest(first)
    except RemoteError as failure:
        error = failure
    return ListResult(
        list(reading.found.values()),
        reading.skipped,
        reading.requests,
        reading.offset_passes,
        settled,
        error,
    )


class _Reading(Generic[T]):
    """One list being read."""

    def __init__(self, fetch: Fetch[T], search: str, size: int) -> None:
        self._fetch = fetch
        self._search = search
        self._size = size
        self.found: dict[str, T] = {}
        self.skipped = 0
        self.requests = 0
        self.offset_passes = 0

    async def ask(self, search: str, *, keyset: bool = False, offset: int = 0) -> PlatformPage[T]:
        """Ask for the page at this offset, in rows; in a smaller size where it is too large.

        Args:
            offset: A multiple of the size, which is what the server counts pages in.
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
        """Take the first page and what follows it; return whether every row is accounted for."""
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
            behind = self._behind(page)
            if behind is None:
                return False
            try:
                page = await self.ask(behind, keyset=True)
            except PlatformError as error:
                if error.status in (400, 500):  # bad search, or SQL that its database refuses
                    return False
                raise
            self.skipped += _skipped_for_good(page)
            # A known ID cannot lie behind all known ones: the condition was not honoured.
            if self._take(page) < len(page.readable):
                return False
        return await self._is_accounted_for(first.total)

    async def _is_accounted_for(self, total: int) -> bool:
        """Return False where the server counts more rows than we saw.

        It may simply have lost some meanwhile, so it is asked for its count again; if that is
        still higher, it does not order by ID, and its keyset pages skipped rows.
        """
        seen = len(self.found) + self.skipped
        if seen >= total:
            return True
        again = await self.ask(self._search)
        self._take(again)
        return len(self.found) + self.skipped >= again.total

    def _behind(self, page: PlatformPage[T]) -> str | None:
        """Return the search for the rows behind a page, or None where none can be written."""
        readable = page.readable
        if not readable or not _QUOTABLE.fullmatch(readable[-1].id):
            return None
        condition = f"id > '{readable[-1].id}'"
        return f"{self._search} and {condition}" if self._search else condition

    async def _read_offset(self) -> bool:
        while self.offset_passes < PASSES:
            self.offset_passes += 1
            known = len(self.found)
            still = await self._read_pass()
            # A row that left while the pass ran may have hidden another, though none was new.
            if still and len(self.found) == known:
                return True
        return False

    async def _read_pass(self) -> bool:
        """Read all offset pages; return whether they all told the same total."""
        offset, received, skipped = 0, 0, 0
        totals: set[int] = set()
        while True:
            page = await self.ask(self._search, offset=offset)
            offset += self._size
            self._take(page)
            totals.add(page.total)
            received += len(page.items)
            skipped += page.skipped
            # Both, since a server may answer with fewer rows a page than it was asked for.
            if not page.items or page.total <= min(offset, received):
                self.skipped = skipped
                return len(totals) == 1

    def _take(self, page: PlatformPage[T]) -> int:
        """Keep a page's rows, the newest version of each; return how many were new."""
        known = len(self.found)
        self.found.update({item.id: item for item in page.readable})
        return len(self.found) - known


def _smaller(size: int) -> int:
    """Return the largest size below this one that divides it: pages of both begin at its rows."""
    return next(size // each for each in range(2, size + 1) if size % each == 0)


def _skipped_for_good(page: PlatformPage[T]) -> int:
    """Return a keyset page's unreadable rows but those at its end, which the next page repeats."""
    if _ends_list(page):
        return page.skipped
    tail = 0
    while tail < len(page.items) and page.items[-1 - tail] is None:
        tail += 1
    return page.skipped - tail


def _ends_list(page: PlatformPage[T]) -> bool:
    """Return whether nothing lies behind a first or keyset page.

    Compared with what came, not with what was asked for: a server that caps the size of a page
    below ours would otherwise end the list with its first page.
    """
    return not page.items or page.total <= len(page.items)
