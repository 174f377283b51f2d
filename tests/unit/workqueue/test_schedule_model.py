"""The scheduler against a naive model: any calls in any order keep every promise at once."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconciler.clock import Instant
from reconciler.workqueue.heap import MIN_STALE_SLOTS
from reconciler.workqueue.items import (
    CHANGED_FRACTION,
    MAX_REQUESTED_WAIT_S,
    NotBefore,
    Priority,
    ScheduleRequest,
    Trigger,
)
from reconciler.workqueue.schedule import STARVATION_INTERVAL, Scheduler

KEYS = st.sampled_from("abcdefgh")
ENDPOINTS = st.sampled_from(["issuer", "kube"])
PRIORITIES = st.sampled_from(Priority)
DELAYS_S = st.integers(-3, 12).map(float)
SLACKS_S = st.integers(-5, 30).map(float)
TRIGGERS = st.sampled_from(Trigger)
DEPENDENCIES = st.sampled_from(["write", "platform"])


@dataclass
class Wanted:
    """A key's request, in the simplest form."""

    at: Instant
    priority: Priority
    deadline_at: Instant
    reasons: list[str]
    endpoint: str = ""
    trigger: Trigger = Trigger.NONE
    dependency: str = ""
    failed_at: Instant | None = None
    tried: str = ""

    def absorb(self, other: "Wanted") -> None:
        self.at = min(self.not_before(other), other.not_before(self))
        self.trigger, self.dependency = (
            max(self.trigger, other.trigger),
            self.dependency or other.dependency,
        )
        if self.failed_at is None:
            self.failed_at, self.tried = other.failed_at, other.tried
            self.until_at = other.until_at
        self.priority = min(self.priority, other.priority)
        self.deadline_at = min(self.deadline_at, other.deadline_at)
        self.reasons += [reason for reason in other.reasons if reason not in self.reasons]
        self.endpoint = self.endpoint or other.endpoint

    until_at: Instant = Instant(0)

    def not_before(self, failed: "Wanted") -> Instant:
        """Return when this may run after a merge with one that has failed."""
        if failed.failed_at is None or self.dependency != failed.tried:
            at = self.at
            return at if failed.failed_at is None else max(at, failed.failed_at)
        wait_s = failed.until_at - failed.failed_at
        if self.trigger is Trigger.CHANGED:
            wait_s = wait_s * CHANGED_FRACTION
        if self.trigger is Trigger.REQUESTED:
            wait_s = min(MAX_REQUESTED_WAIT_S, wait_s)
        return max(self.at, failed.failed_at + wait_s)


@dataclass
class Known:
    """A key: its request, or its present run and the request that arrived during it."""

    wanted: Wanted | None
    running: bool = False
    opened: set[str] = field(default_factory=set)
    ready_at: Instant | None = None
    bound: int = 0
    picks: int = 0
    failures: int = 0


class ScheduleMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.schedule: Scheduler[str] = Scheduler()
        self.model: dict[str, Known] = {}
        self.now_at = Instant(100)
        self.turn = 0

    def ready(self) -> list[str]:
        return [key for key, known in self.model.items() if known.ready_at is not None]

    def settle(self) -> None:
        """Mark due keys as ready, oldest first, each with the number of keys before it."""
        due = [
            (known.wanted.at, key)
            for key, known in self.model.items()
            if not known.running and known.ready_at is None
            if known.wanted is not None and known.wanted.at <= self.now_at
        ]
        fresh = len(due)
        for at, key in sorted(due):
            known = self.model[key]
            known.bound = STARVATION_INTERVAL * (len(self.ready()) + fresh)
            known.ready_at, known.picks = at, 0

    def want(self, key: str, wanted: Wanted) -> None:
        known = self.model.setdefault(key, Known(None))
        if known.wanted is None:
            known.wanted = wanted
        else:
            known.wanted.absorb(wanted)
        self.settle_new(key)

    def settle_new(self, key: str) -> None:
        """A key that a call makes due, not time, is ready from now on, not from an earlier time."""
        known = self.model[key]
        was_ready = known.ready_at is not None
        self.settle()
        if not was_ready and known.ready_at is not None:
            known.ready_at = self.now_at

    @rule(
        key=KEYS,
        delay_s=DELAYS_S,
        priority=PRIORITIES,
        slack_s=SLACKS_S,
        reason=st.sampled_from("xyz"),
        trigger=TRIGGERS,
        dependency=DEPENDENCIES,
    )
    def add(
        self,
        key: str,
        delay_s: float,
        priority: Priority,
        slack_s: float,
        reason: str,
        trigger: Trigger,
        dependency: str,
    ) -> None:
        at = self.now_at + delay_s
        self.schedule.add(
            key,
            ScheduleRequest(at, priority, slack_s, reason, trigger=trigger, dependency=dependency),
            now_at=self.now_at,
        )
        self.want(
            key,
            Wanted(
                at,
                priority,
                self.now_at + slack_s,
                [reason],
                "",
                trigger,
                dependency,
            ),
        )

    @rule(seconds=st.integers(0, 6))
    def advance(self, seconds: int) -> None:
        # One second at a time, so that the model sees each entry come due in its turn.
        for _ in range(seconds):
            self.now_at += 1.0
            self.settle()

    @rule()
    def take(self) -> None:
        work = self.schedule.pop(self.now_at)
        ready = self.ready()
        if work is None:
            assert not ready, "something was due and nothing was handed out"
            return
        assert work.key in ready, "handed out twice, too early, or unknown"
        known = self.model[work.key]
        assert known.wanted is not None
        self.turn += 1
        if self.turn % STARVATION_INTERVAL == 0:
            assert known.ready_at == min(self.model[key].ready_at or 0.0 for key in ready)
        else:
            assert self.urgency(work.key) == min(map(self.urgency, ready))
        assert work.priority == self.urgency(work.key)[0]
        assert work.reasons == tuple(known.wanted.reasons)
        assert (work.due_at, work.ready_at) == (known.wanted.at, known.ready_at)
        assert work.attempt == known.failures + 1
        self.count_pick(ready)
        known.wanted, known.running, known.ready_at, known.opened = None, True, None, set()

    def urgency(self, key: str) -> tuple[Priority, Instant]:
        wanted = self.model[key].wanted
        assert wanted is not None
        late = wanted.deadline_at <= self.now_at
        return (Priority.EXPIRING if late else wanted.priority, wanted.deadline_at)

    def count_pick(self, ready: list[str]) -> None:
        for key in ready:
            self.model[key].picks += 1
            assert self.model[key].picks <= self.model[key].bound, "starved"

    def running(self) -> list[str]:
        return [key for key, known in self.model.items() if known.running]

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def done_for_good(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.running()))
        self.schedule.done(key, next=None, now_at=self.now_at)
        known = self.model[key]
        known.running = False
        if known.wanted is None:
            del self.model[key]
        else:
            self.settle_new(key)

    @precondition(lambda self: self.running())
    @rule(
        data=st.data(),
        delay_s=DELAYS_S,
        priority=PRIORITIES,
        slack_s=SLACKS_S,
        endpoint=ENDPOINTS | st.just(""),
    )
    def done_until_next(
        self, data: st.DataObject, delay_s: float, priority: Priority, slack_s: float, endpoint: str
    ) -> None:
        key = data.draw(st.sampled_from(self.running()))
        next = ScheduleRequest(self.now_at + delay_s, priority, slack_s, "next", endpoint)
        self.schedule.done(key, next=next, now_at=self.now_at)
        known = self.model[key]
        known.running = False
        wanted = Wanted(next.at, priority, self.now_at + slack_s, ["next"], endpoint)
        if endpoint in known.opened:
            wanted.at, wanted.endpoint = min(wanted.at, self.now_at), ""
        self.want(key, wanted)

    @precondition(lambda self: self.running())
    @rule(
        data=st.data(),
        wait_s=st.integers(0, 40).map(float),
        endpoint=ENDPOINTS | st.just(""),
        dependency=DEPENDENCIES,
    )
    def done_and_failed(
        self, data: st.DataObject, wait_s: float, endpoint: str, dependency: str
    ) -> None:
        key = data.draw(st.sampled_from(self.running()))
        at = self.now_at + wait_s
        not_before = NotBefore(self.now_at, at, dependency)
        next = ScheduleRequest(at, Priority.ROUTINE, 1.0, "failed", endpoint, not_before)
        self.schedule.done(key, next=next, now_at=self.now_at)
        known = self.model[key]
        known.running = False
        wanted = Wanted(at, Priority.ROUTINE, self.now_at + 1.0, ["failed"], endpoint)
        if endpoint in known.opened:
            wanted.at, wanted.endpoint = min(wanted.at, self.now_at), ""
        else:
            wanted.failed_at, wanted.until_at, wanted.tried = (
                self.now_at,
                at,
                dependency,
            )
        self.want(key, wanted)

    @rule(endpoint=ENDPOINTS)
    def wake_blocked(self, endpoint: str) -> None:
        expected = 0
        for key, known in self.model.items():
            known.opened.add(endpoint)
            if known.running or known.ready_at is not None or known.wanted is None:
                continue
            if known.wanted.endpoint == endpoint:
                expected += 1
                known.wanted.at, known.wanted.endpoint = self.now_at, ""
                known.wanted.failed_at = None
                self.settle_new(key)
        assert self.schedule.wake_blocked(endpoint, now_at=self.now_at) == expected

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        known = self.model.get(key)
        running = known is not None and known.running
        assert self.schedule.remove(key) is not running
        if not running:
            self.model.pop(key, None)

    @rule(key=KEYS, is_forgotten=st.booleans())
    def fail_or_forget(self, key: str, is_forgotten: bool) -> None:
        known = self.model.get(key)
        if is_forgotten:
            self.schedule.forget(key)
        if known is not None:
            known.failures = 0 if is_forgotten else known.failures + 1
            assert is_forgotten or self.schedule.record_failure(key) == known.failures

    @invariant()
    def nothing_is_lost_and_nothing_is_left(self) -> None:
        assert len(self.schedule) == len(self.model)
        assert self.schedule.running == len(self.running())
        assert self.schedule.slots <= 2 * len(self.model) + 5 * MIN_STALE_SLOTS

    @invariant()
    def the_figures_agree(self) -> None:
        stats = self.schedule.stats(self.now_at)
        waiting = [
            known.wanted
            for known in self.model.values()
            if not known.running and known.ready_at is None and known.wanted is not None
        ]
        assert sum(stats.ready.values()) == len(self.ready())
        assert sum(stats.waiting.values()) == len(waiting)
        assert sum(stats.blocked.values()) == sum(wanted.endpoint != "" for wanted in waiting)
        assert self.schedule.next_at() == min((wanted.at for wanted in waiting), default=None)


TestSchedule = ScheduleMachine.TestCase
TestSchedule.settings = settings(max_examples=40, stateful_step_count=60)
