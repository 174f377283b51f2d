"""A view of a survey as HTML."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from reconciler import __version__
from reconciler.controller.status.history import RunRecord
from reconciler.controller.status.snapshot import SessionStatus, StatusSnapshot
from reconciler.humanize import clean, instant
from reconciler.naming import SessionKey
from reconciler.statuspage.components import components, role
from reconciler.statuspage.histogram import distribute
from reconciler.statuspage.query import QueryResult, SessionQuery
from reconciler.statuspage.session_row import row_of
from reconciler.statuspage.summary import exposure, filters, stats, verdict

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True, slots=True)
class PageModel:
    """What one view is made of; `past` holds the attempts of the rows that were found."""

    survey: StatusSnapshot
    rows: Sequence[SessionStatus]
    query: SessionQuery
    found: QueryResult
    past: Mapping[SessionKey, tuple[RunRecord, ...]]
    not_ready: str


class Render:
    """The templates; they are read and compiled at the first view, not at the start."""

    def __init__(self, replica: str, ignored: Sequence[str] = ()) -> None:
        self._replica = replica
        self._ignored = ignored

    def view(self, shown: PageModel, *, whole: bool) -> str:
        """Return the whole document, or the part of it that changes. Cost: 5 ms."""
        template = self._environment.get_template("page.html" if whole else "main.html")
        return template.render(self._context(shown))

    def _context(self, shown: PageModel) -> dict[str, Any]:
        survey, query, found = shown.survey, shown.query, shown.found
        spread = distribute(shown.rows, ttl_s=_whole_life(survey))
        wall_s = survey.now_s - survey.issuer.skew_s
        tone, sentence = verdict(survey, shown.not_ready)
        return {
            "version": __version__,
            "replica": clean(self._replica),
            "role": role(survey),
            "at": instant(survey.now_s),
            "tone": tone,
            "verdict": sentence,
            "exposure": exposure(survey),
            "figures": stats(survey),
            "spread": spread,
            "parts": components(survey, self._replica, self._ignored),
            "choices": filters(survey),
            "query": query,
            "found": found,
            "lines": [
                row_of(
                    row,
                    shown.past[row.key],
                    now_s=survey.now_s,
                    wall_s=wall_s,
                    scale_s=spread.scale_s,
                )
                for row in found.rows
            ],
        }

    @cached_property
    def _environment(self) -> "Environment":
        from jinja2 import Environment, PackageLoader, StrictUndefined

        return Environment(
            loader=PackageLoader("reconciler.statuspage"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )


def _whole_life(survey: StatusSnapshot) -> float:
    """Return how long a token lives, in seconds; 0.0 before the first one, or without an end."""
    token = survey.issuer.token
    known = token.issued_total > 0 and math.isfinite(token.longest_ttl_s)
    return token.longest_ttl_s if known else 0.0
