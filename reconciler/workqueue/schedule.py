"""The schedule: which key runs next, and when one is due; one entry a key (pure).

An entry *waits* until its time, is then *ready* until a worker takes it, and *runs* until it is
done. What is asked for while it runs is collected, and is worth exactly one more run.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum, auto
from typing import Generic, TypeVar

from reconciler.workqueue.heap import LazyHeap
from reconciler.workqueue.items import (
    EntryInfo,
    Priority,
    Requeue,
    ScheduleRequest,
    Trigger,
    WorkItem,
)
from reconciler.workqueue.stats import ScheduleStats

K = TypeVar("K", bound=Hashable)

STARVATION_INTERVAL = 8
"""One pick of so many goes to the longest ready: an eighth of the throughput is enough for a resync
to end under any load, and makes an urgent key wait for one run more in eight at most."""


class _Stage(Enum):
    WAITING = auto()
    READY = auto()
    RUNNING = auto()


_STAGES = {stage: stage.name.lower() for stage in _Stage}


class _Entry(Generic[K]):
    """One key's state; `wish` is what it waits, is ready or runs for, `again` makes it dirty."""

    __slots__ = ("again", "failures", "key", "ready_at", "stage", "take", "wish")

    def __init__(self, key: K, wish: ScheduleRequest) -> None:
        self.key = key
        self.wish = wish
        self.again: ScheduleRequest | None = None
        self.stage = _Stage.WAITING
        self.ready_at = 0.0
        self.take = 0
        self.failures = 0


