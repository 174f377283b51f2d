import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest
from structlog.testing import capture_logs

from reconciler.clock import Instant
from reconciler.errors import (
    AuthorizerNotReady,
    Forbidden,
    Gone,
    ProtocolError,
    ResourceVersionTooLarge,
    ServerError,
    TooManyRequests,
    TransportError,
)
from reconciler.informer.consistency import RESTARTED_S
from reconciler.informer.reflector import ObjectHandlers, Reflector
from reconciler.informer.store import Change, Store
from reconciler.kube.api import ListOptions, ObjectMeta
from reconciler.kube.decoding import metadata_resource
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.naming import Names
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.time_slice import MAX_ITEMS
from tests.unit.informer.fake_kube import (
    SILENT,
    Call,
    FakeKube,
    ListAnswer,
    Stream,
    Wait,
    WatchAnswer,
)
from tests.unit.informer.objects import added, bookmark, event, meta, page, skipped

UNREACHABLE = TransportError("list pods: refused")


@dataclass
class Rig:
    """A reflector on virtual time with a scripted server, and all calls of its handlers."""

    kube: FakeKube
    namespace: str | None = None
    store: Store = field(default_factory=lambda: Store("pods"))
    changes: list[Change] = field(default_factory=list)
    seen: list[ObjectMeta] = field(default_factory=list)
    on_change: Callable[[Change], None] | None = None
    breaker: CircuitBreaker = field(init=False)
    reflector: Reflector = field(init=False)

    def hear(self, change: Change) -> None:
        self.changes.append(change)
        if self.on_change is not None:
            self.on_change(change)

    async def play(self, seconds: float, meanwhile: Awaitable[object] | None = None) -> None:
        """Run for so many virtual seconds; `meanwhile` runs at that time and must end before."""
        clock = VirtualClock(asyncio.get_running_loop())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                group.create_task(self.reflector.run())
                if meanwhile is not None:
                    await meanwhile
        assert clock.monotonic() >= Instant(seconds)
        assert self.kube.open_watches == 0

    def build(self) -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        self.breaker = CircuitBreaker("kube", clock, Random(1))
        self.reflector = Reflector(
            self.kube,
            metadata_resource("pods", Names()),
            ListOptions(self.namespace),
            self.store,
            clock,
            Random(7),
            self.breaker,
            ObjectHandlers(self.hear, self.seen.append),
        )


def play(
    seconds: float,
    lists: Sequence[ListAnswer],
    watches: Sequence[WatchAnswer] = (Stream([SILENT]),),
    *,
    meanwhile: Callable[[Rig], Awaitable[object]] | None = None,
    rig: Rig | None = None,
) -> Rig:
    """Play a script to its end on virtual time and return what came of it."""
    rig = rig or Rig(FakeKube(list(lists), list(watches)))

    async def main() -> None:
        rig.build()
        await rig.play(seconds, meanwhile(rig) if meanwhile else None)

    run_virtual(main())
    return rig


def test_it_lists_page_by_page_then_watches_and_replaces_only_once_complete() -> None:
    rig = play(
        5.0,
        [page(10, meta("a"), continue_token="t"), Wait(1.0), page(10, meta("b"))],
        [Stream([added("c", 11), SILENT])],
    )
    assert rig.kube.verbs() == [("list", ""), ("list", ""), ("watch", "10")]
    assert [asked.limit for asked in rig.kube.asked] == [50, 500, 0]
    assert [asked.continue_token for asked in rig.kube.asked[:2]] == ["", "t"]
    assert [item.name for item in rig.store.snapshot()] == ["a", "b", "c"]
    assert [change.new and change.new.name for change in rig.changes] == ["a", "b", "c"]


def test_synced_means_a_complete_list_is_in_the_store_even_an_empty_one() -> None:
    async def wait(rig: Rig) -> None:
        assert not rig.reflector.stats().synced
        await rig.reflector.wait_initialized()
        assert rig.reflector.stats().synced
        assert rig.store.synced(None)
        assert asyncio.get_running_loop().time() == pytest.approx(3.0)

    assert play(5.0, [Wait(3.0), page(10)], meanwhile=wait).reflector.stats().synced


