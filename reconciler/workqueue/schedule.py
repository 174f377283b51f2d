"""The scheduler: which key runs next, and when the next is due; one entry a key (pure).

An entry *waits* until its time, is then *ready* until a worker takes it, and *runs* until it is
done. Requests that arrive while it runs are merged and cause exactly one more run.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from enum import Enum, auto
from functools import lru_cache
from typing import Generic, TypeVar

from reconciler.clock import LONG_AGO, NEVER, Instant
from reconciler.workqueue.heap import LazyHeap
from reconciler.workqueue.items import (
    EntryInfo,
    PendingRequest,
    Priority,
    ScheduleRequest,
    ScheduleStats,
    WorkItem,
)

K = TypeVar("K", bound=Hashable)

STARVATION_INTERVAL = 8
"""One pick in this many goes to the longest ready entry. An eighth of the throughput lets a resync
end under any load, and delays an urgent key by at most one run in eight."""


MAX_PROMOTED = 1000
"""Most entries that become ready in one call: a few milliseconds. A hundred thousand that are due
at one instant would block the event loop for half a second."""

PROMOTION_PAUSE_S = 0.01
"""Time after `MAX_PROMOTED` entries until more become ready, the earliest due first: the loop has
two thirds of its time for the work that is ready. A hundred thousand take 1.5 s."""


class _Stage(Enum):
    WAITING = auto()
    READY = auto()
    RUNNING = auto()


_STAGES = {stage: stage.name.lower() for stage in _Stage}


class _Entry(Generic[K]):
    """One key's state: `request` is the present request, `rerun` the one after the present run.

    `wakes` is how often endpoints had recovered when its last run began: a number that all entries
    share, as each object more is 3 MB for 100,000 keys.
    """

    __slots__ = ("failures", "key", "ready_at", "request", "rerun", "stage", "wakes")

    def __init__(self, key: K, request: PendingRequest) -> None:
        self.key = key
        self.request = request
        self.rerun: PendingRequest | None = None
        self.stage = _Stage.WAITING
        self.ready_at: Instant = LONG_AGO
        self.wakes = 0
        self.failures = 0


class Scheduler(Generic[K]):
    """Deadlines, retries, resyncs and events of all keys, merged and ordered.

    `now_at` is the monotonic clock's reading and must not decrease from call to call.

    Order: by priority, then by least slack; an entry without slack counts as `EXPIRING`. Every
        `STARVATION_INTERVAL`-th pick goes to the longest ready entry instead, so that no priority
        starves: an entry is served after at most `STARVATION_INTERVAL` x (number ready before it +
        1) picks.
    Cost: O(log n) amortised a call; up to `MAX_PROMOTED` times that if many entries become due at
        once, or are blocked on the endpoint that recovers. About 200 dict insertions for add + pop
        + done of one key among 100,000 that wait; about 60 for each entry that is blocked on an
        endpoint.
    """

    def __init__(self) -> None:
        self._entries: dict[K, _Entry[K]] = {}
        self._waiting: LazyHeap[Instant, _Entry[K]] = LazyHeap()
        self._ready: dict[Priority, LazyHeap[Instant, _Entry[K]]] = {
            priority: LazyHeap() for priority in Priority
        }
        self._oldest: OrderedDict[_Entry[K], None] = OrderedDict()
        self._blocked: dict[str, dict[_Entry[K], None]] = {}
        self._wakes = 0
        self._woken: dict[str, int] = {}
        self._waking: deque[tuple[str, Iterator[_Entry[K]]]] = deque()
        self._promote_at: Instant = LONG_AGO
        self._waiting_in = dict.fromkeys(Priority, 0)
        self._since_starvation_pick = 0
        self._failing = 0
        self.running = 0
        """Number of keys that workers run now; read only."""

    def __len__(self) -> int:
        """Return the number of known keys: waiting, ready and running."""
        return len(self._entries)

    @property
    def slots(self) -> int:
        """Number of slots of all heaps together, stale ones included."""
        return sum(heap.slots for heap in (self._waiting, *self._ready.values()))

    def add(self, key: K, request: ScheduleRequest, *, now_at: Instant) -> None:
        """Request a run of `key` no later than `request.at`; merges with earlier requests.

        The merged request has the earlier time, the more urgent priority, the smaller slack and the
        reasons of both; an entry that is blocked on an endpoint stays so. A running key becomes
        dirty. After a failure a key runs no earlier than its `NotBefore` allows for this trigger.

        Raises:
            ValueError: A time is not a number; nothing was changed.
        """
        pending = _pending(request, now_at)
        self._promote(now_at)
        entry = self._entries.get(key)
        if entry is None:
            self._enter(self._entries.setdefault(key, _Entry(key, pending)), pending, now_at)
        elif entry.stage is not _Stage.RUNNING:
            self._change(entry, entry.request.merged(pending), now_at)
        elif entry.rerun is None:
            entry.rerun = pending
        else:
            entry.rerun = entry.rerun.merged(pending)

    def pop(self, now_at: Instant) -> WorkItem[K] | None:
        """Return the next key to work on, or None if nothing is due; it runs until `done`."""
        self._promote(now_at)
        if not self._oldest:
            return None
        self._since_starvation_pick += 1
        if self._since_starvation_pick < STARVATION_INTERVAL:
            return self._start(self._most_urgent(now_at), now_at)
        self._since_starvation_pick = 0
        return self._start(next(iter(self._oldest)), now_at)

    def done(self, key: K, *, next: ScheduleRequest | None, now_at: Instant) -> None:
        """End a run; `next` replaces all earlier deadlines, None removes the key and its failures.

        A dirty key runs once more, no later than the request that made it dirty and
        `next.not_before` allow. An endpoint that recovered during the run counts as recovered:
        otherwise this key would miss its recovery.

        Raises:
            KeyError: The key is not running.
            ValueError: A time of `next` is not a number; the key still runs.
        """
        entry = self._running_entry(key)
        request = None if next is None else self._pending_after(next, entry, now_at)
        if entry.rerun is not None:
            request = entry.rerun if request is None else entry.rerun.merged(request)
        self._promote(now_at)
        self._end(entry)
        if request is None:
            self._forget(entry)
        else:
            self._enter(entry, request, now_at)

    def put_back(self, key: K) -> None:
        """Undo a `pop` before its work was started: the key is ready, as the oldest one.

        Raises:
            KeyError: The key is not running.
        """
        entry = self._running_entry(key)
        request = entry.request if entry.rerun is None else entry.request.merged(entry.rerun)
        # The undone pick may have been the one for the longest ready, and this key the oldest.
        self._since_starvation_pick = STARVATION_INTERVAL - 1
        self._end(entry)
        self._make_ready(entry, request, entry.ready_at)
        self._oldest.move_to_end(entry, last=False)

    def record_failure(self, key: K) -> int:
        """Count a failure; return the number of consecutive failures.

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
        """Remove a key, unless it is running; return whether it is unknown now."""
        entry = self._entries.get(key)
        if entry is None:
            return True
        if entry.stage is _Stage.RUNNING:
            return False
        self._leave(entry)
        self._forget(entry)
        return True

    def wake_blocked(
        self, endpoint: str, *, now_at: Instant, only: Callable[[K], bool] | None = None
    ) -> int:
        """Make the entries that are blocked on an endpoint due now; return their number.

        Args:
            only: Selects the keys to wake; all by default. Running keys are always woken.
        """
        self._promote(now_at)
        self._wakes += 1
        self._woken[endpoint] = self._wakes
        blocked = self._blocked.get(endpoint, ())
        woken = tuple(entry for entry in blocked if only is None or only(entry.key))
        self._waking.append((endpoint, iter(woken)))
        self._promote(now_at)
        return len(woken)

    def retry_now(self, key: K, *, now_at: Instant) -> None:
        """Make a key due now that waits after a failure; no other is changed."""
        self._promote(now_at)
        entry = self._entries.get(key)
        if entry is None or entry.stage is not _Stage.WAITING or entry.request.not_before is None:
            return
        self._change(entry, _unblocked(entry.request, now_at), now_at)

    def is_running(self, key: K) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.stage is _Stage.RUNNING

    def entry_info(self, key: K) -> EntryInfo | None:
        """Return a key's entry, or None for an unknown key; changes nothing."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        request = entry.request
        return EntryInfo(
            _STAGES[entry.stage],
            request.at,
            request.priority,
            request.reasons,
            request.blocked_on,
            entry.failures,
        )

    def next_at(self) -> Instant | None:
        """Return when the next waiting entry becomes ready, or None if none waits."""
        if self._waking:
            return self._promote_at
        head = self._waiting.peek()
        return None if head is None else max(head[0], self._promote_at)

    def stats(self, now_at: Instant) -> ScheduleStats:
        """Return the figures; entries that are due by `now_at` count as ready."""
        self._promote(now_at)
        oldest = next(iter(self._oldest), None)
        ends = [head[0] for heap in self._ready.values() if (head := heap.peek()) is not None]
        return ScheduleStats(
            ready={priority: len(heap) for priority, heap in self._ready.items()},
            waiting=dict(self._waiting_in),
            blocked={name: len(entries) for name, entries in self._blocked.items()},
            running=self.running,
            failing=self._failing,
            oldest_ready_s=0.0 if oldest is None else now_at - oldest.ready_at,
            longest_overdue_s=max(0.0, now_at - min(ends, default=NEVER)),
        )

    def __repr__(self) -> str:
        ready, waiting = len(self._oldest), len(self._waiting)
        return f"<Scheduler ready {ready}, waiting {waiting}, running {self.running}>"

    def _pending_after(
        self, next: ScheduleRequest, entry: _Entry[K], now_at: Instant
    ) -> PendingRequest:
        pending = _pending(next, now_at)
        is_woken = self._woken.get(next.blocked_on, 0) > entry.wakes
        return _unblocked(pending, now_at) if next.blocked_on and is_woken else pending

    def _forget(self, entry: _Entry[K]) -> None:
        del self._entries[entry.key]
        self._failing -= entry.failures > 0

    def _promote(self, now_at: Instant) -> None:
        """Make due entries ready, each since its own time, `MAX_PROMOTED` at the most.

        Done before an entry becomes ready for another cause, so that `_oldest` stays in order,
        unless more than that are due.
        """
        if now_at < self._promote_at:
            return
        left = MAX_PROMOTED
        while left and (head := self._waiting.peek()) is not None and head[0] <= now_at:
            due_at, entry = self._waiting.pop()
            self._unwait(entry)
            self._make_ready(entry, entry.request, due_at)
            left -= 1
        while left and self._waking:
            left -= 1
            self._wake_next(now_at)
        if not left:
            self._promote_at = now_at + PROMOTION_PAUSE_S

    def _wake_next(self, now_at: Instant) -> None:
        """Make the next entry due that was blocked when its endpoint recovered.

        Not if it has run since, and is blocked again.
        """
        endpoint, entries = self._waking[0]
        entry = next(entries, None)
        if entry is None:
            self._waking.popleft()
        elif entry in self._blocked.get(endpoint, ()) and entry.wakes < self._woken[endpoint]:
            self._change(entry, _unblocked(entry.request, now_at), now_at)

    def _most_urgent(self, now_at: Instant) -> _Entry[K]:
        # Each priority's head is its first to lose its slack, so the four heads are enough.
        heads = [head[1] for heap in self._ready.values() if (head := heap.peek()) is not None]
        return min(
            heads,
            key=lambda entry: (entry.request.effective_priority(now_at), entry.request.deadline_at),
        )

    def _start(self, entry: _Entry[K], now_at: Instant) -> WorkItem[K]:
        self._leave(entry)
        self.running += 1
        entry.stage = _Stage.RUNNING
        entry.wakes = self._wakes
        request = entry.request
        return WorkItem(
            key=entry.key,
            reasons=request.reasons,
            priority=request.effective_priority(now_at),
            due_at=request.at,
            ready_at=entry.ready_at,
            attempt=entry.failures + 1,
            first_due_at=request.first_due_at,
        )

    def _running_entry(self, key: K) -> _Entry[K]:
        entry = self._entries.get(key)
        if entry is None or entry.stage is not _Stage.RUNNING:
            raise KeyError(key)
        return entry

    def _end(self, entry: _Entry[K]) -> None:
        self.running -= 1
        entry.rerun = None

    def _change(self, entry: _Entry[K], request: PendingRequest, now_at: Instant) -> None:
        """Replace the request of an entry that is not running; a ready one keeps its age."""
        if request is entry.request:
            return
        if entry.stage is _Stage.WAITING:
            self._leave(entry)
            self._enter(entry, request, now_at)
            return
        self._ready[entry.request.priority].discard(entry)
        self._ready[request.priority].push(entry, rank=request.deadline_at)
        entry.request = request

    def _enter(self, entry: _Entry[K], request: PendingRequest, now_at: Instant) -> None:
        if request.at <= now_at:
            self._make_ready(entry, request, now_at)
            return
        entry.request, entry.stage, entry.ready_at = request, _Stage.WAITING, LONG_AGO
        self._waiting.push(entry, rank=request.at)
        self._waiting_in[request.priority] += 1
        if request.blocked_on:
            self._blocked.setdefault(request.blocked_on, {})[entry] = None

    def _make_ready(self, entry: _Entry[K], request: PendingRequest, ready_at: Instant) -> None:
        entry.request, entry.stage, entry.ready_at = request, _Stage.READY, ready_at
        self._ready[request.priority].push(entry, rank=request.deadline_at)
        self._oldest[entry] = None

    def _leave(self, entry: _Entry[K]) -> None:
        if entry.stage is _Stage.READY:
            self._ready[entry.request.priority].discard(entry)
            del self._oldest[entry]
            if not self._oldest:  # a table never shrinks: that of 100,000 entries has 7 MB
                self._oldest = OrderedDict()
        else:
            self._waiting.discard(entry)
            self._unwait(entry)

    def _unwait(self, entry: _Entry[K]) -> None:
        self._waiting_in[entry.request.priority] -= 1
        if entry.request.blocked_on:
            del self._blocked[entry.request.blocked_on][entry]


def _pending(request: ScheduleRequest, now_at: Instant) -> PendingRequest:
    at, first_due_at = request.at, request.first_due_at
    # One NaN in a heap breaks its order without an error.
    if math.isnan(at) or math.isnan(request.slack_s):
        raise ValueError(f"not a time: at={at}, slack_s={request.slack_s} ({request.reason})")
    return PendingRequest(
        at,
        request.priority,
        now_at + request.slack_s,
        _alone(request.reason),
        at if first_due_at is None else min(at, first_due_at),
        request.blocked_on,
        request.not_before,
        request.trigger,
        request.dependency,
    )


@lru_cache(maxsize=256)
def _alone(reason: str) -> tuple[str, ...]:
    """Return the reason as a tuple, one for all entries with it."""
    return (reason,)


def _unblocked(request: PendingRequest, now_at: Instant) -> PendingRequest:
    at = min(request.at, now_at)
    return PendingRequest(
        at, request.priority, request.deadline_at, request.reasons, min(request.first_due_at, at)
    )
