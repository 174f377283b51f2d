"""The fleet as columns of text, and reports as JSON with stable keys (pure)."""

from collections.abc import Sequence
from typing import Any

from reconciler.clock import EpochTime
from reconciler.humanize import clean, duration, instant
from reconciler.inspection.events import EventSummary
from reconciler.inspection.explain import explain
from reconciler.inspection.fleet import PodFleet, name_of
from reconciler.inspection.hints import hints
from reconciler.inspection.pod_token import PodToken
from reconciler.inspection.report import PodReport
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names

GAP = "   "
"""Between columns. Source: kubectl's printers pad to the widest cell and three spaces."""

UNKNOWN = "unknown"
NONE = "<none>"
"""What kubectl prints for a missing value."""

WIDE_COLUMNS = ("PROJECT", "SECRET", "NEXT", "REASON")
"""What `-o wide` adds; NEXT is the time until the next refresh."""

SORT_FIELDS = (
    "namespace",
    "pod",
    "session",
    "project",
    "terminating",
    "secret",
    "state",
    "reason",
    "expiresAt",
    "expiresInSeconds",
    "issuedAt",
    "refreshAt",
    "refreshedAt",
    "refreshedBy",
    "paused",
    "requested",
    "confirmed",
)
"""The fields of a row's JSON that have an order."""

Cells = dict[str, str]


def cells(row: PodToken, now_s: EpochTime) -> Cells:
    """Return one row with all columns; text of others is made printable."""
    expires = "never" if row.endless else UNKNOWN
    if row.expires_s is not None:
        expires = duration(row.expires_s - now_s)
    state = str(row.state)
    if row.paused and row.state != "paused":
        state += ",paused"
    if row.pod.is_deleting:
        state += ",terminating"
    return {
        "NAMESPACE": row.pod.namespace,
        "SESSION": clean(row.pod.session_id) or NONE,
        "POD": row.pod.name,
        "EXPIRES": expires,
        "STATE": state,
        "REFRESHED": NONE
        if row.refreshed_s is None
        else duration(max(0.0, now_s - row.refreshed_s)),
        "BY": clean(row.refreshed_by) or NONE,
    }


def wide_cells(row: PodToken, names: Names, now_s: EpochTime) -> Cells:
    """Return the columns that `-o wide` adds."""
    return {
        "PROJECT": clean(row.pod.project_id) or NONE,
        "SECRET": clean(names.secret_name(row.pod.session_id)),
        "NEXT": NONE if row.refresh_at_s is None else duration(row.refresh_at_s - now_s),
        "REASON": clean(row.reason) or NONE,
    }


def plain(rows: Sequence[Cells], columns: Sequence[str]) -> list[str]:
    """Return aligned lines, the header first, as kubectl prints them into a pipe."""
    table = [dict(zip(columns, columns, strict=True)), *rows]
    widths = {name: max(len(row[name]) for row in table) for name in columns}
    return [GAP.join(row[name].ljust(widths[name]) for name in columns).rstrip() for row in table]


def fleet_as_json(fleet: PodFleet, names: Names) -> dict[str, Any]:
    """Return the fleet as one JSON object; times are RFC 3339, spans seconds, or null."""
    first = fleet.next
    return {
        "at": instant(fleet.now_s),
        "summary": {
            "pods": len(fleet.rows),
            "expired": fleet.expired,
            "unhealthy": fleet.unhealthy,
            "states": {str(state): number for state, number in fleet.counts().items()},
            "next": None if first is None else name_of(first.pod),
            "nextExpiresAt": None if first is None else moment(first.expires_s),
        },
        "sessions": [row_as_json(row, names, fleet.now_s) for row in fleet.rows],
    }


def row_as_json(row: PodToken, names: Names, now_s: EpochTime) -> dict[str, Any]:
    left = row.remaining_s(now_s)
    return {
        "namespace": row.pod.namespace,
        "pod": row.pod.name,
        "session": row.pod.session_id,
        "project": row.pod.project_id,
        "terminating": row.pod.is_deleting,
        "secret": names.secret_name(row.pod.session_id),
        "state": str(row.state),
        "reason": row.reason,
        "expiresAt": moment(row.expires_s),
        "expiresInSeconds": None if left is None else round(left, 1),
        "issuedAt": moment(row.issued_s),
        "refreshAt": moment(row.refresh_at_s),
        "refreshedAt": moment(row.refreshed_s),
        "refreshedBy": row.refreshed_by or None,
        "otherWriters": list(row.other_writers(names)),
        "paused": row.paused,
        "requested": row.requested,
        "confirmed": row.confirmed,
    }


def report_as_json(report: PodReport) -> dict[str, Any]:
    """Return the report as one JSON object with stable keys."""
    leader = report.leader
    return row_as_json(report.pod_token, report.names, report.now_s) | {
        "at": instant(report.now_s),
        "state": report.state,
        "otherPods": list(report.sibling_pods),
        "subPathContainers": list(report.subpath_containers),
        "otherSecrets": list(report.other_secrets),
        "events": [
            {"type": "Warning" if each.is_warning else "Normal"} | _event_as_json(each)
            for each in report.events
        ],
        "eventsError": report.events_error or None,
        "reports": [{"replica": each.reporter} | _event_as_json(each) for each in report.reports],
        "reportsError": report.reports_error or None,
        "replicas": [
            {
                "pod": each.name,
                "ready": each.ready,
                "restarts": each.restarts,
                "waiting": each.waiting or None,
                "exitCode": each.exit_code,
                "endedAt": moment(each.ended_s),
                "message": each.message or None,
            }
            for each in report.replicas
        ],
        "replicasError": report.replicas_error or None,
        "leader": {
            "holder": leader.holder or None,
            "renewedAt": moment(leader.renewed_s),
            "leaseDurationSeconds": leader.duration_s or None,
            "stale": None if leader.problem else leader.is_stale(report.now_s),
            "error": leader.problem or None,
        },
        "sentences": explain(report),
        "next": [{"text": hint.text, "command": hint.command or None} for hint in hints(report)],
    }


def _event_as_json(event: EventSummary) -> dict[str, Any]:
    return {
        "reason": event.reason,
        "message": event.message,
        "count": event.count,
        "firstAt": moment(event.first_s),
        "lastAt": moment(event.last_s),
    }


def moment(epoch_s: EpochTime | None) -> str | None:
    return None if epoch_s is None else instant(epoch_s)


def pod_name(pod: ObjectMeta) -> str:
    """Return `pod/NAME`, as kubectl's confirmations and `-o name` do."""
    return f"pod/{pod.name}"