def test_a_deletion_in_a_gap_is_notified_by_the_relist() -> None:
    gone = meta("gone", 3)
    rig = play(
        10.0, [page(10, gone), page(20)], [Stream([Gone("410", status=410)]), Stream([SILENT])]
    )
    assert rig.changes == [Change(None, gone), Change(gone, None)]
    assert rig.kube.verbs()[:4] == [("list", ""), ("watch", "10"), ("list", ""), ("watch", "20")]


def test_what_came_with_the_last_event_before_a_relist_without_it_does_not_stay() -> None:
    short = meta("short", 11)
    rig = play(
        10.0,
        [page(10), page(20)],
        [Stream([added("short", 11), Gone("410", status=410)]), Stream([SILENT])],
    )
    assert rig.changes == [Change(None, short), Change(short, None)]
    assert len(rig.store) == 0


def test_the_unsafe_deletion_of_an_unreadable_object_is_notified_by_the_relist() -> None:
    unreadable, other = meta("unreadable", 3), meta("other", 4)
    error = ServerError("500 event", status=500, reason="StorageReadError")
    rig = play(
        10.0,
        [page(10, unreadable, other), page(20, other)],
        [Stream([error]), Stream([SILENT])],
    )
    assert rig.changes[2:] == [Change(unreadable, None)]
    assert rig.kube.verbs()[:4] == [("list", ""), ("watch", "10"), ("list", ""), ("watch", "20")]


@pytest.mark.parametrize(
    "answer", [Gone("410", status=410), Stream([Gone("410")])], ids=["status", "event"]
)
def test_a_410_means_the_same_as_a_status_and_as_an_event(answer: WatchAnswer) -> None:
    rig = play(10.0, [page(10), page(20)], [answer, Stream([SILENT])])
    assert rig.kube.verbs() == [("list", ""), ("watch", "10"), ("list", ""), ("watch", "20")]
    assert [asked.limit for asked in rig.kube.asked if asked.verb == "list"] == [50, 500]


def test_an_expired_continue_token_costs_one_more_paged_list() -> None:
    rig = play(5.0, [page(10, meta("a"), continue_token="t"), Gone("expired"), page(12, meta("b"))])
    assert [(a.limit, a.continue_token) for a in rig.kube.asked[:3]] == [
        (50, ""),
        (500, "t"),
        (500, ""),
    ]
    assert [item.name for item in rig.store.snapshot()] == ["b"]


@pytest.mark.parametrize("error", [ResourceVersionTooLarge("504"), Gone("410")])
def test_a_server_that_refuses_its_newest_list_is_asked_again(
    error: ResourceVersionTooLarge | Gone,
) -> None:
    rig = play(5.0, [page(10), error, page(5, meta("a", 4))], [Gone("410"), Stream([SILENT])])
    assert rig.kube.verbs() == [
        ("list", ""),
        ("watch", "10"),
        ("list", ""),
        ("list", ""),
        ("watch", "5"),
    ]
    assert rig.kube.asked[3].at > rig.kube.asked[2].at  # a back-off: a newest list has no way out


def test_a_server_that_closes_at_once_for_ever_gets_few_requests() -> None:
    rig = play(600.0, [page(10)], [Stream()])
    assert len(rig.kube.asked) < 600 / 8
    assert {verb for verb, _ in rig.kube.verbs()} == {"list", "watch"}
    watches = [verb for verb, _ in rig.kube.verbs()].count("watch")
    assert rig.reflector.stats().protocol.relists == (watches - 1) // 3


def test_a_server_that_knows_none_of_its_own_versions_gets_few_requests() -> None:
    rig = play(600.0, [page(10)], [ResourceVersionTooLarge("504", status=504)])
    assert len(rig.kube.asked) < 600 / 5  # a list and a watch for each wait
    assert {verb for verb, _ in rig.kube.verbs()} == {"list", "watch"}


