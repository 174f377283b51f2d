"""The schedule's claims one by one; the naive model beside this file holds all of them at once."""

import math

import pytest

from reconciler.naming import SessionKey
from reconciler.workqueue.heap import SPARE
from reconciler.workqueue.items import (
    ASKED_S,
    REASONS,
    EntryInfo,
    NotBefore,
    Priority,
    Requeue,
    Trigger,
    WorkItem,
)
from reconciler.workqueue.schedule import STARVATION_INTERVAL, Scheduler

NOW = 1000.0


class Box:
    """A schedule with a clock in hand, so that a test says only what it is about."""

    def __init__(self) -> None:
        self.schedule: Scheduler[str] = Scheduler()
        self.now_at = NOW

    def add(
        self,
        key: str,
        *,
        after_s: float = 0.0,
        band: Priority = Priority.ROUTINE,
        slack_s: float = 300.0,
        reason: str = "event",
        news: Trigger = Trigger.NONE,
        about: str = "write",
    ) -> None:
        self.schedule.add(
            key,
            reason=reason,
            at=self.now_at + after_s,
            band=band,
            slack_s=slack_s,
            now_at=self.now_at,
            news=news,
            about=about,
        )

    def fail(self, key: str, wait_s: float, *, endpoint: str = "") -> None:
        hold = NotBefore(self.now_at, self.now_at + wait_s, "write")
        next = Requeue(hold.until_at, Priority.ROUTINE, 300.0, "failed", endpoint, hold)
        self.done(key, next)

    def take(self) -> WorkItem[str]:
        work = self.schedule.pop(self.now_at)
        assert work is not None
        return work

    def idle(self) -> bool:
        return self.schedule.pop(self.now_at) is None

    def done(self, key: str, next: Requeue | None = None) -> None:
        self.schedule.done(key, next=next, now_at=self.now_at)

    def next(self, after_s: float, *, endpoint: str = "", slack_s: float = 300.0) -> Requeue:
        return Requeue(self.now_at + after_s, Priority.ROUTINE, slack_s, "renewal", endpoint)

    def run_all(self) -> list[str]:
        """Take and finish until nothing is due; return the keys in the order served."""
        keys = []
        while (work := self.schedule.pop(self.now_at)) is not None:
            keys.append(work.key)
            self.done(work.key)
        return keys


@pytest.fixture
def box() -> Box:
    return Box()


def test_a_key_added_many_times_runs_once(box: Box) -> None:
    for _ in range(50):
        box.add("a")
    assert box.run_all() == ["a"]
    assert len(box.schedule) == 0


def test_a_running_key_is_not_handed_out_again(box: Box) -> None:
    box.add("a")
    box.take()
    box.add("a")
    assert box.idle()


def test_any_number_of_adds_during_a_run_are_one_more_run(box: Box) -> None:
    box.add("a")
    box.take()
    for _ in range(50):
        box.add("a", reason="pod changed")
    box.done("a")
    assert box.take().reasons == ("pod changed",)
    box.done("a")
    assert box.idle()


def test_a_dirty_key_runs_again_even_if_the_run_asked_for_a_later_time(box: Box) -> None:
    box.add("a")
    box.take()
    box.add("a", reason="pod changed", band=Priority.CHANGED)
    box.done("a", box.next(200))
    work = box.take()
    assert (work.priority, work.reasons) == (Priority.CHANGED, ("pod changed", "renewal"))


def test_of_two_times_the_earlier_counts(box: Box) -> None:
    box.add("a", after_s=60)
    box.add("a", after_s=30)
    box.add("a", after_s=90)
    assert box.schedule.next_at() == NOW + 30
    box.now_at = NOW + 29.9
    assert box.idle()
    box.now_at = NOW + 30
    assert box.run_all() == ["a"]
    box.now_at = NOW + 1000
    assert box.idle()


def test_entries_come_due_in_the_order_of_time(box: Box) -> None:
    for after_s in (30, 10, 20):
        box.add(f"at {after_s}", after_s=after_s)
    seen = []
    for _ in range(3):
        box.now_at = box.schedule.next_at() or 0.0
        seen += box.run_all()
    assert seen == ["at 10", "at 20", "at 30"]


