"""How many runs may wait for which target, so that a slow target does not slow the others (pure).

The rules are the steps of docs/design/isolation.md. This module decides; `bulkhead_shell.py`
has the clock, the timers and the waiting runs.
"""

from collections.abc import Hashable, Mapping
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

from reconciler.clock import LONG_AGO, Instant
from reconciler.workqueue.heap import LazyHeap
from reconciler.workqueue.items import Priority

K = TypeVar("K", bound=Hashable)

SLOW_AFTER_S = 1.0
"""A longer request is slow, even if it succeeds: a write takes some 10 ms, and a webhook that hangs
takes its own timeout, usually 10 s."""

BRISK_BELOW_S = 0.25
"""A target with a slower latest request may not use the share of workers that `RESERVE` keeps for
others. Faster requests free their workers so soon that a target may use them all: of 64 workers one
is free each 4 ms. A small API server answers 64 writes at one time in 0.12 s; with a limit of 0.1 s
each key of a large namespace was parked once, so that a refresh took 1.9 runs in place of one."""

RESERVE = 4
"""One worker in this many is not given to a single target that is not brisk: with requests of just
less than `SLOW_AFTER_S` it could otherwise hold them all permanently."""

SUSPECT_S = 60.0
"""How long a target without a response stays suspect after its last slow request; a prompt response
ends it at once."""

CALL_TIMEOUT_S = 5.0
"""A key that was called but has not started within this time no longer counts as called."""

DETACHED_PER_WORKER = 2
"""Runs that may wait for slow requests, per worker: two healthy targets can become slow at once
with all workers in each."""

MIN_CLEANUP = 64
"""Number of targets before the first clean-up."""


def max_runs(workers: int) -> int:
    """Return the greatest number of runs at one time: those of workers and detached ones."""
    return workers * (1 + DETACHED_PER_WORKER)


class RequestResult(Enum):
    """The result of a request, as evidence about its target."""

    ANSWERED = auto()
    """A success or a refusal: the server responds."""
    FAILED = auto()
    """No response, or one that reports a server error."""
    NO_RESULT = auto()
    """Nothing was sent, or the request was cancelled."""


class BulkheadRun:
    """A worker's runs, one key after another, with at most one request at a time.

    `is_detached`: it counts among the detached runs, and holds no worker.
    """

    __slots__ = ("began_at", "is_detached", "is_slow", "target")

    def __init__(self) -> None:
        self.target: str | None = None
        self.began_at: Instant = LONG_AGO
        self.is_slow = False
        self.is_detached = False


class QueuePosition(NamedTuple):
    """A key's position among those that wait for one target: the least is called first.

    `slack_ends_at` is the instant at which its slack ends. `turn` orders the rest: in order of
    arrival in a group, groups in turns. `arrival` orders those of one turn.
    """

    priority: Priority
    slack_ends_at: Instant
    turn: int
    arrival: int


class _Load(NamedTuple):
    """Number of suspect targets, and of those among them without a request in flight."""

    suspects: int
    idle: int


class _Target(Generic[K]):
    __slots__ = (
        "called",
        "in_flight",
        "is_brisk",
        "latest_turns",
        "limit",
        "max_in_flight",
        "parked",
        "suspect_until",
        "turn",
    )  # fmt: skip

    def __init__(self, most: int) -> None:
        self.max_in_flight = most
        self.in_flight = 0
        self.is_brisk = True
        self.suspect_until: Instant = LONG_AGO
        self.limit = 1
        self.parked: LazyHeap[QueuePosition, K] = LazyHeap()
        self.called: dict[K, Instant] = {}
        self.turn = 0
        self.latest_turns: dict[str, int] = {}

    def is_suspect(self, now_at: Instant) -> bool:
        return now_at < self.suspect_until


