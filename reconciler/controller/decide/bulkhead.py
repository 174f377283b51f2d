"""How many runs may wait in which place, so that a slow place costs the others nothing (pure).

The rules are the steps of docs/design/isolation.md. This module decides; `bulkhead_shell.py`
has the clock, the timers and the waiting runs.
"""

import math
from collections.abc import Hashable, Mapping
from enum import Enum, auto
from typing import Generic, NamedTuple, TypeVar

from reconciler.workqueue.heap import LazyHeap
from reconciler.workqueue.items import Priority

K = TypeVar("K", bound=Hashable)

SLOW_AFTER_S = 1.0
"""A request that takes longer than this is slow, whatever its answer: a write takes some 10 ms, and
a webhook that hangs takes its own limit, 10 s as a rule."""

FAST_BELOW_S = 0.1
"""A place whose latest request took longer has no more than `RESERVE` leaves of the workers: below
this their number bounds nobody, and a place that needs them all gets them all."""

RESERVE = 4
"""One of so many workers is kept from any one place that is not brisk: with requests of just less
than `SLOW_AFTER_S` it could hold them all for good."""

SUSPECT_S = 60.0
"""A place without any answer is suspect for so long after its last slow request; a prompt answer
ends it at once."""

CALL_S = 5.0
"""A key that was called and has not come within this time does not count as called any more."""

DETACHED = 2
"""Runs that may wait for slow requests, in multiples of the workers: two places that were healthy
become slow at once with all workers in each."""

TIDY = 64
"""Places held before the first look whether some of them can be forgotten."""


def runs_at_most(workers: int) -> int:
    """Return how many runs there are at most at one time: those of workers and detached ones."""
    return workers * (1 + DETACHED)


class RequestResult(Enum):
    """What a request's end says of its place."""

    ANSWERED = auto()
    """A success, or a refusal: somebody is there."""
    FAILED = auto()
    """No answer, or one that says that the server could not."""
    NOTHING = auto()
    """Nothing was sent, or the request was cancelled."""


class BulkheadRun:
    """One run of one key; at most one request of it is under way.

    `is_detached`: it counts among the detached runs, and holds no worker.
    """

    __slots__ = ("began_at", "is_detached", "is_slow", "place")

    def __init__(self) -> None:
        self.place: str | None = None
        self.began_at = 0.0
        self.is_slow = False
        self.is_detached = False


class QueuePosition(NamedTuple):
    """A key's place among those that wait for one place: the least is called first.

    `expires_at` is the instant at which its slack ends. `turn` orders the rest: first come, first
    served in a group, and group by group; `since` those of one turn.
    """

    priority: Priority
    ends_at: float
    turn: int
    since: int


class _Load(NamedTuple):
    """How many places are suspect, and in how many of them no request is under way."""

    suspects: int
    idle: int


class _Place(Generic[K]):
    __slots__ = (
        "called", "is_brisk", "latest_turns", "limit", "most", "parked", "suspect_until", "turn",
        "under_way",
    )  # fmt: skip

    def __init__(self, most: int) -> None:
        self.most = most
        self.under_way = 0
        self.is_brisk = True
        self.suspect_until = -math.inf
        self.limit = 1
        self.parked: LazyHeap[tuple[float, ...], K] = LazyHeap()
        self.called: dict[K, float] = {}
        self.turn = 0
        self.latest_turns: dict[str, int] = {}

    def is_suspect(self, now_at: float) -> bool:
        return now_at < self.suspect_until