def test_a_server_that_sends_one_bookmark_and_closes_is_no_hot_loop() -> None:
    rig = play(60.0, [page(10)], [Stream([bookmark(11)])])
    assert len(rig.kube.asked) < 80


@pytest.mark.parametrize(
    "failure", [UNREACHABLE, ServerError("503", status=503), ProtocolError("garbage")]
)
def test_a_list_that_always_fails_gets_few_requests(failure: TransportError) -> None:
    rig = play(600.0, [failure])
    assert len(rig.kube.asked) < 600 / 8


@pytest.mark.parametrize(
    ("act", "version"),
    [
        (TransportError("ended in the middle of a line"), "11"),
        (ProtocolError("a watch line is not a watch event"), "11"),
        (ServerError("ERROR event", status=500), "11"),
        (TooManyRequests("429 event", status=429), "11"),
    ],
    ids=["half line", "garbage", "500 event", "429 event"],
)
def test_a_broken_stream_is_resumed_after_its_last_good_event(
    act: TransportError, version: str
) -> None:
    rig = play(5.0, [page(10)], [Stream([added("a", 11), act]), Stream([added("b", 12), SILENT])])
    assert rig.kube.verbs() == [("list", ""), ("watch", "10"), ("watch", version)]
    assert Instant(0.8) <= rig.kube.asked[2].at <= Instant(1.6)
    assert len(rig.store) == 2


def test_a_line_that_stays_unreadable_is_passed_by_a_relist() -> None:
    poison = Stream([ProtocolError("garbage")])
    rig = play(30.0, [page(10), page(20)], [poison, poison, poison, Stream([SILENT])])
    assert rig.kube.verbs() == [
        ("list", ""),
        *[("watch", "10")] * 3,
        ("list", ""),
        ("watch", "20"),
    ]


def test_five_429s_cost_five_watches_and_one_list() -> None:
    throttled = TooManyRequests("429", status=429, retry_after_s=1.0)
    rig = play(120.0, [page(10)], [throttled] * 4 + [Stream([throttled]), Stream([SILENT])])
    assert rig.kube.verbs() == [("list", "")] + [("watch", "10")] * 6


def test_a_relist_does_not_cut_short_what_the_server_asked_for() -> None:
    async def relist(rig: Rig) -> None:
        await asyncio.sleep(1.0)
        await rig.reflector.relist()
        assert asyncio.get_running_loop().time() == pytest.approx(20.0)

    throttled = TooManyRequests("429", status=429, retry_after_s=20.0)
    play(60.0, [page(10)], [throttled, Stream([SILENT])], meanwhile=relist)


def test_unknown_events_move_the_version() -> None:
    rig = play(300.0, [page(10)], [Stream([skipped(12), Wait(200.0)]), Stream([SILENT])])
    assert rig.kube.verbs()[1:] == [("watch", "10"), ("watch", "12")]
    assert rig.reflector.stats().protocol.skipped == 1


class TestSilence:
    def test_a_silent_peer_is_left_after_the_servers_own_limit(self) -> None:
        rig = play(330.0, [page(10)], [Stream([SILENT])])
        first, second = [asked for asked in rig.kube.asked if asked.verb == "watch"]
        assert second.version == "10"
        assert 5.8 <= second.at - first.at - first.timeout_s <= 6.6

    def test_a_bookmark_arms_the_shorter_watchdog_and_each_one_resets_it(self) -> None:
        rig = play(
            220.0,
            [page(10)],
            [
                Stream([Wait(60.0), bookmark(20), Wait(60.0), bookmark(30), SILENT]),
                Stream([SILENT]),
            ],
        )
        watches = [asked for asked in rig.kube.asked if asked.verb == "watch"]
        assert [asked.version for asked in watches] == ["10", "30"]
        assert Instant(195.8) <= watches[1].at <= Instant(196.6)

    def test_a_watch_that_never_begins_is_given_up(self) -> None:
        rig = play(60.0, [page(10)], [SILENT, Stream([SILENT])])
        assert [asked.version for asked in rig.kube.asked] == ["", "10", "10"]
        assert Instant(20.8) <= rig.kube.asked[2].at <= Instant(21.6)

    def test_a_server_that_never_ends_a_watch_is_left_in_the_end(self) -> None:
        chatter = [act for n in range(60) for act in (bookmark(11 + n), Wait(10.0))]
        rig = play(400.0, [page(10)], [Stream(chatter), Stream([SILENT])])
        watches = [asked for asked in rig.kube.asked if asked.verb == "watch"]
        assert watches[1].at == pytest.approx(watches[0].timeout_s + 30)

    def test_stats_say_for_how_long_nothing_was_heard(self) -> None:
        async def look(rig: Rig) -> None:
            assert rig.reflector.stats().silent_s is None
            await asyncio.sleep(50.0)
            assert rig.reflector.stats().silent_s == pytest.approx(50.0)

        play(60.0, [page(10)], meanwhile=look)