class Bulkhead(Generic[K]):
    """Workers, targets, and the keys that wait for a target.

    Every `begin` is followed by one `end`, every `enter` that returned True by one `leave`.

    Args:
        workers: Most runs at one time, not counting those that wait for a slow request.
        max_in_flight: Most requests at one time for a target that is not suspect, if fewer than the
            workers.
    """

    def __init__(self, *, workers: int, max_in_flight: Mapping[str, int] | None = None) -> None:
        self._workers = workers
        self._max_not_brisk = max(1, workers - max(1, workers // RESERVE))
        self._max_in_flight = max_in_flight or {}
        self._max_detached = DETACHED_PER_WORKER * workers
        self._targets: dict[str, _Target[K]] = {}
        self._waiting: dict[str, None] = {}
        self._positions: dict[K, tuple[str, QueuePosition]] = {}
        self._parked_at: dict[K, str] = {}
        self._holding_workers: dict[BulkheadRun, None] = {}
        # All that are suspect, and others: a look at each target would cost a run 0.1 us a target.
        self._suspected: dict[str, _Target[K]] = {}
        self._count = 0
        self._cleanup_at = MIN_CLEANUP
        self.busy = 0
        """Number of runs that hold a worker; read only."""
        self.detached = 0
        """Number of runs that wait for a slow request or entered a suspect target; read only."""

    # Workers.

    def begin(self) -> BulkheadRun | None:
        """Take a worker for a run; None if all are taken."""
        if self.is_busy:
            return None
        self.busy += 1
        return BulkheadRun()

    @property
    def is_busy(self) -> bool:
        """True while no worker is free."""
        return self.busy >= self._workers

    def end(self, run: BulkheadRun) -> None:
        """End a run that has left its target."""
        if not run.is_detached:
            self.busy -= 1
            return
        self.detached -= 1
        for waiting in tuple(self._holding_workers)[:1]:
            del self._holding_workers[waiting]
            self._detach(waiting)

    def _detach(self, run: BulkheadRun) -> bool:
        """Free the run's worker; return False if it has none, or too many are detached already."""
        if run.is_detached or self.detached >= self._max_detached:
            return False
        run.is_detached = True
        self.detached += 1
        self.busy -= 1
        return True

    # Requests.

    def has_room(self, target: str, run: BulkheadRun, now_at: Instant) -> bool:
        """Return whether `enter` would admit this run."""
        found = self._targets.get(target)
        return found is None or self._room(found, self._load(found, now_at), run.is_detached) > 0

    def enter(self, target: str, run: BulkheadRun, now_at: Instant) -> bool:
        """Start a request of a run; return False if the target is full: park the key then.

        A run that enters a suspect target holds no worker from then on.
        """
        found = self._target(target, now_at)
        load = self._load(found, now_at)
        if self._room(found, load, run.is_detached) <= 0:
            return False
        if load is not None:
            self._detach(run)
        found.in_flight += 1
        run.target, run.began_at, run.is_slow = target, now_at, False
        return True

    def overdue(self, run: BulkheadRun, now_at: Instant) -> bool:
        """Record that a request has taken `SLOW_AFTER_S`: its target is suspect from now on.

        Returns: Whether a worker became free.
        """
        if run.target is None or run.is_slow:
            return False
        run.is_slow = True
        found = self._suspected[run.target] = self._targets[run.target]
        self._suspect(found, now_at)
        is_free = self._detach(run)
        if not run.is_detached:  # too many are detached: it is the next one
            self._holding_workers[run] = None
        return is_free

    def leave(self, run: BulkheadRun, result: RequestResult, now_at: Instant) -> None:
        """End a run's request; its duration and its result decide whether its target is suspect."""
        assert run.target is not None, "no request is in flight"  # noqa: S101 - the caller's order
        found = self._targets[run.target]
        is_slow = run.is_slow or now_at - run.began_at >= SLOW_AFTER_S
        if is_slow and result is not RequestResult.NO_RESULT:
            self._suspected[run.target] = found
            self._suspect(found, now_at)
            is_answered = result is RequestResult.ANSWERED
            found.limit = min(found.limit + 1, self._workers) if is_answered else 1
        elif result is RequestResult.ANSWERED:
            found.suspect_until = LONG_AGO
            self._suspected.pop(run.target, None)
        if result is not RequestResult.NO_RESULT:
            found.is_brisk = now_at - run.began_at <= BRISK_BELOW_S
        found.in_flight -= 1
        run.target = None
        self._holding_workers.pop(run, None)

    @staticmethod
    def _suspect(target: _Target[K], now_at: Instant) -> None:
        if not target.is_suspect(now_at):
            target.limit = 1
        target.suspect_until = now_at + SUSPECT_S

    def _load(self, target: _Target[K], now_at: Instant) -> _Load | None:
        """Return the load of the suspect targets; None if this target is not suspect."""
        return self._suspects(now_at) if target.is_suspect(now_at) else None

    def _suspects(self, now_at: Instant) -> _Load:
        suspects = [each for each in self._suspected.values() if each.is_suspect(now_at)]
        return _Load(len(suspects), sum(not each.in_flight for each in suspects))

    def _room(self, target: _Target[K], load: _Load | None, is_detached: bool) -> int:
        """Return how many more requests may start there."""
        if load is None:
            most = (
                target.max_in_flight
                if target.is_brisk
                else min(target.max_in_flight, self._max_not_brisk)
            )
            return most - target.in_flight
        share = max(1, self._workers // load.suspects)
        room = min(target.limit, share, target.max_in_flight) - target.in_flight
        if is_detached:
            return room
        # The first request of each other suspect target has precedence over a second one here.
        reserved = load.idle if target.in_flight else 0
        return min(room, self._max_detached - self.detached - reserved)

    def _target(self, name: str, now_at: Instant) -> _Target[K]:
        found = self._targets.get(name)
        if found is None:
            if len(self._targets) >= self._cleanup_at:
                self._clean_up(now_at)
            most = min(self._max_in_flight.get(name, self._workers), self._workers)
            found = self._targets[name] = _Target(most)
        return found

    def _clean_up(self, now_at: Instant) -> None:
        """Remove targets without any state; each new target pays for its share."""
        for name, target in tuple(self._targets.items()):
            if not (target.in_flight or target.is_suspect(now_at) or name in self._waiting):
                del self._targets[name]
                self._suspected.pop(name, None)
        self._cleanup_at = 2 * len(self._targets) + MIN_CLEANUP

    # Keys that wait for a target.

    def park(
        self,
        target: str,
        key: K,
        *,
        group: str,
        priority: Priority,
        slack_ends_at: Instant,
        now_at: Instant,
    ) -> None:
        """Make a key wait for room; a key that waited before keeps its turn among equals.

        Args:
            group: The key's tenant: keys of one group do not all go before another group's.
            slack_ends_at: When its slack ends, on the clock of `now_at`.
        """
        self.unpark(key)
        found = self._target(target, now_at)
        previous = self._positions.get(key)
        if previous is not None and previous[0] == target:
            turn, since = previous[1].turn, previous[1].arrival
        else:
            self._count += 1
            turn, since = self._next_turn(found, group), self._count
        position = QueuePosition(priority, slack_ends_at, turn, since)
        self._positions[key] = target, position
        found.parked.push(key, rank=position)
        self._parked_at[key] = target
        self._waiting[target] = None

    @staticmethod
    def _next_turn(target: _Target[K], group: str) -> int:
        """Return a turn after those that were called and after its group's others.

        Source: start-time fair queueing (Goyal, Vin, Cheng 1996), each key of one size.
        """
        if not len(target.parked):
            target.latest_turns.clear()
        turn = max(target.turn, target.latest_turns.get(group, 0) + 1)
        target.latest_turns[group] = turn
        return turn

    def unpark(self, key: K) -> None:
        """Record that a key runs: it neither waits nor is called, but keeps its turn."""
        target = self._parked_at.pop(key, None)
        if target is not None:
            self._targets[target].parked.discard(key)
            self._targets[target].called.pop(key, None)

    def forget(self, key: K) -> None:
        """Remove a key whose run did not end at a full target."""
        self.unpark(key)
        self._positions.pop(key, None)

    def calls(self, now_at: Instant) -> list[tuple[K, QueuePosition]]:
        """Return the keys for which there is room now, each target's most urgent first.

        Called after each run: each returned key is to run soon, and is returned once.
        """
        called: list[tuple[K, QueuePosition]] = []
        if not self._waiting:
            return called
        suspects = self._suspects(now_at)
        for name in tuple(self._waiting):
            target = self._targets[name]
            if target.called:
                self._expire_calls(target, now_at)
            load = suspects if target.is_suspect(now_at) else None
            room = self._room(target, load, is_detached=False) - len(target.called)
            if room > 0 and len(target.parked):  # a target without room goes first next time
                self._waiting[name] = self._waiting.pop(name)
            while room > 0 and len(target.parked):
                _, key = target.parked.pop()
                target.called[key] = now_at
                _, position = self._positions[key]
                target.turn = max(target.turn, position.turn)
                called.append((key, position))
                room -= 1
            if not len(target.parked) and not target.called:
                del self._waiting[name]
        return called

    def _expire_calls(self, target: _Target[K], now_at: Instant) -> None:
        for key in [key for key, at in target.called.items() if now_at - at >= CALL_TIMEOUT_S]:
            self.forget(key)

    # For display and tests.

    def is_suspect(self, target: str, now_at: Instant) -> bool:
        found = self._targets.get(target)
        return found is not None and found.is_suspect(now_at)

    def suspects(self, now_at: Instant) -> tuple[str, ...]:
        """Return the suspect targets, those with the most waiting keys first."""
        found = [name for name, target in self._targets.items() if target.is_suspect(now_at)]
        return tuple(sorted(found, key=lambda name: (-self.parked(name), name)))

    @property
    def parked_total(self) -> int:
        """Number of keys that wait for room in any target."""
        return sum(len(target.parked) for target in self._targets.values())

    @property
    def waiting(self) -> int:
        """Number of keys that wait for room, or were called and have not run yet. Cost: O(1)."""
        return len(self._parked_at)

    def in_flight(self, target: str) -> int:
        found = self._targets.get(target)
        return 0 if found is None else found.in_flight

    def parked(self, target: str) -> int:
        found = self._targets.get(target)
        return 0 if found is None else len(found.parked)

    def __len__(self) -> int:
        """Return the number of known targets."""
        return len(self._targets)
