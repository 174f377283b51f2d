"""What is slow in one target costs the others nothing, in any interleaving that hypothesis finds;
and that it would find the wrong ones.
"""

from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from reconciler.clock import LONG_AGO, NEVER, Instant
from reconciler.controller.decide.bulkhead import (
    CALL_TIMEOUT_S,
    SLOW_AFTER_S,
    SUSPECT_S,
    Bulkhead,
    BulkheadRun,
    QueuePosition,
    RequestResult,
    _Load,
    _Target,
)
from reconciler.workqueue.items import Priority
from tests.interleavings import check_overrides, play, search
from tests.unit.controller.bulkhead_model import Broken, World

pytestmark = pytest.mark.timeout(600)  # hundreds of interleavings, next to other tests

TARGETS = ("a", "b", "c")
ANSWERS = st.sampled_from(
    [RequestResult.ANSWERED, RequestResult.ANSWERED, RequestResult.FAILED, RequestResult.NO_RESULT]
)


class Interleaving(RuleBasedStateMachine):
    """One run: keys come, targets answer, hang and recover, time passes, in any order."""

    bulkhead_class: ClassVar[type[Bulkhead[int]]] = Bulkhead

    @initialize(workers=st.sampled_from([1, 2, 4]))
    def start(self, workers: int) -> None:
        self.world = World(self.bulkhead_class(workers=workers), workers)

    @invariant()
    def holds(self) -> None:
        self.world.check()
        self.world.check_memory()

    @rule(
        name=st.sampled_from(TARGETS),
        group=st.sampled_from(["g", "h"]),
        priority=st.sampled_from(Priority),
        slack_s=st.sampled_from([-10.0, 0.0, 5.0, 300.0, float("inf")]),
        count=st.integers(1, 6),
    )
    def arrive(self, name: str, group: str, priority: Priority, slack_s: float, count: int) -> None:
        for _ in range(count):
            self.world.arrive(name, group, priority, slack_s)

    @rule(name=st.sampled_from(TARGETS), count=st.integers(1, 6))
    def crowd(self, name: str, count: int) -> None:
        """Keys of one group, none more urgent than another, and then one of another group."""
        for group in [*("g" * count), "h"]:
            self.world.arrive(name, group, Priority.CHANGED, float("inf"))

    @rule(choice=st.integers(0, 30), answer=ANSWERS)
    def finish(self, choice: int, answer: RequestResult) -> None:
        if requests := self.world.requests:
            self.world.finish(requests[choice % len(requests)], answer)

    @rule(name=st.sampled_from(TARGETS), answer=ANSWERS)
    def finish_all(self, name: str, answer: RequestResult) -> None:
        """A target recovers, or drops all runs that wait there."""
        for request in [each for each in self.world.requests if each.target == name]:
            self.world.finish(request, answer)

    @rule(choice=st.integers(0, 30))
    def event(self, choice: int) -> None:
        if keys := list(self.world.keys):
            self.world.event(keys[choice % len(keys)])

    @rule(choice=st.integers(0, 30))
    def vanish(self, choice: int) -> None:
        if keys := list(self.world.keys):
            self.world.vanish(keys[choice % len(keys)])

    @rule(seconds=st.sampled_from([0.01, 0.5, SLOW_AFTER_S, 1.5, CALL_TIMEOUT_S, 12.0, SUSPECT_S]))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)


