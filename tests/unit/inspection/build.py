"""Short ways to say what an onlooker finds."""

from collections.abc import Sequence
from typing import Any

from reconciler.controller.decide.plan import DecisionContext
from reconciler.inspection.events import EventSummary
from reconciler.inspection.pod_token import PodToken, assess
from reconciler.inspection.report import Leader, PodReport
from reconciler.kube.api import ObjectMeta
from tests.unit.controller.build import NAMES, NOW_S, policy, secret
from tests.unit.controller.build import pod as any_pod

DAY_S = 86_400.0


LEASE = "token-reconciler"


def pod(**changes: object) -> ObjectMeta:
    """Return a pod whose renewals fall at 0.54 of a fresh token's life."""
    return any_pod(**changes)


def onlooker() -> DecisionContext:
    """Return what a command knows: no term, no start-up, no life of a token of its own."""
    return policy(term="", startup="none", longest_ttl_s=DAY_S)


def standing(
    held: ObjectMeta | None = secret(),  # noqa: B008 - frozen
    on: ObjectMeta = pod(),  # noqa: B008 - frozen
    *,
    now_s: float = NOW_S,
) -> PodToken:
    return assess(on, held, onlooker(), now_s)


def account(
    row: PodToken,
    *,
    ended: bool = False,
    others: Sequence[str] = (),
    events: Sequence[EventSummary] = (),
    silence: str = "",
    leader: Leader = Leader("replica-0", NOW_S - 2, 15),  # noqa: B008 - frozen
    now_s: float = NOW_S,
    **more: Any,
) -> PodReport:
    return PodReport(
        row, NAMES, now_s, ended, others, events, silence, leader, "ambient-code", LEASE, **more
    )
