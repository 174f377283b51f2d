"""Everything that was read about one pod, for sentences, hints and JSON (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.clock import EpochTime
from reconciler.humanize import ago, clean, duration
from reconciler.inspection.events import FAILED, RECOVERED, EventSummary
from reconciler.inspection.pod_token import PodToken
from reconciler.inspection.replicas import ObservedReplica
from reconciler.leadership.lease import LeaseRecord, is_held
from reconciler.naming import Names


@dataclass(frozen=True, slots=True)
class Leader:
    """The Lease; `problem` is why it is not known ("" = it was read)."""

    holder: str = ""
    renewed_s: EpochTime | None = None
    duration_s: int = 0
    problem: str = ""
    is_absent: bool = False
    """There is no Lease: no replica has been leader, or the Lease has another name or namespace."""

    def is_stale(self, now_s: EpochTime) -> bool:
        """Whether there is no leader: the Lease was released, or not renewed in its duration."""
        held = is_held(self.holder, self.renewed_s, self.duration_s, now_s)
        return not self.problem and not held


def leader_of(record: LeaseRecord) -> Leader:
    return Leader(record.holder, record.renewed_s, record.duration_s)


def describe_leader(leader: Leader, lease_name: str, now_s: EpochTime) -> str:
    """Return a sentence that names the leader.

    Args:
        lease_name: `NAMESPACE/NAME`.
    """
    lease = f"lease {lease_name}"
    if leader.problem:
        return f"The leader is unknown: {leader.problem}."
    if not leader.holder:
        return f"There is no leader: {lease} has no holder."
    holder = clean(leader.holder)
    if leader.renewed_s is None:
        return f"There is no leader: {lease} names {holder} without a renewal time."
    renewed = ago(now_s - leader.renewed_s)
    if leader.is_stale(now_s):
        length = duration(leader.duration_s)
        return (
            f"There is no leader: {holder} last renewed {lease} {renewed}; its duration is "
            f"{length}."
        )
    return f"The leader is {holder}, which renewed {lease} {renewed}."


@dataclass(frozen=True, slots=True)
class PodReport:
    """Everything that was read about one pod.

    Args:
        ended: The pod succeeded or failed; its token is no longer refreshed.
        sibling_pods: Other live pods of the same session, which read the same Secret.
        events: The controller's Events on it, the latest first.
        events_error: Why the events are unknown ("" = they were read).
        lease_namespace: The namespace of the Lease `lease_name`.
        reports: What keeps replicas from refreshing tokens, by their own Events on the Lease.
        reports_error: Why the reports are unknown ("" = they were read).
        replicas: The controller's pods, of this session's shard, in the Lease's namespace.
        replicas_error: Why the replicas are unknown ("" = they were read).
        subpath_containers: Containers that mount the Secret by subPath, so that their file is never
            updated.
        other_secrets: The Secrets of the pod's volumes, if none of them is its session's.
        other_shards: The shards of the controller's pods, if none of them has this session.
    """

    pod_token: PodToken
    names: Names
    now_s: EpochTime
    ended: bool
    sibling_pods: Sequence[str]
    events: Sequence[EventSummary]
    events_error: str
    leader: Leader
    lease_namespace: str
    lease_name: str
    reports: Sequence[EventSummary] = ()
    reports_error: str = ""
    replicas: Sequence[ObservedReplica] = ()
    replicas_error: str = ""
    other_shards: Sequence[str] = ()
    subpath_containers: Sequence[str] = ()
    other_secrets: Sequence[str] = ()

    @property
    def has_expired_token(self) -> bool:
        return self.pod_token.has_expired_token and not self.ended

    @property
    def failure(self) -> EventSummary | None:
        """The latest Event about the refreshes, if it is a failure."""
        found = [each for each in self.events if each.reason in (FAILED, RECOVERED)]
        last = max(found, key=lambda each: each.last_s, default=None)
        return last if last is not None and last.reason == FAILED else None

    @property
    def shares_its_name(self) -> bool:
        """Whether the session that owns the Secret gives a Secret the same name."""
        found = self.pod_token.secret
        return found is not None and self.names.secret_name(found.session_id) == self.secret

    @property
    def state(self) -> str:
        return "ended" if self.ended else str(self.pod_token.state)

    @property
    def secret(self) -> str:
        return self.names.secret_name(self.pod_token.pod.session_id)
