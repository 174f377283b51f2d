"""The scheduler's promises one by one; `test_schedule_model.py` checks all of them at once."""

import math

import pytest

from reconciler.clock import LONG_AGO, Instant
from reconciler.naming import SessionKey
from reconciler.workqueue.heap import MIN_STALE_SLOTS
from reconciler.workqueue.items import (
    MAX_REASONS,
    MAX_REQUESTED_WAIT_S,
    EntryInfo,
    NotBefore,
    Priority,
    ScheduleRequest,
    Trigger,
    WorkItem,
)
from reconciler.workqueue.schedule import STARVATION_INTERVAL, Scheduler

NOW = Instant(1000)


class TimedScheduler:
    """A scheduler with its own clock and defaults, so that a test gives only what matters to it."""

    def __init__(self) -> None:
        self.schedule: Scheduler[str] = Scheduler()
        self.now_at = NOW

    def add(
        self,
        key: str,
        *,
        after_s: float = 0.0,
        priority: Priority = Priority.ROUTINE,
        slack_s: float = 300.0,
        reason: str = "event",
        trigger: Trigger = Trigger.NONE,
        dependency: str = "write",
    ) -> None:
        self.schedule.add(
            key,
            ScheduleRequest(
                self.now_at + after_s,
                priority,
                slack_s,
                reason,
                trigger=trigger,
                dependency=dependency,
            ),
            now_at=self.now_at,
        )

    def fail(self, key: str, wait_s: float, *, endpoint: str = "") -> None:
        not_before = NotBefore(self.now_at, self.now_at + wait_s, "write")
        next = ScheduleRequest(
            not_before.retry_at, Priority.ROUTINE, 300.0, "failed", endpoint, not_before
        )
        self.done(key, next)

    def pop(self) -> WorkItem[str]:
        work = self.schedule.pop(self.now_at)
        assert work is not None
        return work

    def idle(self) -> bool:
        return self.schedule.pop(self.now_at) is None

    def done(self, key: str, next: ScheduleRequest | None = None) -> None:
        self.schedule.done(key, next=next, now_at=self.now_at)

    def next(
        self, after_s: float, *, endpoint: str = "", slack_s: float = 300.0
    ) -> ScheduleRequest:
        return ScheduleRequest(
            self.now_at + after_s, Priority.ROUTINE, slack_s, "refresh", endpoint
        )

    def run_all(self) -> list[str]:
        """Take and finish until nothing is due; return the keys in the order served."""
        keys = []
        while (work := self.schedule.pop(self.now_at)) is not None:
            keys.append(work.key)
            self.done(work.key)
        return keys


@pytest.fixture
def scheduler() -> TimedScheduler:
    return TimedScheduler()


def test_a_key_added_many_times_runs_once(scheduler: TimedScheduler) -> None:
    for _ in range(50):
        scheduler.add("a")
    assert scheduler.run_all() == ["a"]
    assert len(scheduler.schedule) == 0


def test_a_running_key_is_not_handed_out_again(scheduler: TimedScheduler) -> None:
    scheduler.add("a")
    scheduler.pop()
    scheduler.add("a")
    assert scheduler.idle()


def test_any_number_of_adds_during_a_run_are_one_more_run(scheduler: TimedScheduler) -> None:
    scheduler.add("a")
    scheduler.pop()
    for _ in range(50):
        scheduler.add("a", reason="pod changed")
    scheduler.done("a")
    assert scheduler.pop().reasons == ("pod changed",)
    scheduler.done("a")
    assert scheduler.idle()


def test_a_dirty_key_runs_again_even_if_the_run_asked_for_a_later_time(
    scheduler: TimedScheduler,
) -> None:
    scheduler.add("a")
    scheduler.pop()
    scheduler.add("a", reason="pod changed", priority=Priority.CHANGED)
    scheduler.done("a", scheduler.next(200))
    work = scheduler.pop()
    assert (work.priority, work.reasons) == (Priority.CHANGED, ("pod changed", "refresh"))