class TestOutages:
    def test_waits_keep_their_length_in_an_outage_of_an_hour(self) -> None:
        rig = play(3600.0, [page(10)], [UNREACHABLE])
        times = [asked.at for asked in rig.kube.asked if asked.verb == "watch"]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert [0.8 * 2**n <= gap <= 1.6 * 2**n for n, gap in enumerate(gaps[:4])] == [True] * 4
        assert all(8.0 <= gap <= 16.0 for gap in gaps[4:])

    def test_a_list_now_and_then_does_not_reset_the_waits(self) -> None:
        rig = play(3600.0, [page(10)], [Gone("410", status=410)])
        assert len(rig.kube.asked) < 2 * 3600 / 8

    def test_two_healthy_minutes_make_the_next_wait_short_again(self) -> None:
        alive = [act for n in range(3) for act in (Wait(60.0), bookmark(11 + n))]
        first = Stream([Wait(RESTARTED_S[1])])  # a list follows it, as nothing was reachable before
        streams = (first, Stream([*alive, UNREACHABLE]), Stream([SILENT]))
        rig = play(460.0, [page(10)], [*[UNREACHABLE] * 5, *streams])
        watches = [asked.at for asked in rig.kube.asked if asked.verb == "watch"]
        assert 0.8 <= watches[7] - watches[6] - 180.0 <= 1.6

    def test_recovery_seen_by_others_wakes_it_at_once(self) -> None:
        async def recover(rig: Rig) -> None:
            await asyncio.sleep(300.0)
            assert rig.breaker.is_open
            asked = len(rig.kube.asked)
            rig.kube.watches[:] = [Stream([SILENT])]
            rig.breaker.succeeded()
            await asyncio.sleep(0.01)
            assert len(rig.kube.asked) == asked + 1

        rig = play(310.0, [page(10)], [UNREACHABLE], meanwhile=recover)
        assert rig.kube.verbs()[-1] == ("watch", "10")

    def test_recovery_during_a_request_that_hangs_shortens_the_wait_after_it(self) -> None:
        async def recover(rig: Rig) -> None:
            while len(rig.kube.asked) < 4:
                await asyncio.sleep(1.0)
            assert rig.breaker.is_open
            rig.breaker.succeeded()

        rig = play(400.0, [Wait(1e9)], meanwhile=recover)
        gaps = [later.at - earlier.at for earlier, later in pairwise(rig.kube.asked)]
        assert gaps[3] == pytest.approx(60.0)
        assert all(gap > 60.8 for gap in gaps[:3] + gaps[4:])

    def test_it_tells_the_breaker_of_failures_and_answers(self) -> None:
        rig = play(30.0, [UNREACHABLE, UNREACHABLE, UNREACHABLE, page(10)])
        assert not rig.breaker.is_open
        assert rig.breaker.stats().outages_total == 1

    def test_a_server_that_answers_500_counts_as_unreachable_but_not_an_error_in_a_stream(
        self,
    ) -> None:
        failing = ServerError("500", status=500)
        assert play(30.0, [failing]).breaker.is_open
        assert not play(30.0, [page(10)], [Stream([failing])]).breaker.is_open

    def test_a_refusal_is_an_answer(self) -> None:
        rig = play(600.0, [Forbidden("403", status=403)])
        assert rig.breaker.stats().outages_total == 0

    def test_rights_that_are_granted_later_are_noticed_and_reported_once(self) -> None:
        denied = Forbidden("list pods: 403", status=403)
        with capture_logs() as logs:
            rig = play(240.0, [denied, denied, denied, page(10, meta("a"))])
        assert len(rig.store) == 1
        gaps = [b.at - a.at for a, b in zip(rig.kube.asked[:3], rig.kube.asked[1:4], strict=True)]
        assert all(30.0 <= gap <= 60.0 for gap in gaps)
        names = [entry["event"] for entry in logs]
        assert names == ["list_forbidden", "list_recovered", "listed"]

    def test_an_outage_is_logged_when_it_begins_and_when_it_ends(self) -> None:
        with capture_logs() as logs:
            play(700.0, [page(10)], [UNREACHABLE] * 12 + [Stream([bookmark(11), SILENT])])
        names = [entry["event"] for entry in logs]
        assert names[:3] == ["listed", "watch_restarted", "watch_recovered"]
        assert names.count("watch_restarted") == 1
        levels = {entry["event"]: entry["log_level"] for entry in logs}
        assert (levels["watch_restarted"], levels["watch_recovered"]) == ("warning", "info")


