"""The Kubernetes Events that the controller recorded, in a readable form (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from reconciler.clock import EPOCH, EpochTime, parse_utc
from reconciler.kube.api import ApiResource, ListOptions
from reconciler.kube.decoding import resource, struct_decoder
from reconciler.naming import Names

FAILED, RECOVERED, PAUSED = "RefreshFailed", "RefreshRecovered", "RefreshPaused"
OVERWRITTEN = ("TokenOverwritten", "SecretFoughtOver")
"""Reasons of the controller's Events; see `controller/events/rules.py`."""

REPORTED_S = 150.0
"""Age at which a report is out of date. A replica repeats its reports each minute; after two missed
repetitions the problem is over, or the replica has ended. See
`controller/status/replica_report.py`."""

MAX_EVENTS = 5
"""Most Events that are shown; the API server keeps each for an hour."""


class _Source(msgspec.Struct):
    component: str = ""


class _Series(msgspec.Struct):
    count: int = 0
    last_seen: str | None = msgspec.field(name="lastObservedTime", default=None)


class _Metadata(msgspec.Struct):
    created: str | None = msgspec.field(name="creationTimestamp", default=None)


class RawEvent(msgspec.Struct):
    """The fields of a core/v1 Event that are read here; each may be missing.

    `reportingComponent` is core/v1's name for `reportingController` of events.k8s.io/v1.
    """

    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int | None = None
    series: _Series | None = None
    source: _Source | None = None
    reporting: str = msgspec.field(name="reportingComponent", default="")
    instance: str = msgspec.field(name="reportingInstance", default="")
    first_time: str | None = msgspec.field(name="firstTimestamp", default=None)
    last_time: str | None = msgspec.field(name="lastTimestamp", default=None)
    event_time: str | None = msgspec.field(name="eventTime", default=None)


@dataclass(frozen=True, slots=True)
class EventSummary:
    """One Event, which occurred `count` times, last at `last_s` (epoch; 0 if unknown)."""

    is_warning: bool
    reason: str
    message: str
    count: int
    first_s: EpochTime
    last_s: EpochTime
    reporter: str = ""
    """The replica that reports it: its name, or its term."""


def event_resource() -> ApiResource[RawEvent]:
    return resource(
        "events", group="", version="v1", partial=False, decode=struct_decoder(RawEvent)
    )


def events_of(namespace: str, uid: str) -> ListOptions:
    """Return what to list for one pod: by UID, since an earlier pod may have had the same name."""
    return ListOptions(namespace, fields=f"involvedObject.uid={uid}")


def events_of_lease(namespace: str, name: str) -> ListOptions:
    """Return what to list for the replicas, which report on the Lease; it may not exist yet."""
    return ListOptions(namespace, fields=f"involvedObject.kind=Lease,involvedObject.name={name}")


def current_reports(reports: Iterable[EventSummary], now_s: EpochTime) -> list[EventSummary]:
    """Return the reports that a replica still repeats, the latest first."""
    return [each for each in reports if now_s - each.last_s <= REPORTED_S]


def summaries(events: Iterable[RawEvent], names: Names) -> list[EventSummary]:
    """Return the controller's own Events, the latest first, at most `MAX_EVENTS`."""
    ours = [_read(event) for event in events if names.field_manager in _reporters(event)]
    return sorted(ours, key=lambda each: each.last_s, reverse=True)[:MAX_EVENTS]


def _reporters(event: RawEvent) -> tuple[str, ...]:
    return (event.reporting, event.source.component if event.source is not None else "")


def _read(event: RawEvent) -> EventSummary:
    """Read times and counts from the series or the older fields, whichever the writer set."""
    series = event.series or _Series()
    last_s = _first_of(
        series.last_seen,
        event.last_time,
        event.event_time,
        event.first_time,
        event.metadata.created,
    )
    return EventSummary(
        is_warning=event.type == "Warning",
        reason=event.reason,
        message=event.message,
        count=max(1, series.count, event.count or 0),
        first_s=_first_of(
            event.first_time, event.event_time, event.metadata.created, default=last_s
        ),
        last_s=last_s,
        reporter=event.instance,
    )


def _first_of(*texts: str | None, default: EpochTime = EPOCH) -> EpochTime:
    found = (parse_utc(text) for text in texts if text)
    return next((instant_s for instant_s in found if instant_s is not None), default)
