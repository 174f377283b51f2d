"""One run of one session, from the queue back to the queue, as its observers see it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from reconciler.clock import EpochTime, Instant
from reconciler.controller.decide.annotations import TokenAnnotations
from reconciler.controller.decide.evidence import Undone
from reconciler.controller.decide.refresh_plan import SessionState
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey
from reconciler.telemetry.trace import Trace
from reconciler.workqueue.items import WorkItem

Outcome = Literal[
    "refreshed", "unchanged", "blocked", "failed", "removed", "no_better_token",
    "conflict_backoff", "not_leader", "bulkhead_full", "cancelled",
]  # fmt: skip
"""How a run ended. `unchanged`: nothing was due. `no_better_token`: no available token is better.
`conflict_backoff`: another writer writes the Secret, too. `not_leader`: the fence stopped the
write. `bulkhead_full`: too many requests were in flight to the target of the next one.
"""


@dataclass(slots=True)
class ReconcileRun:
    """What metrics, Events, traces and the status page are made from; it holds no token.

    Args:
        term_began_at: When this replica began to lead, monotonic: earlier lateness is not counted.
        reason: Of the last plan with an action, or of what blocks; "" if nothing was due.
        error: The error that it failed with, or None; `failures` counts consecutive failures.
        shared: The endpoint that is unreachable or refuses us, if that is the cause; or "".
        routine: Failed in a way that heals by planning again: a conflict.
        awaits_list: Nothing was done yet: a list of the platform is under way that may confirm it.
        accepted: Whether a write of the Secret was accepted, be it one of its confirmation.
        wrote: Whether a write of the Secret was applied, even of annotations alone.
        before: The Secret's annotations before the write; None for a new Secret.
        written_s: When a token was written (epoch, issuer's time), or None.
        touched: Whether the pod was or will be touched, so that it can read the token in a second.
        overwrites: How often other writers undid our writes lately, including the one that this run
            repaired; 0 if it repaired none. `writer` is their field manager, "" if unknown;
            `undone` is what they undid.
    """

    work: WorkItem[SessionKey]
    trace: Trace
    term_began_at: Instant
    outcome: Outcome = "cancelled"
    reason: str = ""
    error: Exception | None = None
    failures: int = 0
    blocked_on: str = ""
    routine: bool = False
    pod: ObjectMeta | None = None
    awaits_list: bool = False
    accepted: bool = False
    wrote: bool = False
    before: TokenAnnotations | None = None
    written_s: EpochTime | None = None
    created: bool = False
    touched: bool = False
    overwrites: int = 0
    writer: str = ""
    undone: Undone = ""
    key: SessionKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.work.key  # read a dozen times in a run

    @property
    def due_at(self) -> Instant:
        """When it was due, monotonic; for a write, when that was first due, before all retries.

        A run that writes nothing did not end any lateness.
        """
        due_at = self.work.first_due_at if self.wrote else self.work.due_at
        return max(due_at, self.term_began_at)

    @property
    def lateness_s(self) -> float:
        """How long after `due_at` it began; 0.0 if it began in time."""
        return max(0.0, self.trace.began_at - self.due_at)

    @property
    def error_class(self) -> str:
        return type(self.error).__name__ if self.error is not None else ""


Observer = Callable[[ReconcileRun], None]
"""Called with each run after its session went back to the queue."""


class ReconcileStats(msgspec.Struct):
    """Counts since start; `refreshes` by reason, `failures` by error class."""

    refreshes: dict[str, int]
    failures: dict[str, int]
    pod_touches_total: int = 0
    created_total: int = 0
    reconcile_panics_total: int = 0
    last_forbidden: str = ""
    """The last write or read for a session that the API server answered 403 for want of a right."""


def names_of(key: SessionKey) -> dict[str, Any]:
    """Return what a log line names a session by."""
    return {"namespace": key.namespace, "session_id": key.session_id}


def objects_of(state: SessionState) -> dict[str, Any]:
    """Return the names of a session's pod and Secret for a log line."""
    return {
        "pod": state.pod.name if state.pod else None,
        "secret": state.secret.name if state.secret else None,
    }