class TestRefusal:
    DENIED = Forbidden("list pods: 403", status=403)

    def test_a_nudge_asks_again_at_once(self) -> None:
        async def nudge(rig: Rig) -> None:
            await rig.reflector.wait_initialized()
            assert rig.reflector.is_forbidden
            rig.reflector.retry_now()
            async with asyncio.timeout(1):
                while not rig.reflector.stats().synced:
                    await asyncio.sleep(0.01)
            assert not rig.reflector.is_forbidden

        play(20.0, [self.DENIED, page(10)], meanwhile=nudge)

    def test_a_hushed_one_tells_it_only_who_wants_every_detail(self) -> None:
        async def hush(rig: Rig) -> None:
            rig.reflector.mute(on=True)

        with capture_logs() as logs:
            play(20.0, [self.DENIED], meanwhile=hush)
        assert [line["log_level"] for line in logs if line["event"] == "list_forbidden"] == [
            "debug"
        ]

    def test_it_is_an_answer_and_no_silence(self) -> None:
        rig = play(600.0, [self.DENIED])
        silent_s = rig.reflector.stats().silent_s
        assert silent_s is not None
        assert silent_s < 65


class TestRelist:
    def test_it_cuts_an_open_watch_and_ends_with_a_consistent_list_in_the_store(self) -> None:
        async def relist(rig: Rig) -> None:
            await asyncio.sleep(5.0)
            await rig.reflector.relist()
            assert asyncio.get_running_loop().time() == pytest.approx(7.0)
            assert [item.name for item in rig.store.snapshot()] == ["b"]

        rig = play(20.0, [page(10), Wait(2.0), page(20, meta("b", 15))], meanwhile=relist)
        assert rig.kube.verbs() == [("list", ""), ("watch", "10"), ("list", ""), ("watch", "20")]
        assert rig.kube.asked[2].at == pytest.approx(5.0)

    def test_it_cuts_a_back_off_short(self) -> None:
        async def relist(rig: Rig) -> None:
            await asyncio.sleep(300.0)
            rig.kube.lists[:] = [page(20)]
            await rig.reflector.relist()
            assert asyncio.get_running_loop().time() == pytest.approx(300.0)

        play(310.0, [UNREACHABLE], meanwhile=relist)

    def test_a_list_that_began_before_the_call_does_not_count(self) -> None:
        async def relist(rig: Rig) -> None:
            await asyncio.sleep(1.0)
            await rig.reflector.relist()
            assert [item.name for item in rig.store.snapshot()] == ["new"]

        play(10.0, [Wait(2.0), page(10, meta("old")), page(20, meta("new"))], meanwhile=relist)

    def test_callers_at_the_same_moment_share_one_list(self) -> None:
        async def relist(rig: Rig) -> None:
            await asyncio.sleep(1.0)
            await asyncio.gather(*(rig.reflector.relist() for _ in range(5)))

        rig = play(10.0, [page(10), page(20)], meanwhile=relist)
        assert rig.reflector.stats().protocol.lists == 2

    def test_it_waits_through_an_outage_and_a_caller_may_give_up(self) -> None:
        async def relist(rig: Rig) -> None:
            await asyncio.sleep(1.0)
            rig.kube.lists[:] = [UNREACHABLE, UNREACHABLE, page(20, meta("b"))]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await rig.reflector.relist()
            await rig.reflector.relist()
            assert len(rig.store) == 1

        play(60.0, [page(10)], meanwhile=relist)