def test_of_two_times_the_earlier_counts(scheduler: TimedScheduler) -> None:
    scheduler.add("a", after_s=60)
    scheduler.add("a", after_s=30)
    scheduler.add("a", after_s=90)
    assert scheduler.schedule.next_at() == NOW + 30
    scheduler.now_at = NOW + 29.9
    assert scheduler.idle()
    scheduler.now_at = NOW + 30
    assert scheduler.run_all() == ["a"]
    scheduler.now_at = NOW + 1000
    assert scheduler.idle()


def test_entries_come_due_in_the_order_of_time(scheduler: TimedScheduler) -> None:
    for after_s in (30, 10, 20):
        scheduler.add(f"at {after_s}", after_s=after_s)
    seen = []
    for _ in range(3):
        scheduler.now_at = scheduler.schedule.next_at() or LONG_AGO
        seen += scheduler.run_all()
    assert seen == ["at 10", "at 20", "at 30"]


def test_an_event_absorbs_the_pending_deadline(scheduler: TimedScheduler) -> None:
    scheduler.add("a", after_s=60)
    scheduler.add("a")
    assert scheduler.run_all() == ["a"]
    assert scheduler.schedule.next_at() is None


def test_the_next_deadline_may_be_later_than_any_before(scheduler: TimedScheduler) -> None:
    scheduler.add("a", after_s=10)
    scheduler.add("a")
    scheduler.pop()
    scheduler.done("a", scheduler.next(500))
    assert scheduler.schedule.next_at() == NOW + 500
    scheduler.now_at = NOW + 499
    assert scheduler.idle()
    scheduler.now_at = NOW + 500
    assert scheduler.pop().due_at == NOW + 500


def test_a_waiting_head_of_line_delays_no_other(scheduler: TimedScheduler) -> None:
    scheduler.add("running")
    scheduler.pop()
    scheduler.add("running")
    scheduler.add("waits", after_s=5)
    scheduler.add("free")
    assert scheduler.run_all() == ["free"]


def test_priorities_come_in_order_and_slack_decides_inside_one(scheduler: TimedScheduler) -> None:
    scheduler.add("routine", priority=Priority.ROUTINE, slack_s=1)
    scheduler.add("startup", priority=Priority.STARTUP, slack_s=500)
    scheduler.add("changed, calm", priority=Priority.CHANGED, slack_s=400)
    scheduler.add("changed, tight", priority=Priority.CHANGED, slack_s=40)
    scheduler.add("expiring", priority=Priority.EXPIRING, slack_s=-5)
    assert scheduler.run_all() == [
        "expiring",
        "changed, tight",
        "changed, calm",
        "startup",
        "routine",
    ]


def test_slack_shrinks_alike_for_what_was_added_early_and_late(scheduler: TimedScheduler) -> None:
    scheduler.add("early", slack_s=100)
    scheduler.now_at += 60
    scheduler.add("late", slack_s=50)
    assert scheduler.run_all() == ["early", "late"]


def test_an_entry_whose_slack_ran_out_while_it_waited_is_served_as_expiring(
    scheduler: TimedScheduler,
) -> None:
    scheduler.add("routine", priority=Priority.ROUTINE, slack_s=30)
    scheduler.now_at += 31
    scheduler.add("changed", priority=Priority.CHANGED, slack_s=300)
    work = scheduler.pop()
    assert (work.key, work.priority) == ("routine", Priority.EXPIRING)


def test_a_waiting_urgent_entry_that_becomes_due_passes_a_ready_one_of_a_lower_priority(
    scheduler: TimedScheduler,
) -> None:
    scheduler.add("low")
    scheduler.add("high", after_s=1, priority=Priority.CHANGED)
    scheduler.now_at += 1
    assert scheduler.run_all() == ["high", "low"]


def test_a_merge_keeps_the_most_urgent_priority_and_slack(scheduler: TimedScheduler) -> None:
    scheduler.add("other", priority=Priority.CHANGED, slack_s=20)
    scheduler.add("a", priority=Priority.ROUTINE, slack_s=10)
    scheduler.add("a", priority=Priority.CHANGED, slack_s=200)
    scheduler.add("a", priority=Priority.STARTUP, slack_s=100)
    work = scheduler.pop()
    assert (work.key, work.priority) == ("a", Priority.CHANGED)