def test_an_event_absorbs_the_pending_deadline(box: Box) -> None:
    box.add("a", after_s=60)
    box.add("a")
    assert box.run_all() == ["a"]
    assert box.schedule.next_at() is None


def test_the_next_deadline_may_be_later_than_any_before(box: Box) -> None:
    box.add("a", after_s=10)
    box.add("a")
    box.take()
    box.done("a", box.next(500))
    assert box.schedule.next_at() == NOW + 500
    box.now_at = NOW + 499
    assert box.idle()
    box.now_at = NOW + 500
    assert box.take().due_at == NOW + 500


def test_a_waiting_head_of_line_holds_up_nobody(box: Box) -> None:
    box.add("running")
    box.take()
    box.add("running")
    box.add("waits", after_s=5)
    box.add("free")
    assert box.run_all() == ["free"]


def test_bands_come_in_order_and_slack_decides_inside_a_band(box: Box) -> None:
    box.add("routine", band=Priority.ROUTINE, slack_s=1)
    box.add("startup", band=Priority.STARTUP, slack_s=500)
    box.add("changed, calm", band=Priority.CHANGED, slack_s=400)
    box.add("changed, tight", band=Priority.CHANGED, slack_s=40)
    box.add("expiring", band=Priority.EXPIRING, slack_s=-5)
    assert box.run_all() == ["expiring", "changed, tight", "changed, calm", "startup", "routine"]


def test_slack_shrinks_alike_for_what_was_added_early_and_late(box: Box) -> None:
    box.add("early", slack_s=100)
    box.now_at += 60
    box.add("late", slack_s=50)
    assert box.run_all() == ["early", "late"]


def test_an_entry_whose_slack_ran_out_while_it_waited_is_served_as_expiring(box: Box) -> None:
    box.add("routine", band=Priority.ROUTINE, slack_s=30)
    box.now_at += 31
    box.add("changed", band=Priority.CHANGED, slack_s=300)
    work = box.take()
    assert (work.key, work.priority) == ("routine", Priority.EXPIRING)


def test_a_waiting_urgent_entry_that_becomes_due_passes_a_ready_one_of_a_lower_band(
    box: Box,
) -> None:
    box.add("low")
    box.add("high", after_s=1, band=Priority.CHANGED)
    box.now_at += 1
    assert box.run_all() == ["high", "low"]


def test_a_merge_keeps_the_most_urgent_band_and_slack(box: Box) -> None:
    box.add("other", band=Priority.CHANGED, slack_s=20)
    box.add("a", band=Priority.ROUTINE, slack_s=10)
    box.add("a", band=Priority.CHANGED, slack_s=200)
    box.add("a", band=Priority.STARTUP, slack_s=100)
    work = box.take()
    assert (work.key, work.priority) == ("a", Priority.CHANGED)


def test_reasons_are_named_once_in_their_order_and_are_bounded(box: Box) -> None:
    for number in (*range(REASONS + 5), 0):
        box.add("a", reason=f"reason {number}")
    assert box.take().reasons == tuple(f"reason {number}" for number in range(REASONS))


def test_equal_urgency_is_served_first_come_first_served(box: Box) -> None:
    keys = [f"key {number}" for number in range(20)]
    for key in keys:
        box.add(key)
    assert box.run_all() == keys


def test_every_eighth_pick_goes_to_the_longest_ready(box: Box) -> None:
    box.add("patient", band=Priority.ROUTINE)
    box.now_at += 1
    for number in range(20):
        box.add(f"urgent {number}", band=Priority.EXPIRING)
    assert box.run_all().index("patient") == STARVATION_INTERVAL - 1
    assert box.schedule.stats(box.now_at).aged_total == 2


def test_age_counts_from_the_due_time_and_not_from_when_it_was_looked_at(box: Box) -> None:
    box.add("due first", after_s=1)
    box.now_at += 5
    for number in range(20):
        box.add(f"urgent {number}", band=Priority.EXPIRING)
    assert box.schedule.stats(box.now_at).oldest_ready_s == 4.0
    assert box.run_all().index("due first") == STARVATION_INTERVAL - 1