class TestCallbacks:
    def test_what_came_back_is_reported_even_if_the_answer_was_known(self) -> None:
        rig = Rig(FakeKube([page(10, meta("a", 5))]))
        accept = Call(lambda: rig.store.apply_write_response(meta("a", 12)))
        gone = event("DELETED", meta("b", 13))
        rig.kube.watches = [Stream([accept, event("MODIFIED", meta("a", 12)), gone, SILENT])]
        play(5.0, [], rig=rig)
        assert rig.seen == [meta("a", 12), meta("b", 13)]
        assert rig.changes == [Change(None, meta("a", 5))]

    def test_a_crash_costs_its_own_call_is_counted_and_logged_once_a_minute(self) -> None:
        def crash(change: Change) -> None:
            raise ValueError("a defect")

        items = [meta(f"p{n}", n + 1) for n in range(50)]
        rig = Rig(FakeKube([page(100, *items)]), on_change=crash)
        rig.kube.watches = [Stream([added("a", 101), Wait(61.0), added("b", 102), SILENT])]
        with capture_logs() as logs:
            play(100.0, [], rig=rig)
        assert len(rig.store) == len(rig.changes) == 52
        assert rig.reflector.stats().callback_crashes == 52
        crashes = [entry for entry in logs if entry["event"] == "callback_crashed"]
        assert [entry["crashes"] for entry in crashes] == [1, 52]

    def test_a_burst_leaves_room_for_other_tasks(self) -> None:
        turns = [0]

        async def count(rig: Rig) -> None:
            await rig.reflector.wait_initialized()
            while turns[-1] < 1000:
                turns.append(len(rig.store))
                await asyncio.sleep(0)

        burst = [added(f"p{n}", 11 + n) for n in range(1000)]
        play(5.0, [page(10)], [Stream([*burst, SILENT])], meanwhile=count)
        assert max(after - before for before, after in pairwise(turns)) <= 20


class TestSafetyLists:
    def test_a_day_without_faults_finds_no_drift_and_lists_at_least_hourly(self) -> None:
        pulse = Stream([act for _ in range(4) for act in (Wait(60.0), bookmark(50))])
        rig = play(86_400.0, [page(10, meta("a")), page(50, meta("a"))], [pulse])
        stats = rig.reflector.stats().protocol
        assert stats.drift_found == 0
        assert 24 <= stats.lists <= 50
        assert stats.errors == 0

    def test_what_the_watch_had_missed_is_repaired_and_counted(self) -> None:
        pulse = Stream([act for _ in range(4) for act in (Wait(60.0), bookmark(50))])
        with capture_logs() as logs:
            rig = play(4500.0, [page(10, meta("a")), page(50)], [pulse])
        assert rig.changes[-1] == Change(meta("a"), None)
        assert rig.reflector.stats().protocol.drift_found == 1
        assert [entry["event"] for entry in logs] == ["listed", "drift_found"]


def test_one_namespace_leaves_the_others_alone() -> None:
    rig = Rig(FakeKube([page(10)]), namespace="x")
    rig.kube.watches = [Stream([bookmark(12), SILENT])]
    for _ in rig.store.replace([meta("b", 3, namespace="y")], "5", "y"):
        pass
    play(5.0, [], rig=rig)
    assert (rig.store.version("x"), rig.store.version("y"), len(rig.store)) == ("12", "5", 1)
    assert repr(rig.reflector) == "<Reflector pods in x <ListWatchProtocol watching at 12>>"


