"""A small list on a server; its rows may change between two pages."""

from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.errors import PlatformError, RemoteError
from reconciler.platform.models import PlatformPage, PlatformSession
from reconciler.platform.pagination import PageQuery


@dataclass
class FakeList:
    """Rows by ID, in the order of `order`, `size` a page.

    Args:
        keyset: What becomes of `id > '..'`: honoured, ignored, or the status that refuses it.
        change: Called after each answer; may edit `rows`.
        cap: The most rows in one page, below the size asked for.
    """

    rows: set[str]
    size: int = 3
    keyset: str | int = "honoured"
    order: Callable[[str], str] = str
    change: Callable[[], None] = lambda: None
    cap: int = 10_000
    fail_at: dict[int, RemoteError] = field(default_factory=dict)
    queries: list[PageQuery] = field(default_factory=list)

    async def __call__(self, query: PageQuery) -> PlatformPage[PlatformSession]:
        self.queries.append(query)
        if error := self.fail_at.get(len(self.queries)):
            raise error
        _, behind, last = query.search.partition("id > '")
        if behind and isinstance(self.keyset, int):
            raise PlatformError("refused", status=self.keyset)
        rows = sorted(self.rows, key=self.order)
        if behind and self.keyset == "honoured":
            rows = [row for row in rows if self.order(row) > self.order(last[:-1])]
        size = min(self.size, self.cap)
        start = (query.page - 1) * size
        items = [PlatformSession(id=row) for row in rows[start : start + size]]
        page = PlatformPage[PlatformSession](total=len(rows), items=[*items])
        self.change()
        return page