class Bulkhead(Generic[K]):
    """Workers, places, and the keys that wait for a place.

    Every `begin` is followed by one `end`, every `enter` that returned True by one `leave`.

    Args:
        workers: Runs that may be under way, but for those that wait for a slow request.
        most: Requests that may be under way in a place that is not suspect, where that is fewer
            than the workers.
    """

    def __init__(self, *, workers: int, most: Mapping[str, int] | None = None) -> None:
        self._workers = workers
        self._reserved_most = max(1, workers - max(1, workers // RESERVE))
        self._most = most or {}
        self._detached_most = DETACHED * workers
        self._places: dict[str, _Place[K]] = {}
        self._waiting: dict[str, None] = {}
        self._positions: dict[K, tuple[str, QueuePosition]] = {}
        self._parked_at: dict[K, str] = {}
        self._holding: dict[BulkheadRun, None] = {}
        self._count = 0
        self._tidy_at = TIDY
        self.busy = 0
        """Runs that hold a worker; read only."""
        self.detached = 0
        """Runs that wait for a slow request, or were admitted to a suspect place; read only."""

    # Workers.

    def begin(self) -> BulkheadRun | None:
        """Take a worker for a run; None where all are taken."""
        if self.is_busy:
            return None
        self.busy += 1
        return BulkheadRun()

    @property
    def is_busy(self) -> bool:
        """True while no worker is free."""
        return self.busy >= self._workers

    def end(self, run: BulkheadRun) -> None:
        """End a run, which has left its place."""
        if not run.is_detached:
            self.busy -= 1
            return
        self.detached -= 1
        for waiting in tuple(self._holding)[:1]:
            del self._holding[waiting]
            self._detach(waiting)

    def _detach(self, run: BulkheadRun) -> bool:
        """Free the run's worker; False where it has none, or too many are detached already."""
        if run.is_detached or self.detached >= self._detached_most:
            return False
        run.is_detached = True
        self.detached += 1
        self.busy -= 1
        return True

    # Requests.

    def has_room(self, place: str, run: BulkheadRun, now_at: float) -> bool:
        """Tell whether `enter` would let this run in."""
        found = self._places.get(place)
        return found is None or self._room(found, self._load(found, now_at), run.is_detached) > 0

    def enter(self, place: str, run: BulkheadRun, now_at: float) -> bool:
        """Begin a request of a run; False where the place is full, and the key is to be parked.

        A run that is let into a suspect place holds no worker from then on.
        """
        found = self._place(place, now_at)
        load = self._load(found, now_at)
        if self._room(found, load, run.is_detached) <= 0:
            return False
        if load is not None:
            self._detach(run)
        found.under_way += 1
        run.place, run.began_at, run.is_slow = place, now_at, False
        return True

    def overdue(self, run: BulkheadRun, now_at: float) -> bool:
        """Note that a request has been under way for `SLOW_AFTER_S`: its place is suspect from now
        on.

        Returns: Whether a worker became free.
        """
        if run.place is None or run.is_slow:
            return False
        run.is_slow = True
        self._suspect(self._places[run.place], now_at)
        is_free = self._detach(run)
        if not run.is_detached:  # too many are: it is the next one
            self._holding[run] = None
        return is_free

    def leave(self, run: BulkheadRun, answer: RequestResult, now_at: float) -> None:
        """End a run's request; its duration and its answer say what its place is worth."""
        assert run.place is not None, "no request is under way"  # noqa: S101 - the caller's order
        found = self._places[run.place]
        is_slow = run.is_slow or now_at - run.began_at >= SLOW_AFTER_S
        if is_slow and answer is not RequestResult.NOTHING:
            self._suspect(found, now_at)
            answered = answer is RequestResult.ANSWERED
            found.limit = min(found.limit + 1, self._workers) if answered else 1
        elif answer is RequestResult.ANSWERED:
            found.suspect_until = -math.inf
        if answer is not RequestResult.NOTHING:
            found.is_brisk = now_at - run.began_at <= FAST_BELOW_S
        found.under_way -= 1
        run.place = None
        self._holding.pop(run, None)

    @staticmethod
    def _suspect(place: _Place[K], now_at: float) -> None:
        if not place.is_suspect(now_at):
            place.limit = 1
        place.suspect_until = now_at + SUSPECT_S

    def _load(self, place: _Place[K], now_at: float) -> _Load | None:
        """Return how many places are suspect; None where this one is not."""
        return self._suspects(now_at) if place.is_suspect(now_at) else None

    def _suspects(self, now_at: float) -> _Load:
        suspects = [each for each in self._places.values() if each.is_suspect(now_at)]
        return _Load(len(suspects), sum(not each.under_way for each in suspects))

    def _room(self, place: _Place[K], load: _Load | None, is_detached: bool) -> int:
        """Return how many more requests may begin there."""
        if load is None:
            most = place.most if place.is_brisk else min(place.most, self._reserved_most)
            return most - place.under_way
        share = max(1, self._workers // load.suspects)
        room = min(place.limit, share, place.most) - place.under_way
        if is_detached:
            return room
        # The first request of each other place goes before a second one here.
        reserved = load.idle if place.under_way else 0
        return min(room, self._detached_most - self.detached - reserved)

    def _place(self, name: str, now_at: float) -> _Place[K]:
        found = self._places.get(name)
        if found is None:
            if len(self._places) >= self._tidy_at:
                self._tidy(now_at)
            most = min(self._most.get(name, self._workers), self._workers)
            found = self._places[name] = _Place(most)
        return found

    def _tidy(self, now_at: float) -> None:
        """Forget places about which nothing is left to know; each new place pays for its share."""
        for name, place in tuple(self._places.items()):
            if not (place.under_way or place.is_suspect(now_at) or name in self._waiting):
                del self._places[name]
        self._tidy_at = 2 * len(self._places) + TIDY

    # Keys that wait for a place.

    def park(
        self, place: str, key: K, *, group: str, band: Priority, ends_at: float, now_at: float
    ) -> None:
        """Have a key wait for room; one that waited before keeps its turn among equals.

        Args:
            group: Whose key it is: those of one group do not stand before all of another's.
            ends_at: When its slack ends, on the clock of `now_at`.
        """
        self.take(key)
        found = self._place(place, now_at)
        former = self._positions.get(key)
        if former is not None and former[0] == place:
            turn, since = former[1].turn, former[1].since
        else:
            self._count += 1
            turn, since = self._next_turn(found, group), self._count
        position = QueuePosition(band, ends_at, turn, since)
        self._positions[key] = place, position
        found.parked.push(key, rank=position)
        self._parked_at[key] = place
        self._waiting[place] = None

    @staticmethod
    def _next_turn(place: _Place[K], group: str) -> int:
        """Return a turn right after those that were called, and after its group's others.

        Source: start-time fair queueing (Goyal, Vin, Cheng 1996), each key of one size.
        """
        if not len(place.parked):
            place.latest_turns.clear()
        turn = max(place.turn, place.latest_turns.get(group, 0) + 1)
        place.latest_turns[group] = turn
        return turn

    def take(self, key: K) -> None:
        """Note that a key runs: it neither waits nor is called, but keeps its turn."""
        place = self._parked_at.pop(key, None)
        if place is not None:
            self._places[place].parked.discard(key)
            self._places[place].called.pop(key, None)

    def forget(self, key: K) -> None:
        """Drop what is held of a key, whose run did not end in front of a full place."""
        self.take(key)
        self._positions.pop(key, None)

    def calls(self, now_at: float) -> list[tuple[K, QueuePosition]]:
        """Return the keys for which there is room now, each place's most urgent first.

        Asked after each run: each key called is to run soon, and comes once.
        """
        called: list[tuple[K, QueuePosition]] = []
        if not self._waiting:
            return called
        suspects = self._suspects(now_at)
        for name in tuple(self._waiting):
            place = self._places[name]
            self._drop_late(place, now_at)
            load = suspects if place.is_suspect(now_at) else None
            room = self._room(place, load, is_detached=False) - len(place.called)
            if room > 0 and len(place.parked):  # whoever could not be called goes first next time
                self._waiting[name] = self._waiting.pop(name)
            while room > 0 and len(place.parked):
                _, key = place.parked.pop()
                place.called[key] = now_at
                _, position = self._positions[key]
                place.turn = max(place.turn, position.turn)
                called.append((key, position))
                room -= 1
            if not len(place.parked) and not place.called:
                del self._waiting[name]
        return called

    def _drop_late(self, place: _Place[K], now_at: float) -> None:
        for key in [key for key, at in place.called.items() if now_at - at >= CALL_S]:
            self.forget(key)

    # For people and tests.

    def is_suspect(self, place: str, now_at: float) -> bool:
        found = self._places.get(place)
        return found is not None and found.is_suspect(now_at)

    def suspects(self, now_at: float) -> tuple[str, ...]:
        """Return the places that are slow now, those with the most keys waiting first."""
        found = [name for name, place in self._places.items() if place.is_suspect(now_at)]
        return tuple(sorted(found, key=lambda name: (-self.parked(name), name)))

    @property
    def parked_total(self) -> int:
        """Number of keys that wait for room in any place."""
        return sum(len(place.parked) for place in self._places.values())

    def under_way(self, place: str) -> int:
        found = self._places.get(place)
        return 0 if found is None else found.under_way

    def parked(self, place: str) -> int:
        found = self._places.get(place)
        return 0 if found is None else len(found.parked)

    def held(self) -> int:
        """Return the number of keys of which something is held."""
        return len(self._positions)

    def __len__(self) -> int:
        """Return the number of places held."""
        return len(self._places)