def test_a_cancelled_run_leaves_its_state_and_goes_on_from_it() -> None:
    rig = Rig(FakeKube([page(10, meta("a"))]))

    async def main() -> None:
        rig.build()
        await rig.play(5.0)
        await rig.play(10.0)

    run_virtual(main())
    assert rig.kube.verbs() == [("list", ""), ("watch", "10"), ("watch", "10")]


class TestServerThatHasJustStarted:
    STARTING = AuthorizerNotReady("list pods: 403", status=403)

    def test_it_is_asked_at_a_pace_of_its_own(self) -> None:
        rig = play(60.0, [self.STARTING])
        gaps = [b.at - a.at for a, b in zip(rig.kube.asked, rig.kube.asked[1:], strict=False)]
        assert all(0.1 <= gap < 0.2 for gap in gaps[:1])
        assert all(gap <= 5.0 for gap in gaps)
        assert all(gap >= 2.5 for gap in gaps[6:])

    def test_each_such_streak_begins_with_the_first_wait(self) -> None:
        streak = [self.STARTING] * 8
        rig = play(120.0, [page(10)], [*streak, Stream([bookmark(11)]), *streak, Stream([SILENT])])
        gaps = [b.at - a.at for a, b in zip(rig.kube.asked, rig.kube.asked[1:], strict=False)]
        assert sum(gap < 0.2 for gap in gaps[1:]) >= 2

    def test_it_neither_opens_nor_closes_the_breaker(self) -> None:
        assert not play(60.0, [self.STARTING]).breaker.is_open
        assert play(30.0, [UNREACHABLE, UNREACHABLE, UNREACHABLE, self.STARTING]).breaker.is_open

    def test_it_is_no_refusal_and_costs_no_relist(self) -> None:
        with capture_logs() as logs:
            rig = play(60.0, [page(10)], [self.STARTING] * 6 + [Stream([SILENT])])
        assert not rig.reflector.is_forbidden
        assert [asked.verb for asked in rig.kube.asked] == ["list"] + ["watch"] * 7
        names = [entry["event"] for entry in logs]
        assert "watch_forbidden" not in names


def many(count: int) -> list[ObjectMeta]:
    return [meta(f"o{number:05}", 1 + number) for number in range(count)]


def test_other_tasks_run_while_a_long_list_is_taken_in() -> None:
    sizes: list[int] = []

    async def look(rig: Rig) -> None:
        while not rig.reflector.is_initialized:
            sizes.append(len(rig.store))
            await asyncio.sleep(0)

    items = many(5 * MAX_ITEMS)
    rig = play(1.0, [page(len(items), *items)], meanwhile=look)
    between = sorted({size for size in sizes if 0 < size < len(items)})
    assert len(between) >= 4
    assert max(after - before for before, after in pairwise(between)) <= MAX_ITEMS
    assert len(rig.changes) == len(rig.store) == len(items)


def test_a_list_that_is_cut_short_by_a_cancellation_is_taken_in_whole() -> None:
    items = many(3 * MAX_ITEMS)
    rig = Rig(FakeKube([page(len(items), *items)], [Stream([SILENT])]))

    async def main() -> None:
        rig.build()
        running = asyncio.create_task(rig.reflector.run())
        while not len(rig.store):
            await asyncio.sleep(0)
        assert len(rig.store) < len(items)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert len(rig.store) == len(items)
        assert rig.store.version(None) == str(len(items))
        assert rig.reflector.is_initialized

    run_virtual(main())


def test_a_relist_holds_no_second_copy_of_what_has_not_changed() -> None:
    first = [meta("a", 1), meta("b", 2)]
    again = page(20, meta("a", 1), meta("b", 12))

    async def relist(rig: Rig) -> None:
        await rig.reflector.wait_initialized()
        await rig.reflector.relist()

    rig = play(
        5.0, [page(10, *first), again], [Stream([SILENT]), Stream([SILENT])], meanwhile=relist
    )
    assert again.items[0] is first[0]
    assert [change.new for change in rig.changes] == [*first, meta("b", 12)]
