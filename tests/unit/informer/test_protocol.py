from collections.abc import Callable, Sequence
from random import Random

import msgspec
import pytest

from reconciler.clock import Instant
from reconciler.errors import (
    AuthorizerNotReady,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    NotFound,
    ProtocolError,
    ResourceVersionTooLarge,
    ServerError,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from reconciler.informer.consistency import EVERY_S, RESTARTED_S, RETRY_S
from reconciler.informer.messages import (
    Apply,
    Bookmark,
    ListRequest,
    LogEvent,
    Replace,
    WatchRequest,
)
from reconciler.informer.protocol import (
    FIRST_LIMIT,
    FORBIDDEN_S,
    IDLE_GRACE_S,
    IDLE_S,
    MAX_EMPTY_WATCHES,
    MAX_RETRY_AFTER_S,
    PAGE_BYTES,
    PAGE_LEAST,
    PAGE_LIMIT,
    ListWatchProtocol,
)
from reconciler.kube import api
from reconciler.kube.api import Event, ObjectMeta
from reconciler.kube.requests import MAX_LIST_BYTES
from tests.unit.informer.objects import added, bookmark, event, meta, page, skipped

FIRST = ListRequest("", 500, "")
Failure = KubeError | ProtocolError


def lowest(low: float, high: float) -> float:
    return low


def synced(version: int = 10) -> ListWatchProtocol:
    machine = ListWatchProtocol(lowest)
    assert machine.request(Instant(0)) == FIRST
    machine.page(page(version), Instant(0))
    return machine


def watching(version: int = 10) -> ListWatchProtocol:
    machine = synced(version)
    assert machine.request(Instant(0)) == WatchRequest(str(version), 240)
    machine.opened(Instant(0))
    return machine


def next_request(
    machine: ListWatchProtocol, now_at: Instant = Instant(0)
) -> tuple[float, ListRequest | WatchRequest]:
    """Return the wait and what follows it."""
    wait_s = machine.pause(now_at).wait_s
    return round(wait_s, 6), machine.request(now_at + wait_s)


class TestLists:
    def test_the_first_list_is_consistent_and_paged_and_the_watch_starts_at_its_version(
        self,
    ) -> None:
        machine = ListWatchProtocol(lowest)
        assert next_request(machine) == (0.0, FIRST)
        assert machine.page(page(10, meta("a"), continue_token="t"), Instant(0)) == ()
        assert machine.request(Instant(0)) == ListRequest("", 500, "t")
        emits = machine.page(page(10, meta("b")), Instant(0))
        assert emits == (Replace((meta("a"), meta("b")), "10", check=False),)
        assert next_request(machine) == (0.0, WatchRequest("10", 240))

    def test_only_the_token_decides_on_more_pages(self) -> None:
        machine = ListWatchProtocol(lowest)
        machine.request(Instant(0))
        assert machine.page(page(10, continue_token="t"), Instant(0)) == ()
        machine.request(Instant(0))
        assert machine.page(page(11), Instant(0)) == (Replace((), "10", check=False),)

    def test_a_list_of_10_000_pages_is_read(self) -> None:
        machine = ListWatchProtocol(lowest)
        for number in range(9_999):
            machine.request(Instant(0))
            found = page(10, meta(f"n{number}"), continue_token=f"t{number}")
            assert machine.page(found, Instant(0)) == ()
        machine.request(Instant(0))
        [replace] = machine.page(page(10), Instant(0))
        assert isinstance(replace, Replace)
        assert len(replace.items) == 9_999

    @pytest.mark.parametrize("case", ["repeated token", "too many pages", "too many items"])
    def test_a_list_that_does_not_end_fails_and_begins_again(
        self, case: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(api, "MAX_PAGES", 50 if case == "too many pages" else 10**6)
        monkeypatch.setattr(api, "MAX_ITEMS", 50 if case == "too many items" else 10**6)
        machine, pages = ListWatchProtocol(lowest), 0
        while not machine.stats().failures:
            pages += 1
            assert pages < 100
            token = "t" if case == "repeated token" else f"t{pages}"
            next_request(machine)
            machine.page(page(10, meta(f"n{pages}"), continue_token=token), Instant(0))
        assert pages == {"repeated token": 2, "too many pages": 50, "too many items": 51}[case]
        assert machine.stats().last_error == "a list does not end"
        _, request = next_request(machine)
        assert isinstance(request, ListRequest)
        assert request.continue_token == ""

    def test_an_expired_token_costs_one_more_paged_list_at_once(self) -> None:
        machine = ListWatchProtocol(lowest)
        machine.request(Instant(0))
        machine.page(page(10, meta("a"), continue_token="t"), Instant(0))
        machine.request(Instant(0))
        assert machine.failed(Gone("expired"), Instant(0)) == ()
        assert next_request(machine) == (0.0, FIRST)
        emits = machine.page(page(12, meta("b")), Instant(0))
        assert emits == (Replace((meta("b"),), "12", check=False),)

    def test_a_transport_failure_between_pages_repeats_the_page(self) -> None:
        machine = ListWatchProtocol(lowest)
        machine.request(Instant(0))
        machine.page(page(10, meta("a"), continue_token="t"), Instant(0))
        machine.request(Instant(0))
        machine.failed(TransportError("reset"), Instant(0))
        assert next_request(machine) == (0.8, ListRequest("", 125, "t"))

    def test_a_relist_is_consistent_and_paged(self) -> None:
        machine = watching()
        machine.event(added("a", 15), Instant(5))
        machine.failed(Gone("compacted"), Instant(5))
        assert next_request(machine, Instant(5)) == (0.8, FIRST)
        machine.page(page(20), Instant(6))
        assert machine.stats().relists == 1
        assert next_request(machine, Instant(6)) == (0.0, WatchRequest("20", 240))

    def test_tokens_that_expire_again_and_again_wait_like_any_failure(self) -> None:
        machine = ListWatchProtocol(lowest)
        for wait_s in (0.0, 0.8, 0.0):
            machine.request(Instant(0))
            machine.page(page(10, meta("a"), continue_token="t"), Instant(0))
            assert machine.request(Instant(0)) == ListRequest("", 500, "t")
            machine.failed(Gone("expired"), Instant(0))
            assert next_request(machine) == (wait_s, FIRST)

    def test_pages_are_as_small_as_their_items_are_large(self) -> None:
        machine = ListWatchProtocol(lowest, first_limit=FIRST_LIMIT)
        limits = []
        for length in (100_000, PAGE_BYTES, 2 * PAGE_BYTES, 500_000_000, 100_000):
            request = machine.request(Instant(0))
            assert isinstance(request, ListRequest)
            limits.append(request.limit)
            items = [meta(f"a{number}") for number in range(request.limit)]
            found = page(10, *items, continue_token=f"t{len(limits)}")
            machine.page(msgspec.structs.replace(found, length=length), Instant(0))
        assert limits == [FIRST_LIMIT, PAGE_LIMIT, PAGE_LIMIT, PAGE_LIMIT // 2, PAGE_LEAST]
        machine.page(page(10), Instant(0))
        assert next_request(machine)[1] == WatchRequest("10", 240)

    @pytest.mark.parametrize(
        "error",
        [
            Gone("g"),
            ResourceVersionTooLarge("t"),
            TransportError("r"),
            ServerError("500", status=500),
        ],
    )
    def test_no_list_is_unpaged_whatever_fails(self, error: KubeError) -> None:
        machine, seen = ListWatchProtocol(lowest), []
        for number in range(40):
            request = machine.request(Instant(1000.0 * number))
            if isinstance(request, ListRequest):
                seen.append(request)
            if isinstance(request, ListRequest) and number % 5 == 0:
                machine.page(page(10, meta("a"), continue_token="t"), Instant(1000.0 * number))
            elif isinstance(request, ListRequest) and number % 7 == 0:
                machine.page(page(10, meta("a")), Instant(1000.0 * number))
            else:
                machine.failed(error, Instant(1000.0 * number))
        assert len(seen) > 10
        assert {each.version for each in seen} == {""}
        assert all(PAGE_LEAST <= each.limit <= PAGE_LIMIT for each in seen)

    def test_a_list_ends_where_large_objects_come_after_small_ones(self) -> None:
        sizes = [2_000] * 600 + [300_000] * 600
        machine, taken, failures = ListWatchProtocol(lowest), 0, 0
        while isinstance(request := next_request(machine)[1], ListRequest):
            of_page = sizes[taken : taken + request.limit]
            if sum(of_page) > MAX_LIST_BYTES:
                machine.failed(TransportError("the answer is too long"), Instant(0))
                failures += 1
                assert failures <= 3
                continue
            taken += len(of_page)
            items = [meta(f"a{number}") for number in range(taken)][-len(of_page) :]
            answer = page(10, *items, continue_token="t" if taken < len(sizes) else "")
            machine.page(msgspec.structs.replace(answer, length=sum(of_page)), Instant(0))
        assert (taken, failures > 0) == (len(sizes), True)

    def test_a_refused_page_is_not_smaller(self) -> None:
        machine = ListWatchProtocol(lowest)
        machine.request(Instant(0))
        machine.failed(TooManyRequests("429", status=429), Instant(0))
        assert next_request(machine)[1] == FIRST

    def test_a_newest_list_that_is_refused_too_backs_off(self) -> None:
        machine = ListWatchProtocol(lowest)
        machine.request(Instant(0))
        machine.failed(ResourceVersionTooLarge("odd"), Instant(0))
        assert next_request(machine) == (0.8, FIRST)

    def test_a_list_without_a_version_is_refused(self) -> None:
        machine = ListWatchProtocol(lowest)
        machine.request(Instant(0))
        machine.page(page("", meta("a")), Instant(0))
        assert machine.stats().errors == 1
        assert next_request(machine) == (0.8, FIRST)

    def test_unreadable_items_are_counted(self) -> None:
        machine = ListWatchProtocol(lowest)
        machine.request(Instant(0))
        machine.page(page(10, skipped=2), Instant(0))
        assert machine.stats().skipped == 2

    @pytest.mark.parametrize("error", [TransportError("x"), ServerError("x"), ProtocolError("x")])
    def test_a_failed_first_list_is_tried_again_with_growing_waits(self, error: Failure) -> None:
        machine = ListWatchProtocol(lowest)
        waits = []
        for _ in range(7):
            wait_s, request = next_request(machine)
            assert isinstance(request, ListRequest)
            assert request.continue_token == ""
            waits.append(wait_s)
            machine.failed(error, Instant(0))
        assert waits == [0.0, 0.8, 1.6, 3.2, 6.4, 8.0, 8.0]

    def test_a_demanded_list_is_consistent_and_outlives_its_failure(self) -> None:
        machine = watching()
        machine.request_relist()
        machine.interrupted()
        assert next_request(machine, Instant(5)) == (0.0, FIRST)
        machine.failed(TransportError("reset"), Instant(5))
        assert next_request(machine, Instant(5)) == (0.8, ListRequest("", 125, ""))
        machine.page(page(20), Instant(6))
        assert next_request(machine, Instant(6)) == (0.0, WatchRequest("20", 240))

    def test_a_demand_during_a_list_costs_one_more(self) -> None:
        machine = ListWatchProtocol(lowest)
        machine.request(Instant(0))
        machine.request_relist()
        machine.page(page(10), Instant(0))
        assert next_request(machine) == (0.0, FIRST)


def drop(machine: ListWatchProtocol, now_at: Instant) -> None:
    machine.closed(now_at)


def fail(error: Failure) -> Callable[[ListWatchProtocol, float], object]:
    return lambda machine, now_at: machine.failed(error, Instant(now_at))


WATCH = WatchRequest("10", 240)
RELIST = FIRST


@pytest.mark.parametrize("opened", [True, False], ids=["in stream", "at start"])
@pytest.mark.parametrize(
    ("error", "wait_s", "request_"),
    [
        (ServerError("500", status=500), 0.8, WATCH),
        (TooManyRequests("429", status=429), 0.8, WATCH),
        (TooManyRequests("429", status=429, retry_after_s=7.0), 7.0, WATCH),
        (ServerError("503", status=503, retry_after_s=0.1), 0.8, WATCH),
        (TooManyRequests("429", status=429, retry_after_s=3600.0), MAX_RETRY_AFTER_S, WATCH),
        (Unauthorized("401", status=401), 0.8, WATCH),
        (Forbidden("403", status=403), FORBIDDEN_S[0], WATCH),
        (NotFound("404", status=404), 0.8, WATCH),
        (Invalid("422", status=422), 0.8, WATCH),
        (ProtocolError("garbage"), 0.8, WATCH),
        (Gone("410", status=410), 0.8, RELIST),
        (ResourceVersionTooLarge("504", status=504), 0.8, FIRST),
        (ServerError("unreadable", status=500, reason="StorageReadError"), 0.8, RELIST),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_failure_of_a_watch_has_one_answer_wherever_it_shows(
    error: Failure, wait_s: float, request_: ListRequest | WatchRequest, opened: bool
) -> None:
    machine = synced()
    machine.request(Instant(0))
    if opened:
        machine.opened(Instant(0))
    machine.failed(error, Instant(0))
    assert next_request(machine) == (wait_s, request_)


@pytest.mark.parametrize(("opened", "life_s"), [(True, 240), (False, int(RESTARTED_S[0]))])
def test_a_lost_connection_goes_on_at_its_version_and_a_refused_one_not_for_long(
    opened: bool, life_s: int
) -> None:
    machine = synced()
    machine.request(Instant(0))
    if opened:
        machine.opened(Instant(0))
    machine.failed(TransportError("reset"), Instant(0))
    assert next_request(machine) == (0.8, WatchRequest("10", life_s))


@pytest.mark.parametrize(
    ("end", "relists"),
    [
        (drop, True),
        (fail(ServerError("500 event", status=500)), True),
        (fail(KubeError("400 event", status=400)), True),
        (fail(ProtocolError("garbage")), True),
        (fail(TooManyRequests("429")), False),
        (fail(TransportError("reset")), False),
        (fail(Forbidden("403")), False),
        (fail(Unauthorized("401")), False),
    ],
    ids=["short", "error", "refused", "garbage", "429", "transport", "403", "401"],
)
def test_only_fruitless_watches_in_a_row_cost_a_relist(
    end: Callable[[ListWatchProtocol, float], object], relists: bool
) -> None:
    machine = synced()
    now_at = 0.0
    for _ in range(MAX_EMPTY_WATCHES):
        now_at += machine.pause(Instant(now_at)).wait_s
        assert isinstance(machine.request(Instant(now_at)), WatchRequest)
        machine.opened(Instant(now_at))
        end(machine, now_at)
    assert machine.pause(Instant(now_at)).wait_s >= 0.8
    assert isinstance(machine.request(Instant(now_at + 60)), ListRequest) is relists


def test_an_event_between_ends_the_streak() -> None:
    machine = synced()
    for number in range(3 * MAX_EMPTY_WATCHES):
        assert isinstance(machine.request(Instant(0)), WatchRequest)
        machine.opened(Instant(0))
        machine.event(added("a", 11 + number), Instant(0))
        machine.failed(ProtocolError("garbage"), Instant(0))


def test_a_server_error_at_the_start_never_costs_a_relist() -> None:
    machine = synced()
    for _ in range(3 * MAX_EMPTY_WATCHES):
        assert machine.request(Instant(0)) == WATCH
        machine.failed(ServerError("503", status=503), Instant(0))


class TestWatches:
    def test_every_event_moves_the_version_even_backwards(self) -> None:
        machine = watching()
        emits = [
            machine.event(added("a", 11), Instant(1)),
            machine.event(event("MODIFIED", meta("a", 13)), Instant(1)),
            machine.event(skipped(14), Instant(1)),
            machine.event(bookmark(15), Instant(1)),
            machine.event(event("DELETED", meta("a", 12)), Instant(1)),
        ]
        assert emits == [
            (Apply("ADDED", meta("a", 11)),),
            (Apply("MODIFIED", meta("a", 13)),),
            (Bookmark("14"),),
            (Bookmark("15"),),
            (Apply("DELETED", meta("a", 12)),),
        ]
        machine.closed(Instant(240))
        assert next_request(machine, Instant(240)) == (0.0, WatchRequest("12", 240))
        stats = machine.stats()
        assert (stats.events, stats.bookmarks, stats.skipped, stats.relists) == (3, 1, 1, 0)

    def test_an_event_without_a_version_is_skipped_and_moves_nothing(self) -> None:
        machine = watching()
        assert machine.event(skipped(""), Instant(1)) == ()
        machine.closed(Instant(240))
        assert machine.request(Instant(240)) == WATCH

    def test_a_watch_that_lived_is_followed_at_once(self) -> None:
        machine = watching()
        machine.closed(Instant(1))
        assert next_request(machine, Instant(1)) == (0.0, WATCH)

    def test_a_short_watch_that_brought_something_is_no_failure_yet_is_paced(self) -> None:
        machine = watching()
        machine.event(bookmark(11), Instant(0.1))
        machine.closed(Instant(0.2))
        assert next_request(machine, Instant(0.2)) == (0.8, WatchRequest("11", 240))
        assert machine.stats().failures == 0

    def test_a_watch_lasts_between_four_and_five_minutes(self) -> None:
        lives = set()
        for seed in range(100):
            machine = ListWatchProtocol(Random(seed).uniform)
            machine.request(Instant(0))
            machine.page(page(10), Instant(0))
            request = machine.request(Instant(0))
            assert isinstance(request, WatchRequest)
            lives.add(request.timeout_s)
        assert 240 <= min(lives) < 250
        assert 290 < max(lives) <= 300

    def test_a_bookmark_arms_the_watchdog_for_good(self) -> None:
        machine = watching()
        assert machine.idle_s == 240 + IDLE_GRACE_S
        machine.event(bookmark(11), Instant(60))
        assert machine.idle_s == IDLE_S
        machine.closed(Instant(240))
        machine.request(Instant(240))
        assert machine.idle_s == IDLE_S

    def test_silence_is_distinguished_from_a_reset(self) -> None:
        machine = watching()
        machine.event(bookmark(11), Instant(60))
        assert machine.failed(TransportError("silent"), Instant(60.0 + IDLE_S)) == (
            LogEvent("watch_timed_out", "silent", 1),
        )
        assert next_request(machine, Instant(135)) == (0.8, WatchRequest("11", 240))


class TestReports:
    def test_a_streak_is_reported_at_its_begin_and_its_end(self) -> None:
        machine = watching()
        facts: list[object] = []
        for _ in range(5):
            facts += machine.failed(TransportError("reset"), Instant(0))
            machine.request(Instant(0))
            machine.opened(Instant(0))
        facts += machine.event(bookmark(11), Instant(1))
        assert facts == [
            LogEvent("watch_restarted", "reset", 1),
            LogEvent("watch_recovered", "reset", 5),
            Bookmark("11"),
        ]

    def test_a_watch_that_opens_proves_the_right_before_its_first_event(self) -> None:
        machine, seen, facts = watching(), [], list[object]()
        for _ in range(2):
            facts += machine.failed(Forbidden("no"), Instant(0))
            seen.append(machine.is_forbidden)
            assert isinstance(next_request(machine)[1], WatchRequest)
            machine.opened(Instant(0))
            seen.append(machine.is_forbidden)
        assert seen == [True, False, True, False]
        assert facts == [LogEvent("watch_forbidden", "no", 1)]

    def test_a_missing_right_is_reported_once_even_amid_other_failures(self) -> None:
        machine = ListWatchProtocol(lowest)
        facts: list[object] = []
        errors: Sequence[Failure] = [
            TransportError("unreachable"),
            Forbidden("no"),
            Forbidden("no"),
        ]
        for error in errors:
            machine.request(Instant(0))
            facts += machine.failed(error, Instant(0))
        assert facts == [
            LogEvent("list_failed", "unreachable", 1),
            LogEvent("list_forbidden", "no", 2),
        ]
        machine.request(Instant(0))
        assert machine.page(page(10), Instant(0)) == (
            LogEvent("list_recovered", "no", 3),
            Replace((), "10", check=False),
        )

    def test_a_relist_between_failing_watches_is_no_recovery(self) -> None:
        machine = watching()
        machine.failed(Gone("410"), Instant(0))
        machine.request(Instant(0))
        assert machine.page(page(20), Instant(0)) == (Replace((), "20", check=False),)
        machine.request(Instant(0))
        machine.opened(Instant(0))
        assert machine.failed(Gone("410"), Instant(0)) == ()
        assert machine.stats().failures == 2

    def test_only_the_servers_own_wish_is_a_floor(self) -> None:
        machine = watching()
        machine.failed(TooManyRequests("429", retry_after_s=0.5), Instant(0))
        pause = machine.pause(Instant(0))
        assert (pause.wait_s, pause.server_min_s) == (0.8, 0.5)

    def test_stats_have_the_last_error_and_repr_the_version(self) -> None:
        machine = watching()
        machine.failed(TransportError("reset"), Instant(0))
        assert machine.stats().last_error == "reset"
        machine.request(Instant(1))
        machine.opened(Instant(1))
        machine.event(bookmark(11), Instant(1))
        assert repr(machine) == "<ListWatchProtocol watching at 11>"
        assert repr(ListWatchProtocol(lowest)) == "<ListWatchProtocol listing at nothing>"


class TestAudits:
    DUE_AT = EVERY_S[0]

    def audited(self) -> ListWatchProtocol:
        machine = watching()
        machine.event(bookmark(11), Instant(self.DUE_AT - 1))
        machine.closed(Instant(self.DUE_AT))
        assert next_request(machine, Instant(self.DUE_AT)) == (0.0, FIRST)
        assert machine.page(page(50), Instant(self.DUE_AT)) == ()
        assert machine.request(Instant(self.DUE_AT)) == WatchRequest("11", 240)
        machine.opened(Instant(self.DUE_AT))
        return machine

    def test_a_safety_list_is_held_until_the_stream_reaches_it(self) -> None:
        machine = self.audited()
        assert machine.event(added("a", 12), Instant(self.DUE_AT)) == (
            Apply("ADDED", meta("a", 12)),
        )
        assert machine.event(bookmark(51), Instant(self.DUE_AT)) == (
            Replace((), "50", check=True),
            Bookmark("51"),
        )
        machine.found_drift(2)
        assert (machine.stats().drift_found, machine.stats().relists) == (2, 0)

    def test_a_stream_that_stays_behind_is_given_up_for_the_list(self) -> None:
        machine = self.audited()
        emits = machine.closed(Instant(self.DUE_AT + 240))
        assert emits == (Replace((), "50", check=True),)
        assert machine.request(Instant(self.DUE_AT + 240)) == WatchRequest("50", 240)

    def test_an_outage_is_no_drift(self) -> None:
        machine = self.audited()
        machine.event(bookmark(12), Instant(self.DUE_AT + 150))
        machine.failed(TransportError("reset"), Instant(self.DUE_AT + 200))
        assert next_request(machine, Instant(self.DUE_AT + 200))[1] == WatchRequest("12", 240)

    def test_a_failed_safety_list_does_not_stop_the_watch(self) -> None:
        machine = watching()
        machine.closed(Instant(self.DUE_AT))
        assert machine.request(Instant(self.DUE_AT)) == FIRST
        machine.failed(ServerError("500"), Instant(self.DUE_AT))
        assert next_request(machine, Instant(self.DUE_AT)) == (0.8, WATCH)


class TestRewoundHistory:
    @pytest.mark.parametrize("seen", [bookmark(9), added("a", 9), skipped(9)], ids=str)
    def test_a_version_below_the_watchs_own_start_relists_at_once(
        self, seen: Event[ObjectMeta]
    ) -> None:
        machine = watching()
        [fact] = machine.event(seen, Instant(60))
        assert isinstance(fact, LogEvent)
        assert fact.name == "history_rewound"
        assert not machine.is_watching
        assert next_request(machine, Instant(60)) == (0.0, FIRST)

    def test_the_start_counts_and_not_the_last_event(self) -> None:
        machine = watching()
        machine.event(added("a", 15), Instant(1))
        machine.event(bookmark(10), Instant(2))
        assert machine.is_watching

    def test_a_version_that_cannot_be_compared_is_none(self) -> None:
        machine = watching()
        machine.event(bookmark("00"), Instant(1))
        assert machine.is_watching

    def test_a_server_that_does_so_again_and_again_is_paced(self) -> None:
        machine = watching()
        now_at, lists = 0.0, 0
        while now_at < 60.0:
            machine.event(bookmark(9), Instant(now_at))
            now_at += machine.pause(Instant(now_at)).wait_s
            assert machine.request(Instant(now_at)) == FIRST
            lists += 1
            machine.page(page(10), Instant(now_at))
            assert isinstance(machine.request(Instant(now_at)), WatchRequest)
            machine.opened(Instant(now_at))
        assert lists <= 12

    def test_a_safety_list_of_the_past_is_taken_at_once(self) -> None:
        machine = watching()
        machine.event(bookmark(100), Instant(1))
        machine.closed(Instant(240))
        now_at = 4000.0
        assert machine.request(Instant(now_at)) == FIRST
        *_, replace = machine.page(page(50, meta("a", 7)), Instant(now_at))
        assert replace == Replace((meta("a", 7),), "50", check=False)
        assert machine.request(Instant(now_at)) == WatchRequest("50", 240)

    def test_reads_that_contradict_the_store_cost_one_list_in_ten_seconds(self) -> None:
        machine = watching()
        asked = [machine.distrust(Instant(at / 10)) for at in range(50)]
        assert asked.count(True) == 1
        machine.interrupted()
        assert machine.request(Instant(5)) == FIRST
        assert not machine.distrust(Instant(50)), "a list is under way"
        machine.page(page(12), Instant(50))
        assert machine.distrust(Instant(50))

    def test_a_watch_that_follows_a_lost_connection_and_is_silent_costs_a_consistent_list(
        self,
    ) -> None:
        machine = watching()
        machine.failed(TransportError("reset"), Instant(5))
        assert isinstance(machine.request(Instant(6)), WatchRequest)
        machine.opened(Instant(6))
        assert machine.idle_s == IDLE_S
        machine.failed(TransportError("silent"), Instant(6.0 + IDLE_S))
        wait_s, request = next_request(machine, Instant(6.0 + IDLE_S))
        assert request == FIRST
        assert wait_s < 2.0
        [*_, fact, replace] = machine.page(page(7, meta("a", 5)), Instant(90))
        assert isinstance(fact, LogEvent)
        assert fact.name == "history_rewound"
        assert replace == Replace((meta("a", 5),), "7", check=False)
        assert machine.request(Instant(91)) == WatchRequest("7", 240)
        assert machine.idle_s > IDLE_S

    def test_one_that_brings_something_is_believed(self) -> None:
        machine = watching()
        machine.failed(TransportError("reset"), Instant(5))
        machine.request(Instant(6))
        machine.opened(Instant(6))
        machine.event(added("a", 12), Instant(7))
        assert machine.idle_s > IDLE_S


REFUSED = TransportError("connection refused")
STARTING = AuthorizerNotReady("the authorizer is not ready", status=403)
UNAVAILABLE = ServerError("unavailable", status=503)


class TestRestarts:
    """One list proves the history after a restart, whether the watch is silent or not."""

    UP_AT = 10.0

    def restarted(self, *errors: Failure, cut: bool = True) -> ListWatchProtocol:
        """Return a protocol with a watch open at `UP_AT`, after these answers to its attempts."""
        machine = watching()
        if cut:
            machine.failed(TransportError("reset"), Instant(5))
        else:
            machine.closed(Instant(5))
        for error in errors:
            assert isinstance(machine.request(Instant(6)), WatchRequest)
            machine.failed(error, Instant(6))
        assert isinstance(machine.request(Instant(self.UP_AT)), WatchRequest)
        machine.opened(Instant(self.UP_AT))
        return machine

    @pytest.mark.parametrize("is_silent", [False, True], ids=["events", "silence"])
    @pytest.mark.parametrize(
        ("errors", "cut"),
        [
            ([REFUSED], True),
            ([REFUSED], False),
            ([REFUSED, STARTING], True),
            ([STARTING], False),
            ([UNAVAILABLE], True),
        ],
        ids=["refused", "closed then refused", "refused then 403", "403", "503 of a balancer"],
    )
    def test_one_list_is_due_within_a_minute_and_is_taken_at_once(
        self, errors: list[Failure], cut: bool, is_silent: bool
    ) -> None:
        machine = self.restarted(*errors, cut=cut)
        if not is_silent:
            machine.event(added("a", 150), Instant(self.UP_AT + 1))
        ends_at = self.UP_AT + RESTARTED_S[0]
        machine.closed(Instant(ends_at))
        assert next_request(machine, Instant(ends_at)) == (0.0, FIRST)
        *_, replace = machine.page(page(200, meta("b", 120)), Instant(ends_at))
        assert replace == Replace((meta("b", 120),), "200", check=False, proof=True)
        assert machine.request(Instant(ends_at)) == WatchRequest("200", 240)
        machine.opened(Instant(ends_at))
        machine.closed(Instant(ends_at + 240))
        assert machine.request(Instant(ends_at + 240)) == WatchRequest("200", 240)

    @pytest.mark.parametrize(
        ("errors", "cut"),
        [([], True), ([], False), ([UNAVAILABLE], False)],
        ids=["a cut", "a clean end", "a server error beside a connection that was kept"],
    )
    def test_what_is_no_restart_costs_no_list(self, errors: list[Failure], cut: bool) -> None:
        machine = self.restarted(*errors, cut=cut)
        machine.event(added("a", 150), Instant(self.UP_AT + 1))
        machine.closed(Instant(self.UP_AT + 240))
        assert machine.request(Instant(self.UP_AT + 240)) == WatchRequest("150", 240)

    def test_the_watch_before_it_ends_as_it_is_due_and_so_does_the_next(self) -> None:
        machine = watching()
        machine.closed(Instant(5))
        machine.request(Instant(6))
        machine.failed(REFUSED, Instant(6))
        assert machine.request(Instant(7)) == WatchRequest("10", int(RESTARTED_S[0]))
        machine.opened(Instant(7.5))
        machine.event(added("a", 12), Instant(8))
        machine.failed(TransportError("reset"), Instant(17))
        assert machine.request(Instant(18)) == WatchRequest("12", 19)
        machine.opened(Instant(18))
        machine.failed(TransportError("reset"), Instant(36.9))
        assert machine.request(Instant(36.9)) == WatchRequest("12", 2)

    def test_restarts_without_end_do_not_postpone_it(self) -> None:
        machine = self.restarted(REFUSED)
        now_at = self.UP_AT
        while now_at < self.UP_AT + RESTARTED_S[0]:
            machine.failed(TransportError("reset"), Instant(now_at))
            machine.request(Instant(now_at))
            machine.failed(REFUSED, Instant(now_at))
            assert isinstance(machine.request(Instant(now_at)), WatchRequest)
            machine.opened(Instant(now_at))
            now_at += 5.0
        machine.failed(TransportError("reset"), Instant(now_at))
        assert machine.request(Instant(now_at)) == FIRST

    def test_a_list_that_was_made_earlier_is_the_one(self) -> None:
        machine = self.restarted(REFUSED)
        machine.failed(Gone("compacted"), Instant(12))
        assert machine.request(Instant(13)) == FIRST
        machine.page(page(20), Instant(13))
        assert machine.request(Instant(13)) == WatchRequest("20", 240)

    def test_one_that_fails_is_made_a_minute_or_two_later(self) -> None:
        machine = self.restarted(REFUSED)
        at = self.UP_AT + RESTARTED_S[0]
        machine.closed(Instant(at))
        assert machine.request(Instant(at)) == FIRST
        machine.failed(UNAVAILABLE, Instant(at))
        assert machine.request(Instant(at + 1)) == WatchRequest("10", int(RETRY_S[0]) - 1)
        machine.opened(Instant(at + 1))
        machine.closed(Instant(at + RETRY_S[0]))
        assert machine.request(Instant(at + RETRY_S[0])) == FIRST

    def test_a_list_whose_pages_come_from_before_and_after_one_proves_nothing(self) -> None:
        machine = ListWatchProtocol(lowest)
        machine.request(Instant(0))
        machine.page(page(10, meta("a"), continue_token="t"), Instant(0))
        machine.request(Instant(0))
        machine.failed(REFUSED, Instant(0))
        assert machine.request(Instant(1)) == ListRequest("", 125, "t")
        machine.page(page(10, meta("b")), Instant(1))
        assert machine.request(Instant(1)) == WatchRequest("10", int(RESTARTED_S[0]))
        machine.opened(Instant(1))
        machine.closed(Instant(1.0 + RESTARTED_S[0]))
        assert machine.request(Instant(1.0 + RESTARTED_S[0])) == FIRST