def test_reasons_are_named_once_in_their_order_and_are_bounded(scheduler: TimedScheduler) -> None:
    for number in (*range(MAX_REASONS + 5), 0):
        scheduler.add("a", reason=f"reason {number}")
    assert scheduler.pop().reasons == tuple(f"reason {number}" for number in range(MAX_REASONS))


def test_equal_urgency_is_served_first_come_first_served(scheduler: TimedScheduler) -> None:
    keys = [f"key {number}" for number in range(20)]
    for key in keys:
        scheduler.add(key)
    assert scheduler.run_all() == keys


def test_every_eighth_pick_goes_to_the_longest_ready(scheduler: TimedScheduler) -> None:
    scheduler.add("patient", priority=Priority.ROUTINE)
    scheduler.now_at += 1
    for number in range(20):
        scheduler.add(f"urgent {number}", priority=Priority.EXPIRING)
    assert scheduler.run_all().index("patient") == STARVATION_INTERVAL - 1


def test_age_counts_from_the_due_time_and_not_from_when_it_was_looked_at(
    scheduler: TimedScheduler,
) -> None:
    scheduler.add("due first", after_s=1)
    scheduler.now_at += 5
    for number in range(20):
        scheduler.add(f"urgent {number}", priority=Priority.EXPIRING)
    assert scheduler.schedule.stats(scheduler.now_at).oldest_ready_s == 4.0
    assert scheduler.run_all().index("due first") == STARVATION_INTERVAL - 1


def test_a_flood_of_urgent_keys_starves_no_priority(scheduler: TimedScheduler) -> None:
    """The bound of the docstring holds with a new urgent key before each pick."""
    for number in range(10):
        scheduler.add(f"startup {number}", priority=Priority.STARTUP)
    picks: dict[str, int] = {}
    for pick in range(1, STARVATION_INTERVAL * 10 + 1):
        scheduler.now_at += 0.01
        scheduler.add(f"urgent {pick}", priority=Priority.EXPIRING, slack_s=-9)
        key = scheduler.pop().key
        scheduler.done(key)
        picks[key] = pick
    for number in range(10):
        assert picks[f"startup {number}"] <= STARVATION_INTERVAL * (number + 1)


def test_done_without_next_forgets_the_key_and_its_failures(scheduler: TimedScheduler) -> None:
    scheduler.add("a")
    scheduler.pop()
    assert [scheduler.schedule.record_failure("a"), scheduler.schedule.record_failure("a")] == [
        1,
        2,
    ]
    scheduler.done("a")
    scheduler.add("a")
    assert scheduler.pop().attempt == 1


def test_failures_count_up_over_runs_until_they_are_forgotten(scheduler: TimedScheduler) -> None:
    scheduler.add("a")
    attempts = []
    for _ in range(3):
        attempts.append(scheduler.pop().attempt)
        scheduler.schedule.record_failure("a")
        scheduler.done("a", scheduler.next(0))
    scheduler.schedule.forget("a")
    attempts.append(scheduler.pop().attempt)
    assert attempts == [1, 2, 3, 1]


def test_a_blocked_entry_waits_until_the_endpoint_recovers(scheduler: TimedScheduler) -> None:
    scheduler.add("a")
    scheduler.pop()
    scheduler.done("a", scheduler.next(300, endpoint="issuer"))
    assert scheduler.schedule.wake_blocked("kube", now_at=scheduler.now_at) == 0
    assert scheduler.idle()
    scheduler.now_at += 20
    assert scheduler.schedule.wake_blocked("issuer", now_at=scheduler.now_at) == 1
    work = scheduler.pop()
    assert (work.due_at, work.ready_at) == (NOW + 20, NOW + 20)
    scheduler.done("a")
    assert scheduler.schedule.wake_blocked("issuer", now_at=scheduler.now_at) == 0


