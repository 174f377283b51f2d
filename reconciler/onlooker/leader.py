"""Who leads, by the Lease, as far as an onlooker may read it (pure)."""

from dataclasses import dataclass

from reconciler.clock import parse_utc
from reconciler.leader.record import Record
from reconciler.onlooker.words import ago, clean, duration


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


def leader_of(record: Record) -> Leader:
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
