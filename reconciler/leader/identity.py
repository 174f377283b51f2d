"""Who we are in the Lease (pure)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: unlike all others, and still known as the next one of its pod.

    Args:
        replica: Name for people, the pod's as a rule.
        pod_uid: UID of the pod, "" outside of one.
        nonce: Drawn once per process, so that no process takes another's claim for its own.
    """

    replica: str
    pod_uid: str
    nonce: str

    def __str__(self) -> str:
        return f"{self._pod}_{self.nonce}" if self.pod_uid else f"{self.replica}_{self.nonce}"

    def is_predecessor(self, holder: str) -> bool:
        """Tell whether `holder` ran in our pod before us; then it has ended.

        Source: a kubelet never runs two instances of one container of a pod.
        """
        return bool(self.pod_uid) and holder.startswith(f"{self._pod}_") and holder != str(self)

    def term(self, transitions: int) -> str:
        """Return the name of a tenure for annotations: replica, number and process."""
        return f"{self.replica}/{transitions}-{self.nonce}"

    @property
    def _pod(self) -> str:
        return f"{self.replica}_{self.pod_uid}"
