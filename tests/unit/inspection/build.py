"""Short ways to build what a command reads of the cluster."""

from collections.abc import Sequence
from typing import Any

from reconciler.clock import EpochTime
from reconciler.controller.decide.refresh_plan import DecisionContext
from reconciler.inspection.events import EventSummary
from reconciler.inspection.pod_token import PodToken, assess
from reconciler.inspection.report import Leader, PodReport
from reconciler.kube.api import ObjectMeta
from tests.unit.controller.build import NAMES, NOW_S, decision_context, secret
from tests.unit.controller.build import pod as any_pod

DAY_S = 86_400.0


LEASE = "token-reconciler"


def pod(**changes: Any) -> ObjectMeta:
    """Return a pod whose refreshes are at 0.54 of a fresh token's life."""
    return any_pod(**changes)


def reader_context() -> DecisionContext:
    """Return what a command knows: no term, no start-up, no life of a token of its own."""
    return decision_context(term="", startup="none", longest_ttl_s=DAY_S)


def assessed_pod(
    found_secret: ObjectMeta | None = secret(),  # noqa: B008 - frozen
    on: ObjectMeta = pod(),  # noqa: B008 - frozen
    *,
    now_s: EpochTime = NOW_S,
) -> PodToken:
    return assess(on, found_secret, reader_context(), now_s)


def report_of(
    row: PodToken,
    *,
    ended: bool = False,
    siblings: Sequence[str] = (),
    events: Sequence[EventSummary] = (),
    events_error: str = "",
    leader: Leader = Leader("replica-0", NOW_S - 2, 15),  # noqa: B008 - frozen
    now_s: EpochTime = NOW_S,
    **more: Any,
) -> PodReport:
    return PodReport(
        row,
        NAMES,
        now_s,
        ended,
        siblings,
        events,
        events_error,
        leader,
        "ambient-code",
        LEASE,
        **more,
    )