class Scheduler(Generic[K]):
    """Deadlines, retries, resyncs and events of all keys, merged and put in order.

    `now_at` is the monotonic clock's reading and must not go back from call to call.

    Order: by band, then by least slack; an entry whose slack has run out counts as `EXPIRING`.
        Every `STARVATION_INTERVAL`-th pick goes to the longest ready instead, so that no band
        starves: an entry is served after at most `STARVATION_INTERVAL` x (number ready before it +
        1) picks.
    Cost: O(log n) amortised a call, but O(g log n) where g entries come due at once or wait at the
        endpoint that opens. About 200 dict insertions for add + take + done of one key among
        100,000 that wait; about 60 for each entry behind a endpoint.
    """

    def __init__(self) -> None:
        self._entries: dict[K, _Entry[K]] = {}
        self._waiting: LazyHeap[float, _Entry[K]] = LazyHeap()
        self._ready: dict[Priority, LazyHeap[float, _Entry[K]]] = {
            band: LazyHeap() for band in Priority
        }
        self._oldest: OrderedDict[_Entry[K], None] = OrderedDict()
        self._blocked: dict[str, dict[_Entry[K], None]] = {}
        self._opened: dict[str, int] = {}
        self._waiting_in = dict.fromkeys(Priority, 0)
        self._since_aged = 0
        self._adds = self._dedups = self._takes = self._aged = 0
        self._failing = 0
        self.running = 0
        """Keys in the hands of workers; read only."""

    def __len__(self) -> int:
        """Return the number of keys known: waiting, ready and running."""
        return len(self._entries)

    @property
    def slots(self) -> int:
        """Slots held by all heaps together, stale ones included."""
        return sum(heap.slots for heap in (self._waiting, *self._ready.values()))

    def add(
        self,
        key: K,
        *,
        reason: str,
        at: float,
        band: Priority,
        slack_s: float,
        now_at: float,
        news: Trigger = Trigger.NONE,
        about: str = "",
    ) -> None:
        """Ask for a run of `key` no later than `at`; merges with what is asked for already.

        Of two wishes the earlier time, the more urgent band and the smaller slack count, and the
        reasons of both; the endpoint of an entry that waits at one stays. A key that runs is dirty.
        One that is held after a failure runs no sooner than its `NotBefore` allows for this news.

        Args:
            at: Monotonic instant; one that has passed is due now, and late since then.
            slack_s: Seconds from now until it is too late; may be negative or infinite.
            about: What the run is to do; compared with what failed.

        Raises:
            ValueError: A time is not a number; nothing was changed.
        """
        wish = _wish(at, band, slack_s, reason, now_at)._replace(news=news, about=about)
        self._promote(now_at)
        self._adds += 1
        entry = self._entries.get(key)
        if entry is None:
            self._enter(self._entries.setdefault(key, _Entry(key, wish)), wish, now_at)
        elif entry.stage is not _Stage.RUNNING:
            self._dedups += 1
            self._change(entry, entry.wish.merged(wish), now_at)
        elif entry.again is None:
            entry.again = wish
        else:
            self._dedups += 1
            entry.again = entry.again.merged(wish)

    def pop(self, now_at: float) -> WorkItem[K] | None:
        """Return the next key to work on, or None where nothing is due; it runs until `done`."""
        self._promote(now_at)
        if not self._oldest:
            return None
        self._takes += 1
        self._since_aged += 1
        if self._since_aged < STARVATION_INTERVAL:
            return self._start(self._most_urgent(now_at), now_at)
        self._since_aged = 0
        self._aged += 1
        return self._start(next(iter(self._oldest)), now_at)

    def done(self, key: K, *, next: Requeue | None, now_at: float) -> None:
        """End a run; `next` replaces all earlier deadlines, None forgets the key and its failures.

        A dirty key runs once more, no later than what made it dirty asked for and `next.hold`
        allows. A endpoint that opened during the run counts as open: this key would otherwise sleep
        through it.

        Raises:
            KeyError: The key is not running.
            ValueError: A time of `next` is not a number; the key still runs.
        """
        entry = self._running_entry(key)
        wish = None if next is None else self._wish_for(next, entry, now_at)
        if entry.again is not None:
            wish = entry.again if wish is None else entry.again.merged(wish)
        self._promote(now_at)
        self._end(entry)
        if wish is None:
            self._forget(entry)
        else:
            self._enter(entry, wish, now_at)

    def put_back(self, key: K) -> None:
        """Undo a `take` whose work was not begun: the key is ready, before all others in age.

        Raises:
            KeyError: The key is not running.
        """
        entry = self._running_entry(key)
        wish = entry.wish if entry.again is None else entry.wish.merged(entry.again)
        # The pick that is undone may have been the aged one, and the key the longest ready.
        self._since_aged = STARVATION_INTERVAL - 1
        self._end(entry)
        self._make_ready(entry, wish, entry.ready_at)
        self._oldest.move_to_end(entry, last=False)

    def record_failure(self, key: K) -> int:
        """Count a failure; return how many there were in a row.

        Raises:
            KeyError: The key is unknown.
        """
        entry = self._entries[key]
        self._failing += not entry.failures
        entry.failures += 1
        return entry.failures

    def forget(self, key: K) -> None:
        """Set a key's count of failures to zero."""
        if (entry := self._entries.get(key)) is not None and entry.failures:
            entry.failures = 0
            self._failing -= 1

    def remove(self, key: K) -> bool:
        """Forget a key, unless it is running; tell whether it is unknown now."""
        entry = self._entries.get(key)
        if entry is None:
            return True
        if entry.stage is _Stage.RUNNING:
            return False
        self._leave(entry)
        self._forget(entry)
        return True

    def wake_blocked(
        self, name: str, *, now_at: float, only: Callable[[K], bool] | None = None
    ) -> int:
        """Make the entries that wait at a endpoint due now; return how many there were.

        Args:
            only: Says of a key whether it is let through; all are by default. What runs is.
        """
        self._promote(now_at)
        self._opened[name] = self._takes
        blocked = self._blocked.get(name, ())
        behind = tuple(entry for entry in blocked if only is None or only(entry.key))
        for entry in behind:
            self._change(entry, _let_through(entry.wish, now_at), now_at)
        return len(behind)

    def look(self, key: K) -> EntryInfo | None:
        """Return what is held of a key, or None for an unknown one; changes nothing."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        wish = entry.wish
        return EntryInfo(
            _STAGES[entry.stage],
            wish.at,
            wish.priority,
            wish.reasons,
            wish.blocked_on,
            entry.failures,
        )

    def next_at(self) -> float | None:
        """Return when the next waiting entry is due, or None where none waits."""
        head = self._waiting.peek()
        return None if head is None else head[0]

    def stats(self, now_at: float) -> ScheduleStats:
        """Return the figures; what has come due by `now_at` counts as ready."""
        self._promote(now_at)
        oldest = next(iter(self._oldest), None)
        ends = [head[0] for heap in self._ready.values() if (head := heap.peek()) is not None]
        return ScheduleStats(
            ready={band: len(heap) for band, heap in self._ready.items()},
            waiting=dict(self._waiting_in),
            blocked={name: len(entries) for name, entries in self._blocked.items()},
            running=self.running,
            failing=self._failing,
            adds_total=self._adds,
            dedups_total=self._dedups,
            takes_total=self._takes,
            aged_total=self._aged,
            oldest_ready_s=0.0 if oldest is None else now_at - oldest.ready_at,
            longest_overdue_s=max(0.0, now_at - min(ends, default=math.inf)),
        )

    def __repr__(self) -> str:
        ready, waiting = len(self._oldest), len(self._waiting)
        return f"<Schedule ready {ready}, waiting {waiting}, running {self.running}>"

    def _wish_for(self, next: Requeue, entry: _Entry[K], now_at: float) -> ScheduleRequest:
        wish = _wish(next.at, next.priority, next.slack_s, next.reason, now_at, next.blocked_on)
        since_at = wish.at if next.since_at is None else min(wish.at, next.since_at)
        wish = wish._replace(hold=next.hold, since_at=since_at)
        opened_meanwhile = self._opened.get(next.blocked_on, 0) >= entry.take
        return _let_through(wish, now_at) if next.blocked_on and opened_meanwhile else wish

    def _forget(self, entry: _Entry[K]) -> None:
        del self._entries[entry.key]
        self._failing -= entry.failures > 0

    def _promote(self, now_at: float) -> None:
        """Make all ready whose time has come; each has been ready since its own time.

        Done before anything becomes ready for another cause, so that `_oldest` is in order.
        """
        while (head := self._waiting.peek()) is not None and head[0] <= now_at:
            due_at, entry = self._waiting.pop()
            self._unwait(entry)
            self._make_ready(entry, entry.wish, due_at)

    def _most_urgent(self, now_at: float) -> _Entry[K]:
        # The head of a band is the first in it to lose its slack, so four heads are all to look at.
        heads = [head[1] for heap in self._ready.values() if (head := heap.peek()) is not None]
        return min(
            heads, key=lambda entry: (entry.wish.effective_priority(now_at), entry.wish.deadline_at)
        )

    def _start(self, entry: _Entry[K], now_at: float) -> WorkItem[K]:
        self._leave(entry)
        self.running += 1
        entry.stage = _Stage.RUNNING
        entry.take = self._takes
        wish = entry.wish
        return WorkItem(
            key=entry.key,
            reasons=wish.reasons,
            priority=wish.effective_priority(now_at),
            due_at=wish.at,
            ready_at=entry.ready_at,
            attempt=entry.failures + 1,
            since_at=wish.since_at,
        )

    def _running_entry(self, key: K) -> _Entry[K]:
        entry = self._entries.get(key)
        if entry is None or entry.stage is not _Stage.RUNNING:
            raise KeyError(key)
        return entry

    def _end(self, entry: _Entry[K]) -> None:
        self.running -= 1
        entry.again = None

    def _change(self, entry: _Entry[K], wish: ScheduleRequest, now_at: float) -> None:
        """Give an entry that is not running another wish; what is ready stays so, and as old."""
        if wish is entry.wish:
            return
        if entry.stage is _Stage.WAITING:
            self._leave(entry)
            self._enter(entry, wish, now_at)
            return
        self._ready[entry.wish.priority].discard(entry)
        self._ready[wish.priority].push(entry, rank=wish.deadline_at)
        entry.wish = wish

    def _enter(self, entry: _Entry[K], wish: ScheduleRequest, now_at: float) -> None:
        if wish.at <= now_at:
            self._make_ready(entry, wish, now_at)
            return
        entry.wish, entry.stage = wish, _Stage.WAITING
        self._waiting.push(entry, rank=wish.at)
        self._waiting_in[wish.priority] += 1
        if wish.blocked_on:
            self._blocked.setdefault(wish.blocked_on, {})[entry] = None

    def _make_ready(self, entry: _Entry[K], wish: ScheduleRequest, ready_at: float) -> None:
        entry.wish, entry.stage, entry.ready_at = wish, _Stage.READY, ready_at
        self._ready[wish.priority].push(entry, rank=wish.deadline_at)
        self._oldest[entry] = None

    def _leave(self, entry: _Entry[K]) -> None:
        if entry.stage is _Stage.READY:
            self._ready[entry.wish.priority].discard(entry)
            del self._oldest[entry]
        else:
            self._waiting.discard(entry)
            self._unwait(entry)

    def _unwait(self, entry: _Entry[K]) -> None:
        self._waiting_in[entry.wish.priority] -= 1
        if entry.wish.blocked_on:
            del self._blocked[entry.wish.blocked_on][entry]


def _wish(
    at: float, band: Priority, slack_s: float, reason: str, now_at: float, endpoint: str = ""
) -> ScheduleRequest:
    # A heap that holds one NaN is silently out of order for ever.
    if math.isnan(at) or math.isnan(slack_s):
        raise ValueError(f"not a time: at={at}, slack_s={slack_s} ({reason})")
    return ScheduleRequest(at, band, now_at + slack_s, (reason,), at, endpoint)


def _let_through(wish: ScheduleRequest, now_at: float) -> ScheduleRequest:
    at = min(wish.at, now_at)
    return ScheduleRequest(
        at, wish.priority, wish.deadline_at, wish.reasons, min(wish.since_at, at)
    )