def test_an_endpoint_that_never_recovers_costs_no_more_than_the_fallback(
    scheduler: TimedScheduler,
) -> None:
    scheduler.add("a")
    scheduler.pop()
    scheduler.done("a", scheduler.next(300, endpoint="issuer"))
    scheduler.now_at += 300
    assert scheduler.pop().key == "a"
    assert scheduler.schedule.stats(scheduler.now_at).blocked == {"issuer": 0}


def test_a_recovering_endpoint_releases_the_most_urgent_first(scheduler: TimedScheduler) -> None:
    slacks = {"calm": 900.0, "tight": 90.0, "dying": 9.0}
    for key, slack_s in slacks.items():
        scheduler.add(key)
        scheduler.pop()
        scheduler.done(key, scheduler.next(300, endpoint="issuer", slack_s=slack_s))
    scheduler.schedule.wake_blocked("issuer", now_at=scheduler.now_at)
    assert scheduler.run_all() == ["dying", "tight", "calm"]


def test_an_endpoint_that_recovers_during_a_run_is_not_missed(scheduler: TimedScheduler) -> None:
    scheduler.add("a")
    scheduler.pop()
    scheduler.schedule.wake_blocked("issuer", now_at=scheduler.now_at)
    scheduler.done("a", scheduler.next(300, endpoint="issuer"))
    scheduler.pop()
    scheduler.done("a", scheduler.next(300, endpoint="issuer"))
    assert scheduler.idle(), "a recovery before the run started says nothing about its failure"


def test_a_key_made_dirty_for_later_still_waits_for_its_endpoint(scheduler: TimedScheduler) -> None:
    scheduler.add("a")
    scheduler.pop()
    scheduler.add("a", after_s=50)
    scheduler.done("a", scheduler.next(300, endpoint="issuer"))
    assert scheduler.schedule.next_at() == NOW + 50
    assert scheduler.schedule.wake_blocked("issuer", now_at=scheduler.now_at) == 1
    assert scheduler.run_all() == ["a"]


def test_an_event_runs_a_blocked_key_at_once(scheduler: TimedScheduler) -> None:
    scheduler.add("a")
    scheduler.pop()
    scheduler.done("a", scheduler.next(300, endpoint="issuer"))
    scheduler.add("a", reason="pod changed")
    assert scheduler.run_all() == ["a"]


@pytest.mark.parametrize("dirty", [False, True], ids=["waiting", "running"])
@pytest.mark.parametrize(
    ("trigger", "dependency", "wait_s"),
    [
        (Trigger.NONE, "write", 100.0),
        (Trigger.CHANGED, "write", 10.0),
        (Trigger.REQUESTED, "write", MAX_REQUESTED_WAIT_S),
        (Trigger.NONE, "platform", 0.0),
    ],
    ids=["event", "changed", "asked", "something else"],
)
def test_after_a_failure_a_key_waits_as_long_as_its_trigger_allows(
    scheduler: TimedScheduler, trigger: Trigger, dependency: str, wait_s: float, dirty: bool
) -> None:
    scheduler.add("a")
    scheduler.pop()
    if dirty:
        scheduler.add("a", trigger=trigger, dependency=dependency)
    scheduler.fail("a", 100.0)
    for _ in range(3):  # a repeated trigger shortens the wait no further
        scheduler.add("a")
        scheduler.add("a", trigger=trigger, dependency=dependency)
    look = scheduler.schedule.entry_info("a")
    assert look is not None
    assert look.at == NOW + wait_s
    scheduler.now_at = NOW + wait_s
    assert scheduler.pop().key == "a"
    scheduler.done("a", scheduler.next(50.0))
    scheduler.add("a")  # what did not fail again is held by nothing
    assert scheduler.pop().key == "a"


def test_a_recovering_endpoint_ends_the_wait(scheduler: TimedScheduler) -> None:
    scheduler.add("a")
    scheduler.pop()
    scheduler.fail("a", 100.0, endpoint="kube")
    scheduler.add("a")
    assert scheduler.idle()
    scheduler.schedule.wake_blocked("kube", now_at=scheduler.now_at)
    assert scheduler.pop().key == "a"


