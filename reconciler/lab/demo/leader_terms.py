"""Who led when, and who wrote without leadership, from the API server's write log (pure)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.clock import Instant
from reconciler.lab.apiserver.write_log import HolderChange, ProcessWrite


@dataclass(frozen=True, slots=True)
class LeaderTerm:
    """From the acquisition of the Lease by one process to that by another; a release ends none.

    Args:
        at: Monotonic seconds of the server's clock.
    """

    process: str
    version: int
    at: Instant


def leader_terms(turns: Iterable[HolderChange]) -> list[LeaderTerm]:
    """Return the terms in order; a holder that acquires the Lease again begins no new term."""
    found: list[LeaderTerm] = []
    for turn in turns:
        is_same = bool(found) and found[-1].process == turn.holder
        if turn.holder and not is_same:
            found.append(LeaderTerm(turn.holder, turn.version, turn.at))
    return found


def writes_without_leadership(
    terms: Sequence[LeaderTerm], writes: Iterable[ProcessWrite]
) -> list[ProcessWrite]:
    """Return the writes committed in the term of another process, or before the first term."""
    found, index = [], -1
    for write in writes:
        while index + 1 < len(terms) and terms[index + 1].version < write.version:
            index += 1
        if index < 0 or terms[index].process != write.process:
            found.append(write)
    return found


def failover_s(
    terms: Sequence[LeaderTerm], writes: Sequence[ProcessWrite], losses_at: Iterable[Instant]
) -> float | None:
    """Return the longest time from the loss of a leader to the first write of the next one.

    Args:
        losses_at: When leaders were killed or frozen, on the server's monotonic clock.

    A loss that no term follows is left out; `leader_changes` of the report shows it.
    """
    waits = []
    for lost_at in losses_at:
        successor = next((term for term in terms if term.at > lost_at), None)
        if successor is None:
            continue
        first = next(
            (w for w in writes if w.process == successor.process and w.at > successor.at), None
        )
        if first is not None:
            waits.append(first.at - lost_at)
    return max(waits, default=None)
