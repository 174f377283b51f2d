"""What was found of one pod, for sentences, advice and JSON (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.names import Names
from reconciler.onlooker.events import FAILED, RECOVERED, Occurrence
from reconciler.onlooker.leader import Leader
from reconciler.onlooker.replicas import Replica
from reconciler.onlooker.standing import Standing


@dataclass(frozen=True, slots=True)
class Account:
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

    standing: Standing
    names: Names
    now_s: float
    ended: bool
    others: Sequence[str]
    events: Sequence[Occurrence]
    silence: str
    leader: Leader
    lease_namespace: str
    lease_name: str
    reports: Sequence[Occurrence] = ()
    reports_unknown: str = ""
    replicas: Sequence[Replica] = ()
    replicas_unknown: str = ""

    @property
    def is_dead(self) -> bool:
        return self.standing.is_dead and not self.ended

    @property
    def is_failing(self) -> bool:
        """Whether the last that the controller reported of its tries is that they fail."""
        told = [each for each in self.events if each.reason in (FAILED, RECOVERED)]
        return bool(told) and max(told, key=lambda each: each.last_s).reason == FAILED

    @property
    def state(self) -> str:
        return "ended" if self.ended else str(self.standing.state)

    @property
    def secret(self) -> str:
        return self.names.secret_name(self.standing.pod.session_id)