def test_not_before_is_kept_by_work_that_is_put_back(scheduler: TimedScheduler) -> None:
    scheduler.add("a")
    scheduler.pop()
    scheduler.fail("a", 100.0)
    scheduler.now_at += 100.0
    scheduler.pop()
    scheduler.schedule.put_back("a")
    scheduler.add("a")
    assert scheduler.pop().due_at == NOW + 100.0


def test_what_is_postponed_remembers_when_it_was_first_due(scheduler: TimedScheduler) -> None:
    scheduler.add("a", after_s=10.0)
    scheduler.now_at += 12.0
    work = scheduler.pop()
    assert work.first_due_at == NOW + 10.0
    not_before = NotBefore(scheduler.now_at, scheduler.now_at + 30.0, "write")
    again = ScheduleRequest(
        not_before.retry_at,
        Priority.ROUTINE,
        300.0,
        "failed",
        "kube",
        not_before,
        work.first_due_at,
    )
    scheduler.done("a", again)
    scheduler.add("a")
    scheduler.schedule.wake_blocked("kube", now_at=scheduler.now_at)
    work = scheduler.pop()
    assert (work.due_at, work.first_due_at) == (scheduler.now_at, NOW + 10.0)
    scheduler.done("a", scheduler.next(50.0))
    scheduler.now_at += 50.0
    assert scheduler.pop().first_due_at == scheduler.now_at


def test_remove_forgets_a_key_unless_it_runs(scheduler: TimedScheduler) -> None:
    scheduler.add("waits", after_s=5)
    scheduler.add("ready")
    scheduler.add("runs", priority=Priority.EXPIRING)
    assert scheduler.pop().key == "runs"
    assert scheduler.schedule.remove("waits")
    assert scheduler.schedule.remove("ready")
    assert scheduler.schedule.remove("never seen")
    assert not scheduler.schedule.remove("runs")
    scheduler.done("runs")
    assert (len(scheduler.schedule), scheduler.schedule.next_at()) == (0, None)


def test_work_that_is_put_back_is_what_it_was(scheduler: TimedScheduler) -> None:
    scheduler.add("a", priority=Priority.CHANGED, reason="pod changed")
    scheduler.now_at += 3
    first = scheduler.pop()
    scheduler.add("a", reason="resync")
    scheduler.schedule.put_back("a")
    again = scheduler.pop()
    assert again.reasons == ("pod changed", "resync")
    assert (again.priority, again.due_at, again.ready_at) == (first.priority, NOW, NOW)
    assert scheduler.schedule.running == 1


def test_an_aged_pick_that_is_put_back_keeps_its_turn(scheduler: TimedScheduler) -> None:
    scheduler.add("patient")
    for number in range(20):
        scheduler.add(f"urgent {number}", priority=Priority.EXPIRING)
    for _ in range(STARVATION_INTERVAL - 1):
        scheduler.pop()
    assert scheduler.pop().key == "patient"
    scheduler.schedule.put_back("patient")
    assert scheduler.pop().key == "patient"


@pytest.mark.parametrize("call", ["done", "give_back"])
def test_ending_a_run_that_is_none_is_an_error(scheduler: TimedScheduler, call: str) -> None:
    scheduler.add("ready")
    for key in ("ready", "never seen"):
        with pytest.raises(KeyError):
            scheduler.done(key) if call == "done" else scheduler.schedule.put_back(key)


def test_a_failure_of_an_unknown_key_is_an_error_and_forgetting_it_is_not(
    scheduler: TimedScheduler,
) -> None:
    scheduler.schedule.forget("never seen")
    with pytest.raises(KeyError):
        scheduler.schedule.record_failure("never seen")


@pytest.mark.parametrize(("after_s", "slack_s"), [(math.nan, 1.0), (1.0, math.nan)])
def test_what_is_no_time_is_refused_and_changes_nothing(
    scheduler: TimedScheduler, after_s: float, slack_s: float
) -> None:
    with pytest.raises(ValueError, match="not a time"):
        scheduler.add("a", after_s=after_s, slack_s=slack_s)
    scheduler.add("b")
    scheduler.pop()
    with pytest.raises(ValueError, match="not a time"):
        scheduler.done("b", scheduler.next(after_s, slack_s=slack_s))
    assert (len(scheduler.schedule), scheduler.schedule.running) == (1, 1)


