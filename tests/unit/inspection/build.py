"""Short ways to say what an onlooker finds."""

from collections.abc import Sequence
from typing import Any

from reconciler.controller.decide.plan import Policy
from reconciler.inspection.events import Occurrence
from reconciler.inspection.report import Account, Leader
from reconciler.inspection.token_state import Standing, judge
from reconciler.kube.api import Meta
from tests.unit.controller.build import NAMES, NOW_S, policy, secret
from tests.unit.controller.build import pod as any_pod

DAY_S = 86_400.0


LEASE = "token-reconciler"


def pod(**changes: object) -> Meta:
    """Return a pod whose renewals fall at 0.54 of a fresh token's life."""
    return any_pod(**changes)


def onlooker() -> Policy:
    """Return what a command knows: no term, no start-up, no life of a token of its own."""
    return policy(term="", startup="none", longest_ttl_s=DAY_S)


def standing(
    held: Meta | None = secret(),  # noqa: B008 - frozen
    on: Meta = pod(),  # noqa: B008 - frozen
    *,
    now_s: float = NOW_S,
) -> Standing:
    return judge(on, held, onlooker(), now_s)


def account(
    row: Standing,
    *,
    ended: bool = False,
    others: Sequence[str] = (),
    events: Sequence[Occurrence] = (),
    silence: str = "",
    leader: Leader = Leader("replica-0", NOW_S - 2, 15),  # noqa: B008 - frozen
    now_s: float = NOW_S,
    **more: Any,
) -> Account:
    return Account(
        row, NAMES, now_s, ended, others, events, silence, leader, "ambient-code", LEASE, **more
    )
