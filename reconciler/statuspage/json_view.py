"""A view of a snapshot as JSON: what the page shows, for a program (pure)."""

import math

import msgspec
from msgspec.structs import asdict

from reconciler import __version__
from reconciler.clock import EpochTime
from reconciler.controller.status.history import RunRecord
from reconciler.controller.status.snapshot import SessionStatus
from reconciler.controller.status.trend import STEP_S
from reconciler.humanize import instant
from reconciler.statuspage.components import components, role
from reconciler.statuspage.identity import PageIdentity, leader_name
from reconciler.statuspage.page_model import PageModel
from reconciler.statuspage.summary import details, filters, headline

LEADER_ONLY = ("reason", "stage", "blocked_on", "failures", "block_reason")
"""Fields of a session that a standby does not know, beside `due_s`."""


def encode(model: PageModel, identity: PageIdentity) -> str:
    """Return one JSON object; null is what is not known, or has no end.

    Units: `_s` are seconds; `_at` is RFC 3339 in UTC, those of tokens in the issuer's time.
    """
    snapshot, result, fleet = model.snapshot, model.result, model.snapshot.fleet
    severity, sentence, alert = headline(snapshot, model.not_ready)
    lease = snapshot.lease
    view = {
        "version": __version__,
        "cluster": identity.cluster,
        "namespace": identity.namespace,
        "shard": str(lease.shard),
        "replica": identity.replica,
        "role": role(snapshot),
        "leader": identity.replica if lease.leading else leader_name(lease),
        "read_at": instant(snapshot.now_s),
        "severity": severity,
        "headline": sentence,
        "details": details(snapshot, sentence),
        "runbook_url": identity.links.runbook(alert) or None,
        "dashboard_url": identity.links.dashboard or None,
        "estimated_exposure_s": fleet.exposure_s,
        "fleet_survival_s": fleet.survival_s,
        "next_to_expire": str(fleet.next_to_expire) if fleet.next_to_expire else None,
        "next_to_expire_s": fleet.next_to_expire_s,
        "propagation_allowance_s": snapshot.propagation_s,
        "dependencies": [
            asdict(each) for each in components(snapshot, identity.replica, identity.ignored)
        ],
        "sessions_by_filter": {each.show or "all": each.count for each in filters(snapshot)},
        "history": {"step_s": STEP_S, "series": model.trend},
        "found": result.total,
        "page": result.page,
        "pages": result.pages,
        "sessions": [_session(row, model, identity) for row in result.rows],
    }
    return msgspec.json.encode(view).decode()


def _session(row: SessionStatus, model: PageModel, identity: PageIdentity) -> dict[str, object]:
    found: dict[str, object] = msgspec.structs.asdict(row)
    found["expires_at"] = _time(found.pop("expires_s"))
    due_at = _time(found.pop("due_s"))
    if row.key in model.events:
        found["events"] = [
            {
                "type": each.type,
                "reason": each.reason,
                "message": each.message,
                "count": each.count,
                "last_at": instant(each.last_s),
            }
            for each in model.events[row.key]
        ]
    if not model.snapshot.lease.leading:
        return {name: value for name, value in found.items() if name not in LEADER_ONLY}
    runs = [_run(each, identity) for each in model.runs[row.key]]
    return found | {"due_at": due_at, "runs": runs}


def _run(run: RunRecord, identity: PageIdentity) -> dict[str, object]:
    trace_id = run.hex_trace_id
    return {
        "ended_at": instant(run.ended_s),
        "outcome": run.outcome,
        "reason": run.reason,
        "error": run.error,
        "trace_id": trace_id or None,
        "trace_url": (run.exported and identity.links.trace(trace_id)) or None,
    }


def _time(value: object) -> str | None:
    return instant(EpochTime(value)) if isinstance(value, float) and math.isfinite(value) else None