class OneShareForAll(Bulkhead[int]):
    """All suspect targets share one bound: what hangs in A takes B's only request."""

    def _room(self, target: _Target[int], load: _Load | None, is_detached: bool) -> int:
        room = super()._room(target, load, is_detached)
        if load is None:
            return room
        hung = sum(
            each.in_flight for each in self._targets.values() if each.suspect_until > Instant(0)
        )
        return min(room, max(1, self._workers // 4) - hung)


class SlowOnlyAtTheEnd(Bulkhead[int]):
    """A request is judged when it ends: until then it holds its worker."""

    def overdue(self, run: BulkheadRun, now_at: Instant) -> bool:
        return False


class FailuresOnly(Bulkhead[int]):
    """A success is a success, however long it took."""

    def leave(self, run: BulkheadRun, answer: RequestResult, now_at: Instant) -> None:
        target = run.target
        super().leave(run, answer, now_at)
        if answer is RequestResult.ANSWERED and target is not None:
            self._targets[target].suspect_until = LONG_AGO


class HoldsTheWorker(Bulkhead[int]):
    """A slow request makes its target suspect and keeps its worker."""

    def _detach(self, run: BulkheadRun) -> bool:
        return False


class DetachesWithoutBound(Bulkhead[int]):
    """Each slow request frees its worker: what waits grows with what is asked for."""

    def _detach(self, run: BulkheadRun) -> bool:
        self._detached_most = 1_000_000
        return super()._detach(run)

    def _room(self, target: _Target[int], load: _Load | None, is_detached: bool) -> int:
        return self._workers if load is not None else super()._room(target, load, is_detached)


class SuspectForGood(Bulkhead[int]):
    """Suspicion ends by time alone: a target that recovered is served one by one."""

    def leave(self, run: BulkheadRun, answer: RequestResult, now_at: Instant) -> None:
        failed = RequestResult.NO_RESULT if now_at - run.began_at < SLOW_AFTER_S else answer
        super().leave(run, failed, now_at)


class SuspectUntilAnswered(Bulkhead[int]):
    """Suspicion ends by an answer alone."""

    @staticmethod
    def _suspect(target: _Target[int], now_at: Instant) -> None:
        target.suspect_until = NEVER


class Shut(Bulkhead[int]):
    """A suspect target is asked nothing until its time is over."""

    def _room(self, target: _Target[int], load: _Load | None, is_detached: bool) -> int:
        return 0 if load is not None else super()._room(target, load, is_detached)


class CallsNobody(Bulkhead[int]):
    """A key that found its target full waits for its timer."""

    def calls(self, now_at: Instant) -> list[tuple[int, QueuePosition]]:
        return []


class CallsEverybody(Bulkhead[int]):
    """One free target wakes all who wait for it."""

    def calls(self, now_at: Instant) -> list[tuple[int, QueuePosition]]:
        found = super().calls(now_at)
        for name in [name for name in self._waiting if found]:
            target = self._targets[name]
            while len(target.parked):
                _, key = target.parked.pop()
                target.called[key] = now_at
                found.append((key, self._positions[key][1]))
        return found


class CallsTheLast(Bulkhead[int]):
    """The last arrival is called first."""

    @staticmethod
    def _next_turn(target: _Target[int], group: str) -> int:
        target.turn -= 1
        return target.turn


class ForgetsUrgency(Bulkhead[int]):
    """First come, first served: an expired token waits behind routine."""

    def park(
        self,
        target: str,
        key: int,
        *,
        group: str,
        priority: Priority,
        slack_ends_at: Instant,
        now_at: Instant,
    ) -> None:
        super().park(
            target,
            key,
            group=group,
            priority=Priority.EXPIRING,
            slack_ends_at=Instant(0),
            now_at=now_at,
        )


class OneLineForAll(Bulkhead[int]):
    """A thousand keys of one tenant stand before the one of another."""

    @staticmethod
    def _next_turn(target: _Target[int], group: str) -> int:
        return Bulkhead._next_turn(target, "")


class AllWorkersForOne(Bulkhead[int]):
    """Requests of just less than what counts as slow may hold every worker."""

    def leave(self, run: BulkheadRun, answer: RequestResult, now_at: Instant) -> None:
        target = run.target
        super().leave(run, answer, now_at)
        if target is not None:
            self._targets[target].is_brisk = True


class LosesItsTurn(Bulkhead[int]):
    """A key that runs once more for nothing goes behind those that came after it."""

    def unpark(self, key: int) -> None:
        super().unpark(key)
        self._positions.pop(key, None)


class WaitsForTheLost(Bulkhead[int]):
    """A call to a removed key never expires."""

    def _expire_calls(self, target: _Target[int], now_at: Instant) -> None:
        pass


MUTANTS = [
    OneShareForAll,
    SlowOnlyAtTheEnd,
    FailuresOnly,
    HoldsTheWorker,
    DetachesWithoutBound,
    SuspectForGood,
    SuspectUntilAnswered,
    Shut,
    CallsNobody,
    CallsEverybody,
    CallsTheLast,
    ForgetsUrgency,
    OneLineForAll,
    AllWorkersForOne,
    LosesItsTurn,
    WaitsForTheLost,
]


def played_by(bulkhead_class: type[Bulkhead[int]]) -> type[Interleaving]:
    class Chosen(Interleaving):
        pass

    Chosen.bulkhead_class = bulkhead_class
    return Chosen


def test_no_interleaving_makes_one_target_pay_for_another() -> None:
    play(played_by(Bulkhead), 500)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_it_finds_what_wrong_rules_cost(mutant: type[Bulkhead[int]]) -> None:
    check_overrides(mutant)
    with pytest.raises(Broken):
        search(played_by(mutant), 20_000)


def test_the_first_request_of_a_slow_target_goes_before_a_second_one_at_another() -> None:
    """More workers than the interleavings have: a share is more than one request here."""
    bulkhead: Bulkhead[int] = Bulkhead(workers=8)

    def begun() -> BulkheadRun:
        run = bulkhead.begin()
        assert run is not None
        return run

    def make_slow(target: str, count: int, *, ends: bool) -> None:
        runs = [begun() for _ in range(count)]
        for run in runs:
            assert bulkhead.enter(target, run, Instant(0))
        for run in runs:
            bulkhead.overdue(run, Instant(SLOW_AFTER_S))
            if ends:
                bulkhead.leave(run, RequestResult.ANSWERED, Instant(SLOW_AFTER_S))
                bulkhead.end(run)

    for target in ("a", "c"):
        make_slow(target, 1, ends=True)
    make_slow("b", 8, ends=False)
    make_slow("d", 6, ends=False)
    assert bulkhead.enter("a", begun(), Instant(SLOW_AFTER_S))
    assert not bulkhead.enter(
        "a", begun(), Instant(SLOW_AFTER_S)
    )  # one detached run is left, and it is c's
    assert bulkhead.enter("c", begun(), Instant(SLOW_AFTER_S))
