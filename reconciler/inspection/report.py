"""What was found of one pod, for sentences, advice and JSON (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.clock import parse_utc
from reconciler.humanize import ago, clean, duration
from reconciler.inspection.events import FAILED, RECOVERED, EventSummary
from reconciler.inspection.pod_token import PodToken
from reconciler.inspection.replicas import ObservedReplica
from reconciler.leadership.lease import LeaseRecord
from reconciler.naming import Names


@dataclass(frozen=True, slots=True)
class Leader:
    """What the Lease says; `problem` is why nothing is known ("" = it was read)."""

    holder: str = ""
    renewed_s: float | None = None
    duration_s: int = 0
    problem: str = ""
    is_absent: bool = False
    """There is no Lease: no replica has led here, or it is elsewhere."""

    def is_stale(self, now_s: float) -> bool:
        """Nobody leads: the Lease was given back, or not renewed for its whole length."""
        if self.problem:
            return False
        return not self.holder or self.renewed_s is None or now_s - self.renewed_s > self.duration_s


def leader_of(record: LeaseRecord) -> Leader:
    # By the API server's clock where it tells: the holder's own, in `renewTime`, may be off.
    return Leader(record.holder, parse_utc(record.written or record.renewed), record.duration_s)


def tell(leader: Leader, lease_name: str, now_s: float) -> str:
    """Say in one sentence who leads.

    Args:
        lease_name: `NAMESPACE/NAME`.
    """
    lease = f"lease {lease_name}"
    if leader.problem:
        return f"Who leads is not known here: {leader.problem}."
    if not leader.holder:
        return f"Nobody leads: {lease} is held by nobody."
    holder = clean(leader.holder)
    if leader.renewed_s is None:
        return f"Nobody leads: {lease} names {holder}, and not when it was renewed."
    renewed = ago(now_s - leader.renewed_s)
    if leader.is_stale(now_s):
        length = duration(leader.duration_s)
        return f"Nobody leads: {holder} last renewed {lease}, of {length}, {renewed}."
    return f"The leader is {holder}, which renewed {lease} {renewed}."


@dataclass(frozen=True, slots=True)
class PodReport:
    """What was found of one pod.

    Args:
        ended: The pod succeeded or failed; nothing is renewed for it any more.
        others: Other live pods of the same session, which read the same Secret.
        events: What our controller reported on it, the latest first.
        silence: Why there are no events ("" = they were read).
        lease_namespace: Where the Lease is looked for, under `lease_name`.
        reports: What keeps replicas from their work, by their own reports on the Lease.
        reports_unknown: Why there are none ("" = they were read).
        replicas: The controller's pods in the Lease's namespace.
        replicas_unknown: Why there are none ("" = they were read).
    """

    pod_token: PodToken
    names: Names
    now_s: float
    ended: bool
    sibling_pods: Sequence[str]
    events: Sequence[EventSummary]
    events_error: str
    leader: Leader
    lease_namespace: str
    lease_name: str
    reports: Sequence[EventSummary] = ()
    reports_unknown: str = ""
    replicas: Sequence[ObservedReplica] = ()
    replicas_unknown: str = ""

    @property
    def has_expired_token(self) -> bool:
        return self.pod_token.has_expired_token and not self.ended

    @property
    def is_failing(self) -> bool:
        """Whether the last that the controller reported of its tries is that they fail."""
        told = [each for each in self.events if each.reason in (FAILED, RECOVERED)]
        return bool(told) and max(told, key=lambda each: each.last_s).reason == FAILED

    @property
    def state(self) -> str:
        return "ended" if self.ended else str(self.pod_token.state)

    @property
    def secret(self) -> str:
        return self.names.secret_name(self.pod_token.pod.session_id)
