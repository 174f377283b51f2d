"""The queue's figures, frozen, for metrics, the status page and tests (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.workqueue.items import Priority


@dataclass(frozen=True, slots=True, repr=False)
class ScheduleStats:
    """One reading of a schedule; every band and every endpoint ever named is present, zero or not.

    Args:
        ready: Entries that are due and wait for a worker, by the band they were asked for in.
        waiting: Entries whose time has not come, by band; those behind a endpoint are among them.
        blocked: Of the waiting, those that an opening endpoint would make due, by endpoint.
        running: Keys in the hands of workers.
        failing: Keys whose last run failed, in whatever stage.
        adds_total: Calls of `add`, of which `dedups_total` met a wish that was already there.
        takes_total: Picks handed out, of which `aged_total` went to the longest ready.
        oldest_ready_s: For how long the longest ready entry has waited for a worker; 0.0 if none.
        longest_overdue_s: For how long the most urgent ready entry has had no slack; 0.0 if none.
    """

    ready: Mapping[Priority, int]
    waiting: Mapping[Priority, int]
    blocked: Mapping[str, int]
    running: int
    failing: int
    adds_total: int
    dedups_total: int
    takes_total: int
    aged_total: int
    oldest_ready_s: float
    longest_overdue_s: float

    def __repr__(self) -> str:
        ready = _counted("ready", {band.name.lower(): n for band, n in self.ready.items()})
        blocked = _counted("blocked", self.blocked)
        waiting = sum(self.waiting.values())
        text = f"{ready}, waiting {waiting}, {blocked}, running {self.running}"
        if self.oldest_ready_s > 0:
            text += f", oldest {self.oldest_ready_s:.1f} s"
        if self.longest_overdue_s > 0:
            text += f", overdue {self.longest_overdue_s:.1f} s"
        return f"<{text}>"


@dataclass(frozen=True, slots=True, repr=False)
class QueueStats:
    """The schedule's figures, the workers that wait, and `open`, `paused` or `closed`."""

    schedule: ScheduleStats
    idle_workers: int
    state: str

    def __repr__(self) -> str:
        return f"<{self.state}: {repr(self.schedule)[1:-1]}, idle workers {self.idle_workers}>"


def _counted(what: str, parts: Mapping[str, int]) -> str:
    named = ", ".join(f"{name} {count}" for name, count in parts.items() if count)
    total = f"{what} {sum(parts.values())}"
    return f"{total} ({named})" if named else total