def test_a_flood_of_urgent_keys_starves_no_band(box: Box) -> None:
    """The bound of the docstring, under a new urgent key before each single pick."""
    for number in range(10):
        box.add(f"startup {number}", band=Priority.STARTUP)
    picks: dict[str, int] = {}
    for pick in range(1, STARVATION_INTERVAL * 10 + 1):
        box.now_at += 0.01
        box.add(f"urgent {pick}", band=Priority.EXPIRING, slack_s=-9)
        key = box.take().key
        box.done(key)
        picks[key] = pick
    for number in range(10):
        assert picks[f"startup {number}"] <= STARVATION_INTERVAL * (number + 1)


def test_done_without_next_forgets_the_key_and_its_failures(box: Box) -> None:
    box.add("a")
    box.take()
    assert [box.schedule.record_failure("a"), box.schedule.record_failure("a")] == [1, 2]
    box.done("a")
    box.add("a")
    assert box.take().attempt == 1


def test_failures_count_up_over_runs_until_they_are_forgiven(box: Box) -> None:
    box.add("a")
    attempts = []
    for _ in range(3):
        attempts.append(box.take().attempt)
        box.schedule.record_failure("a")
        box.done("a", box.next(0))
    box.schedule.forget("a")
    attempts.append(box.take().attempt)
    assert attempts == [1, 2, 3, 1]


def test_a_gated_entry_waits_until_the_gate_opens(box: Box) -> None:
    box.add("a")
    box.take()
    box.done("a", box.next(300, endpoint="issuer"))
    assert box.schedule.wake_blocked("kube", now_at=box.now_at) == 0
    assert box.idle()
    box.now_at += 20
    assert box.schedule.wake_blocked("issuer", now_at=box.now_at) == 1
    work = box.take()
    assert (work.due_at, work.ready_at) == (NOW + 20, NOW + 20)
    box.done("a")
    assert box.schedule.wake_blocked("issuer", now_at=box.now_at) == 0


def test_a_gate_that_never_opens_costs_no_more_than_the_fallback(box: Box) -> None:
    box.add("a")
    box.take()
    box.done("a", box.next(300, endpoint="issuer"))
    box.now_at += 300
    assert box.take().key == "a"
    assert box.schedule.stats(box.now_at).blocked == {"issuer": 0}


def test_an_opening_gate_releases_the_most_urgent_first(box: Box) -> None:
    slacks = {"calm": 900.0, "tight": 90.0, "dying": 9.0}
    for key, slack_s in slacks.items():
        box.add(key)
        box.take()
        box.done(key, box.next(300, endpoint="issuer", slack_s=slack_s))
    box.schedule.wake_blocked("issuer", now_at=box.now_at)
    assert box.run_all() == ["dying", "tight", "calm"]


def test_a_gate_that_opens_during_a_run_is_not_missed(box: Box) -> None:
    box.add("a")
    box.take()
    box.schedule.wake_blocked("issuer", now_at=box.now_at)
    box.done("a", box.next(300, endpoint="issuer"))
    box.take()
    box.done("a", box.next(300, endpoint="issuer"))
    assert box.idle(), "an opening before the run began says nothing about its failure"


def test_a_key_made_dirty_for_later_still_waits_at_its_gate(box: Box) -> None:
    box.add("a")
    box.take()
    box.add("a", after_s=50)
    box.done("a", box.next(300, endpoint="issuer"))
    assert box.schedule.next_at() == NOW + 50
    assert box.schedule.wake_blocked("issuer", now_at=box.now_at) == 1
    assert box.run_all() == ["a"]


def test_an_event_runs_a_gated_key_at_once(box: Box) -> None:
    box.add("a")
    box.take()
    box.done("a", box.next(300, endpoint="issuer"))
    box.add("a", reason="pod changed")
    assert box.run_all() == ["a"]


