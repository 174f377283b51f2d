"""The queue's figures, frozen, for metrics, the status page and tests (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.workqueue.items import Priority


@dataclass(frozen=True, slots=True, repr=False)
class ScheduleStats:
    """Figures of a scheduler; all priorities, and all endpoints named so far, are present.

    Args:
        ready: Entries that are due and wait for a worker, by requested priority.
        waiting: Entries that are not due yet, by priority; blocked ones are among them.
        blocked: Of the waiting, those that an endpoint's recovery would make due, by endpoint.
        running: Keys that workers run now.
        failing: Keys with a failed last run, in every stage.
        adds_total: Calls of `add`; `dedups_total` of them were merged into an earlier request.
        pops_total: Work handed out; `starvation_picks_total` of it to the longest ready entry.
        oldest_ready_s: How long the longest ready entry has waited for a worker; 0.0 if none.
        longest_overdue_s: How long the most urgent ready entry has had no slack; 0.0 if none.
    """

    ready: Mapping[Priority, int]
    waiting: Mapping[Priority, int]
    blocked: Mapping[str, int]
    running: int
    failing: int
    adds_total: int
    dedups_total: int
    pops_total: int
    starvation_picks_total: int
    oldest_ready_s: float
    longest_overdue_s: float

    def __repr__(self) -> str:
        ready = _counted("ready", {priority.name.lower(): n for priority, n in self.ready.items()})
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
    """The scheduler's figures, the idle workers, and the state: `open`, `paused` or `closed`."""

    schedule: ScheduleStats
    idle_workers: int
    state: str

    def __repr__(self) -> str:
        return f"<{self.state}: {repr(self.schedule)[1:-1]}, idle workers {self.idle_workers}>"


def _counted(name: str, parts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{part} {count}" for part, count in parts.items() if count)
    total = f"{name} {sum(parts.values())}"
    return f"{total} ({listed})" if listed else total
