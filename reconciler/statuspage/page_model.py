"""What one view of the page is made of (pure)."""

from collections.abc import Mapping, Sequence

import msgspec

from reconciler.controller.events.correlator import PodEvent
from reconciler.controller.status.history import RunRecord
from reconciler.controller.status.snapshot import SessionStatus, StatusSnapshot
from reconciler.controller.status.trend import TrendReading
from reconciler.naming import SessionKey
from reconciler.statuspage.query import QueryResult, SessionQuery


class PageModel(msgspec.Struct, frozen=True):
    """The input of one view; `runs` has the recent runs of the rows in `result`, `events` the
    Events of the opened one."""

    snapshot: StatusSnapshot
    rows: Sequence[SessionStatus]
    query: SessionQuery
    result: QueryResult
    runs: Mapping[SessionKey, tuple[RunRecord, ...]]
    events: Mapping[SessionKey, tuple[PodEvent, ...]]
    trend: TrendReading
    not_ready: str