def test_an_endless_deadline_waits_for_an_event(scheduler: TimedScheduler) -> None:
    scheduler.add("static", after_s=math.inf, slack_s=math.inf)
    scheduler.now_at += 1e9
    assert scheduler.idle()
    scheduler.add("static")
    assert scheduler.run_all() == ["static"]


def test_the_figures_show_what_waits_where(scheduler: TimedScheduler) -> None:
    scheduler.add("a", priority=Priority.EXPIRING, slack_s=-4)
    scheduler.pop()
    scheduler.done("a", scheduler.next(300, endpoint="issuer"))
    scheduler.add("b", priority=Priority.CHANGED, slack_s=2)
    scheduler.add("b", priority=Priority.CHANGED, slack_s=2)
    scheduler.add("c", after_s=1)
    scheduler.add("d", after_s=60)
    scheduler.add("e", priority=Priority.EXPIRING)
    assert scheduler.pop().key == "e"
    scheduler.now_at += 5
    stats = scheduler.schedule.stats(scheduler.now_at)
    assert stats.ready[Priority.CHANGED] == stats.ready[Priority.ROUTINE] == 1
    assert stats.waiting[Priority.ROUTINE] == 2
    assert (stats.blocked, stats.running) == ({"issuer": 1}, 1)
    assert (stats.oldest_ready_s, stats.longest_overdue_s) == (5.0, 3.0)
    assert repr(stats) == (
        "<ready 2 (changed 1, routine 1), waiting 2, blocked 1 (issuer 1), running 1, "
        "oldest 5.0 s, overdue 3.0 s>"
    )
    assert repr(scheduler.schedule) == "<Scheduler ready 2, waiting 2, running 1>"


def test_a_hundred_thousand_adds_of_a_thousand_keys_hold_only_a_thousand_entries() -> None:
    schedule: Scheduler[SessionKey] = Scheduler()
    keys = [SessionKey("ns", f"session-{number}") for number in range(1000)]
    for number in range(100_000):
        schedule.add(
            keys[number % 1000],
            ScheduleRequest(Instant(1e6 - number), Priority.ROUTINE, float(-number), "event"),
            now_at=Instant(0),
        )
        if number % 1000 == 0:
            assert schedule.slots <= 2 * len(schedule) + 5 * MIN_STALE_SLOTS
    assert len(schedule) == 1000


def test_runs_without_end_leave_nothing_behind() -> None:
    scheduler = TimedScheduler()
    for number in range(100):
        scheduler.add(f"key {number}")
    for _ in range(5000):
        scheduler.now_at += 1
        work = scheduler.pop()
        scheduler.done(work.key, scheduler.next(50 if work.reasons == ("event",) else 0))
        assert scheduler.schedule.slots <= 2 * 100 + 5 * MIN_STALE_SLOTS


def test_failing_keys_are_counted_until_they_recover_or_leave() -> None:
    schedule: Scheduler[str] = Scheduler()

    def failing() -> int:
        return schedule.stats(Instant(0)).failing

    for key in ("a", "b", "c"):
        schedule.add(
            key, ScheduleRequest(Instant(0), Priority.ROUTINE, 1.0, "r"), now_at=Instant(0)
        )
        schedule.record_failure(key)
        schedule.record_failure(key)
    assert failing() == 3
    schedule.forget("a")
    schedule.forget("a")
    assert failing() == 2
    schedule.remove("b")
    assert failing() == 1
    work = schedule.pop(Instant(0))
    while work is not None and work.key != "c":
        work = schedule.pop(Instant(0))
    assert schedule.entry_info("c") == EntryInfo(
        "running", Instant(0), Priority.ROUTINE, ("r",), "", 2
    )
    schedule.done("c", next=None, now_at=Instant(0))
    assert failing() == 0
    assert schedule.entry_info("c") is None
