"""Who led when, and who wrote without leading: read off the API server's ledger (pure)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.lab.apiserver.write_log import LeaseTurn, SignedWrite


@dataclass(frozen=True, slots=True)
class LeaderTerm:
    """From one process' acquisition to the next one's; a release does not end it.

    Args:
        at: Monotonic seconds of the server's clock.
        released_at: When it gave the Lease up, None if it did not.
    """

    process: str
    version: int
    at: float
    released_at: float | None


def leader_terms(turns: Iterable[LeaseTurn]) -> list[LeaderTerm]:
    """Return the reigns in their order; a holder that comes back to itself begins no new one."""
    found: list[LeaderTerm] = []
    for turn in turns:
        last = found[-1] if found else None
        if not turn.holder:
            if last is not None:
                found[-1] = LeaderTerm(last.process, last.version, last.at, turn.at)
        elif last is None or last.process != turn.holder:
            found.append(LeaderTerm(turn.holder, turn.version, turn.at, None))
    return found


def deposed_writes(
    reigns: Sequence[LeaderTerm], writes: Iterable[SignedWrite]
) -> list[SignedWrite]:
    """Return the writes that were committed while another process held the Lease, or nobody yet."""
    found, index = [], -1
    for write in writes:
        while index + 1 < len(reigns) and reigns[index + 1].version < write.version:
            index += 1
        if index < 0 or reigns[index].process != write.process:
            found.append(write)
    return found


def failover_s(
    reigns: Sequence[LeaderTerm], writes: Sequence[SignedWrite], losses_at: Iterable[float]
) -> float | None:
    """Return the longest time from the loss of a leader to the first write of the next one.

    Args:
        losses_at: When leaders were killed or frozen, on the server's monotonic clock.

    A loss that no reign follows counts for nothing, which is what the number of changes tells.
    """
    waits = []
    for lost_at in losses_at:
        successor = next((reign for reign in reigns if reign.at > lost_at), None)
        if successor is None:
            continue
        first = next(
            (w for w in writes if w.process == successor.process and w.at > successor.at), None
        )
        if first is not None:
            waits.append(first.at - lost_at)
    return max(waits, default=None)
