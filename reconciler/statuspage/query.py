"""A query for the session list, in a URL, and its result (pure)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
from msgspec.structs import replace

from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.status.snapshot import SessionStatus
from reconciler.statuspage.session_row import COLUMNS

PAGE_ROWS = 25
"""Sessions of one page: rendering and sending cost the same from 25 sessions on."""

LONGEST = 200
"""Characters of a search that are used."""

SHOWS = (*TokenState, "failing", "blocked")
"""What the list may be narrowed to: one state, sessions with a failed last run, or blocked ones."""

DIGITS = 7
"""Most digits of a page's number; Python's `int` fails above some thousands."""

_BY_SORT = {column.sort: column for column in COLUMNS}


class SessionQuery(msgspec.Struct, frozen=True):
    """One view of the list. Every URL gives a view; none is an error.

    Args:
        text: Words, each of which must occur in the session's namespace, ID, project or objects.
        show: One of `SHOWS`, "" for all.
        sort: Of one of `COLUMNS`.
        down: Largest first.
        page: From 1; a number past the end shows the last page.
        opened: `NAMESPACE/SESSION` of the row that is shown with details, or "".
    """

    text: str = ""
    show: str = ""
    sort: str = "life"
    down: bool = False
    page: int = 1
    opened: str = ""

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> "SessionQuery":
        """Read a URL's parameters; invalid ones are ignored."""
        show, number = parameters.get("show", ""), parameters.get("page", "")[:DIGITS]
        sort = parameters.get("sort", "")
        return cls(
            text=" ".join(parameters.get("q", "")[:LONGEST].split()),
            show=show if show in SHOWS else "",
            sort=sort if sort in _BY_SORT else "life",
            down=parameters.get("down") == "1",
            page=_page(number),
            opened=parameters.get("open", "")[: 2 * LONGEST],
        )

    def url(self, **changes: Any) -> str:
        """Return the relative URL of this view with changes.

        A change of the filter or the order goes to the first page, and closes the opened row; so
        does a change of the page.
        """
        if changes and "opened" not in changes:
            changes = {"page": 1, "opened": ""} | changes
        other = replace(self, **changes)
        parameters = {
            "q": other.text,
            "show": other.show,
            "sort": "" if other.sort == "life" else other.sort,
            "down": "1" if other.down else "",
            "page": "" if other.page == 1 else str(other.page),
            "open": other.opened,
        }
        return "?" + urlencode({name: value for name, value in parameters.items() if value})


class QueryResult(msgspec.Struct, frozen=True):
    """One page of the result: `total` rows matched, on `pages` pages, of which this is `page`.

    If the opened row is on another page, it is added as the first one.
    """

    rows: tuple[SessionStatus, ...]
    total: int
    page: int
    pages: int


def select(rows: Sequence[SessionStatus], query: SessionQuery) -> QueryResult:
    """Return the rows that a view shows.

    The opened row is always shown, though a refresh moves it to another page.

    Order: by the query, then by name; a session with an unknown value is last in both directions.
    Cost: 10 ms for 10,000 rows.
    """
    matching = [row for row in rows if _is_shown(row, query.show)] if query.show else list(rows)
    if query.text:
        words = query.text.casefold().split()
        matching = [row for row in matching if _has_words(row, words)]
    value = _BY_SORT[query.sort].value
    matching.sort(key=lambda row: (row.namespace, row.session_id))
    matching.sort(key=value, reverse=query.down)
    if query.sort in ("life", "next"):
        matching.sort(key=lambda row: value(row) == math.inf)
    pages = max(1, -(-len(matching) // PAGE_ROWS))
    page = min(query.page, pages)
    first = (page - 1) * PAGE_ROWS
    shown = matching[first : first + PAGE_ROWS]
    return QueryResult((*_opened_elsewhere(rows, shown, query), *shown), len(matching), page, pages)


def _opened_elsewhere(
    rows: Sequence[SessionStatus], shown: Sequence[SessionStatus], query: SessionQuery
) -> list[SessionStatus]:
    namespace, _, session_id = query.opened.partition("/")
    found = [row for row in rows if row.session_id == session_id and row.namespace == namespace]
    return [row for row in found if row not in shown]


def _page(text: str) -> int:
    return max(int(text), 1) if text.isascii() and text.isdigit() else 1


def _is_shown(row: SessionStatus, show: str) -> bool:
    if show == "failing":
        return row.failures > 0 and not row.block_reason
    if show == "blocked":
        return bool(row.block_reason)
    return row.state == show and not row.block_reason


def _has_words(row: SessionStatus, words: Sequence[str]) -> bool:
    text = f"{row.namespace}/{row.session_id} {row.project} {row.pod} {row.secret}".casefold()
    return all(word in text for word in words)