@pytest.mark.parametrize("dirty", [False, True], ids=["waiting", "running"])
@pytest.mark.parametrize(
    ("news", "about", "wait_s"),
    [
        (Trigger.NONE, "write", 100.0),
        (Trigger.CHANGED, "write", 10.0),
        (Trigger.REQUESTED, "write", ASKED_S),
        (Trigger.NONE, "platform", 0.0),
    ],
    ids=["event", "changed", "asked", "something else"],
)
def test_after_a_failure_a_key_is_held_as_long_as_its_news_allows(
    box: Box, news: Trigger, about: str, wait_s: float, dirty: bool
) -> None:
    box.add("a")
    box.take()
    if dirty:
        box.add("a", news=news, about=about)
    box.fail("a", 100.0)
    for _ in range(3):  # repeated news shorten nothing further
        box.add("a")
        box.add("a", news=news, about=about)
    look = box.schedule.look("a")
    assert look is not None
    assert look.at == NOW + wait_s
    box.now_at = NOW + wait_s
    assert box.take().key == "a"
    box.done("a", box.next(50.0))
    box.add("a")  # what did not fail again is held by nothing
    assert box.take().key == "a"


def test_an_opening_gate_ends_a_hold(box: Box) -> None:
    box.add("a")
    box.take()
    box.fail("a", 100.0, endpoint="kube")
    box.add("a")
    assert box.idle()
    box.schedule.wake_blocked("kube", now_at=box.now_at)
    assert box.take().key == "a"


def test_a_hold_is_kept_by_work_that_is_given_back(box: Box) -> None:
    box.add("a")
    box.take()
    box.fail("a", 100.0)
    box.now_at += 100.0
    box.take()
    box.schedule.put_back("a")
    box.add("a")
    assert box.take().due_at == NOW + 100.0


def test_what_is_put_off_remembers_when_it_was_first_due(box: Box) -> None:
    box.add("a", after_s=10.0)
    box.now_at += 12.0
    work = box.take()
    assert work.since_at == NOW + 10.0
    hold = NotBefore(box.now_at, box.now_at + 30.0, "write")
    again = Requeue(hold.until_at, Priority.ROUTINE, 300.0, "failed", "kube", hold, work.since_at)
    box.done("a", again)
    box.add("a")
    box.schedule.wake_blocked("kube", now_at=box.now_at)
    work = box.take()
    assert (work.due_at, work.since_at) == (box.now_at, NOW + 10.0)
    box.done("a", box.next(50.0))
    box.now_at += 50.0
    assert box.take().since_at == box.now_at


def test_remove_forgets_a_key_unless_it_runs(box: Box) -> None:
    box.add("waits", after_s=5)
    box.add("ready")
    box.add("runs", band=Priority.EXPIRING)
    assert box.take().key == "runs"
    assert box.schedule.remove("waits")
    assert box.schedule.remove("ready")
    assert box.schedule.remove("never seen")
    assert not box.schedule.remove("runs")
    box.done("runs")
    assert (len(box.schedule), box.schedule.next_at()) == (0, None)


def test_work_that_is_given_back_is_what_it_was(box: Box) -> None:
    box.add("a", band=Priority.CHANGED, reason="pod changed")
    box.now_at += 3
    first = box.take()
    box.add("a", reason="resync")
    box.schedule.put_back("a")
    again = box.take()
    assert again.reasons == ("pod changed", "resync")
    assert (again.priority, again.due_at, again.ready_at) == (first.priority, NOW, NOW)
    assert box.schedule.running == 1


def test_an_aged_pick_that_is_given_back_keeps_its_turn(box: Box) -> None:
    box.add("patient")
    for number in range(20):
        box.add(f"urgent {number}", band=Priority.EXPIRING)
    for _ in range(STARVATION_INTERVAL - 1):
        box.take()
    assert box.take().key == "patient"
    box.schedule.put_back("patient")
    assert box.take().key == "patient"


@pytest.mark.parametrize("call", ["done", "give_back"])
def test_ending_a_run_that_is_none_is_an_error(box: Box, call: str) -> None:
    box.add("ready")
    for key in ("ready", "never seen"):
        with pytest.raises(KeyError):
            box.done(key) if call == "done" else box.schedule.put_back(key)


def test_a_failure_of_an_unknown_key_is_an_error_and_forgiving_it_is_not(box: Box) -> None:
    box.schedule.forget("never seen")
    with pytest.raises(KeyError):
        box.schedule.record_failure("never seen")


