"""Keys, workers and targets of every temper around the bulkhead: each step is somebody's choice.

Time moves only by `advance`. A request under way ends when the model says so: at once, late, or
never. What the bulkhead decides is checked after each step against the promises of
docs/design/isolation.md; nothing of its rules is repeated here.
"""

from collections import Counter
from dataclasses import dataclass, field

from reconciler.clock import Instant
from reconciler.controller.decide.bulkhead import (
    BRISK_BELOW_S,
    CALL_TIMEOUT_S,
    RESERVE,
    SLOW_AFTER_S,
    SUSPECT_S,
    Bulkhead,
    BulkheadRun,
    QueuePosition,
    RequestResult,
    max_runs,
)
from reconciler.workqueue.items import Priority

EPSILON_S = 1e-6


class Broken(AssertionError):
    """A promise does not hold."""


@dataclass(eq=False)
class Request:
    """One under way."""

    key: int
    target: str
    run: BulkheadRun
    began_at: Instant
    is_reported: bool = False


@dataclass
class Key:
    """One key: `target` is where its request goes, `group` whose it is."""

    target: str
    group: str
    priority: Priority
    ends_at: Instant
    ready_at: Instant
    turn: int | None = None


@dataclass
class World:
    """Workers that take the most urgent ready key, as the queue's do."""

    bulkhead: Bulkhead[int]
    workers: int
    now_at: Instant = Instant(0)
    keys: dict[int, Key] = field(default_factory=dict)
    ready: set[int] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    parked: dict[int, QueuePosition] = field(default_factory=dict)
    called: dict[int, Instant] = field(default_factory=dict)
    slow_at: dict[str, Instant] = field(default_factory=dict)
    sluggish: set[str] = field(default_factory=set)
    arrivals: Counter[tuple[str, str]] = field(default_factory=Counter)
    passed: dict[tuple[int, str], set[int]] = field(default_factory=dict)
    next_key: int = 0
    turns: int = 0

    # What happens.

    @property
    def reserved(self) -> int:
        """What a target that is not brisk may have of the workers."""
        return max(1, self.workers - max(1, self.workers // RESERVE))

    def arrive(self, target: str, group: str, priority: Priority, slack_s: float) -> None:
        key = self.next_key
        self.next_key += 1
        self.arrivals[target, group] += 1
        self.keys[key] = Key(target, group, priority, self.now_at + slack_s, self.now_at)
        self.ready.add(key)
        self.pump()

    def event(self, key: int) -> None:
        """Something changed: a key that waits for a target runs once more, like any other."""
        if key in self.keys and not any(request.key == key for request in self.requests):
            self.ready.add(key)
            self.pump()

    def vanish(self, key: int) -> None:
        """A session ends while it waits: the queue forgets it without a run."""
        if not any(request.key == key for request in self.requests):
            self.keys.pop(key, None)
            self.ready.discard(key)
            self.pump()

    def finish(self, request: Request, answer: RequestResult) -> None:
        self.requests.remove(request)
        self.bulkhead.leave(request.run, answer, self.now_at)
        if answer is RequestResult.ANSWERED and not request.is_reported:
            if self.bulkhead.is_suspect(request.target, self.now_at):
                raise Broken(f"{request.target} is suspect after a prompt answer")
        elif answer is not RequestResult.NO_RESULT and request.is_reported:
            self._is_slow(request.target)
        if answer is not RequestResult.NO_RESULT:
            is_brisk = self.now_at - request.began_at <= BRISK_BELOW_S
            (self.sluggish.discard if is_brisk else self.sluggish.add)(request.target)
        self.bulkhead.end(request.run)
        self.bulkhead.forget(request.key)
        self.parked.pop(request.key, None)
        del self.keys[request.key]
        self.pump()

    def advance(self, seconds: float) -> None:
        """Let time pass, from one timer to the next."""
        until_at = self.now_at + seconds
        while True:
            timers = [r.began_at + SLOW_AFTER_S for r in self.requests if not r.is_reported]
            at = min(timers, default=until_at)
            if at > until_at:
                break
            self.now_at = max(self.now_at, at)
            for request in self.requests:
                if not request.is_reported and request.began_at + SLOW_AFTER_S <= self.now_at:
                    request.is_reported = True
                    self.bulkhead.overdue(request.run, self.now_at)
                    self._is_slow(request.target)
            self.pump()
            if not timers:
                break
        self.now_at = until_at
        self.pump()

    def _is_slow(self, target: str) -> None:
        self.slow_at[target] = self.now_at
        if not self.bulkhead.is_suspect(target, self.now_at):
            raise Broken(f"{target} is not suspect though a request there is slow")

    # The workers.

    def pump(self) -> None:
        """Let the workers take what is ready until none can."""
        steps = 0
        while True:
            self._take_calls()
            if not self.ready:
                break
            run = self.bulkhead.begin()
            if run is None:
                break
            steps += 1
            if steps > 4 * (len(self.keys) + 1):
                raise Broken("runs come back at once, again and again")
            key = min(self.ready, key=lambda key: self._urgency(key))
            self.ready.discard(key)
            self._work(key, run)
        self.check()

    def _urgency(self, key: int) -> tuple[float, Instant, int]:
        found = self.keys[key]
        return found.priority, found.ends_at, key

    def _work(self, key: int, run: BulkheadRun) -> None:
        found, now_at = self.keys[key], self.now_at
        self.bulkhead.unpark(key)
        self.parked.pop(key, None)
        self.called.pop(key, None)
        suspect = self.bulkhead.is_suspect(found.target, now_at)
        before = self.bulkhead.in_flight(found.target)
        if self.bulkhead.enter(found.target, run, now_at):
            self.requests.append(Request(key, found.target, run, now_at))
            if suspect:
                self._check_share(found.target)
            elif found.target in self.sluggish and before >= self.reserved:
                raise Broken(f"{found.target} is not brisk and has {before + 1} workers")
            return
        if not suspect and before < self._most(found.target):
            raise Broken(f"{found.target} is healthy and has {before}, yet a request is refused")
        self.bulkhead.park(
            found.target,
            key,
            group=found.group,
            priority=found.priority,
            slack_ends_at=found.ends_at,
            now_at=now_at,
        )
        self.bulkhead.end(run)
        if found.turn is None:
            self.turns += 1
            found.turn = self.turns
        self.parked[key] = QueuePosition(found.priority, found.ends_at, found.turn, 0)

    def _most(self, target: str) -> int:
        return self.reserved if target in self.sluggish else self.workers

    def _take_calls(self) -> None:
        for key, position in self.bulkhead.calls(self.now_at):
            if key in self.called and self.now_at - self.called[key] < CALL_TIMEOUT_S:
                raise Broken(f"key {key} is called twice")
            self.called[key] = self.now_at
            if key not in self.keys:
                continue  # it vanished; the call is lost
            mine = self.parked.pop(key, None)
            if mine is None:
                raise Broken(f"key {key} is called and does not wait")
            target, group = self.keys[key].target, self.keys[key].group
            others = {
                other: waiting
                for other, waiting in self.parked.items()
                if other in self.keys and self.keys[other].target == target
            }
            for other, waiting in others.items():
                before = waiting[:2] < mine[:2] or (
                    self.keys[other].group == group and waiting < mine
                )
                if before:
                    raise Broken(f"key {key} is called before one with an earlier position")
            if position[:2] != mine[:2]:
                raise Broken(f"key {key} lost its position")
            self._check_groups(target, key, mine, others)
            self.ready.add(key)
            comes = [k for k in self.called if k in self.ready and self.keys[k].target == target]
            if len(comes) > self.workers:
                raise Broken(f"{len(comes)} keys are called to {target} at once")

    def _check_groups(
        self, target: str, called: int, mine: QueuePosition, others: dict[int, QueuePosition]
    ) -> None:
        """Keys of one group pass an equally urgent one of another no more often than that other
        group has had keys of its own there.
        """
        group = self.keys[called].group
        for other, waiting in others.items():
            own = self.keys[other].group
            if waiting[:2] != mine[:2] or own == group:
                continue
            passed = self.passed.setdefault((other, group), set())
            passed.add(called)
            if len(passed) > self.arrivals[target, own] + 1:
                raise Broken(f"key {other} of {own} waits while {len(passed)} of {group} pass")

    # What must hold.

    def check(self) -> None:
        bulkhead = self.bulkhead
        if bulkhead.busy > self.workers or bulkhead.busy < 0:
            raise Broken(f"{bulkhead.busy} runs hold {self.workers} workers")
        if len(self.requests) > max_runs(self.workers) or bulkhead.detached < 0:
            raise Broken(f"{len(self.requests)} requests are under way")
        if len(self.requests) != bulkhead.busy + bulkhead.detached:
            raise Broken("runs are counted wrongly")
        self._check_workers()
        for target in {key.target for key in self.keys.values()}:
            self._check_target(target)

    def _check_workers(self) -> None:
        """While anything is ready, no worker waits for a request that is slow."""
        if not self.ready or self.bulkhead.detached >= max_runs(self.workers) - self.workers:
            return
        slow = [
            request
            for request in self.requests
            if not request.run.is_detached and request.is_reported
        ]
        if slow:
            raise Broken(f"a worker waits in {slow[0].target} while {len(self.ready)} are ready")

    def _check_target(self, target: str) -> None:
        under_way = sum(request.target == target for request in self.requests)
        waiting = [
            key for key in self.parked if key in self.keys and self.keys[key].target == target
        ]
        called = [key for key, at in self.called.items() if self.now_at - at < CALL_TIMEOUT_S]
        comes = [key for key in called if key not in self.keys or self.keys[key].target == target]
        suspect = self.bulkhead.is_suspect(target, self.now_at)
        if under_way > self.workers:
            raise Broken(f"{under_way} requests are under way in {target}")
        if suspect and self.now_at - self.slow_at[target] > SUSPECT_S + EPSILON_S:
            raise Broken(f"{target} is suspect and has not been slow for {SUSPECT_S} s")
        full = self.bulkhead.detached >= max_runs(self.workers) - self.workers
        if waiting and not under_way and not comes and not full:
            raise Broken(f"{len(waiting)} wait for {target}, where nothing is under way")
        if waiting and not suspect and under_way + len(comes) < self._most(target):
            raise Broken(f"{len(waiting)} wait for {target}, which is healthy and has room")

    def _check_share(self, target: str) -> None:
        """A request was let into a suspect target: its share is a part of the workers' number."""
        suspects = [p for p in self.slow_at if self.bulkhead.is_suspect(p, self.now_at)]
        under_way = self.bulkhead.in_flight(target)
        if under_way > max(1, self.workers // len(suspects)):
            raise Broken(f"{under_way} requests are under way in {target}, which is suspect")

    def check_memory(self) -> None:
        """What is held at rest is not more than what is known."""
        held = len(self.bulkhead._positions)
        known = len(self.keys) + sum(
            self.now_at - at < CALL_TIMEOUT_S for at in self.called.values()
        )
        if held > known + len([k for k in self.parked if k not in self.keys]):
            raise Broken(f"{held} keys are held, {known} are known")