@pytest.mark.parametrize(("after_s", "slack_s"), [(math.nan, 1.0), (1.0, math.nan)])
def test_what_is_no_time_is_refused_and_changes_nothing(
    box: Box, after_s: float, slack_s: float
) -> None:
    with pytest.raises(ValueError, match="not a time"):
        box.add("a", after_s=after_s, slack_s=slack_s)
    box.add("b")
    box.take()
    with pytest.raises(ValueError, match="not a time"):
        box.done("b", box.next(after_s, slack_s=slack_s))
    assert (len(box.schedule), box.schedule.running) == (1, 1)


def test_an_endless_deadline_waits_for_an_event(box: Box) -> None:
    box.add("static", after_s=math.inf, slack_s=math.inf)
    box.now_at += 1e9
    assert box.idle()
    box.add("static")
    assert box.run_all() == ["static"]


def test_the_figures_tell_what_waits_where(box: Box) -> None:
    box.add("a", band=Priority.EXPIRING, slack_s=-4)
    box.take()
    box.done("a", box.next(300, endpoint="issuer"))
    box.add("b", band=Priority.CHANGED, slack_s=2)
    box.add("b", band=Priority.CHANGED, slack_s=2)
    box.add("c", after_s=1)
    box.add("d", after_s=60)
    box.add("e", band=Priority.EXPIRING)
    assert box.take().key == "e"
    box.now_at += 5
    stats = box.schedule.stats(box.now_at)
    assert stats.ready[Priority.CHANGED] == stats.ready[Priority.ROUTINE] == 1
    assert stats.waiting[Priority.ROUTINE] == 2
    assert (stats.blocked, stats.running) == ({"issuer": 1}, 1)
    assert (stats.adds_total, stats.dedups_total) == (6, 1)
    assert (stats.takes_total, stats.aged_total) == (2, 0)
    assert (stats.oldest_ready_s, stats.longest_overdue_s) == (5.0, 3.0)
    assert repr(stats) == (
        "<ready 2 (changed 1, routine 1), waiting 2, blocked 1 (issuer 1), running 1, "
        "oldest 5.0 s, overdue 3.0 s>"
    )
    assert repr(box.schedule) == "<Schedule ready 2, waiting 2, running 1>"


def test_a_hundred_thousand_adds_of_a_thousand_keys_hold_only_a_thousand_entries() -> None:
    schedule: Scheduler[SessionKey] = Scheduler()
    keys = [SessionKey("ns", f"session-{number}") for number in range(1000)]
    for number in range(100_000):
        schedule.add(
            keys[number % 1000],
            reason="event",
            at=1e6 - number,
            band=Priority.ROUTINE,
            slack_s=float(-number),
            now_at=0.0,
        )
        if number % 1000 == 0:
            assert schedule.slots <= 2 * len(schedule) + 5 * SPARE
    assert (len(schedule), schedule.stats(0.0).dedups_total) == (1000, 99_000)


def test_runs_without_end_leave_nothing_behind() -> None:
    box = Box()
    for number in range(100):
        box.add(f"key {number}")
    for _ in range(5000):
        box.now_at += 1
        work = box.take()
        box.done(work.key, box.next(50 if work.reasons == ("event",) else 0))
        assert box.schedule.slots <= 2 * 100 + 5 * SPARE


def test_failing_keys_are_counted_until_they_recover_or_leave() -> None:
    schedule: Scheduler[str] = Scheduler()

    def failing() -> int:
        return schedule.stats(0.0).failing

    for key in ("a", "b", "c"):
        schedule.add(key, reason="r", at=0.0, band=Priority.ROUTINE, slack_s=1.0, now_at=0.0)
        schedule.record_failure(key)
        schedule.record_failure(key)
    assert failing() == 3
    schedule.forget("a")
    schedule.forget("a")
    assert failing() == 2
    schedule.remove("b")
    assert failing() == 1
    work = schedule.pop(0.0)
    while work is not None and work.key != "c":
        work = schedule.pop(0.0)
    assert schedule.look("c") == EntryInfo("running", 0.0, Priority.ROUTINE, ("r",), "", 2)
    schedule.done("c", next=None, now_at=0.0)
    assert failing() == 0
    assert schedule.look("c") is None
