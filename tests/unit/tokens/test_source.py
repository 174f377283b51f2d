"""The source: reuse, one request for all, outages, refusals; on virtual time."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable

import pytest

from reconciler.clock import Instant
from reconciler.errors import InvalidToken, IssuerError, IssuerRefused, IssuerUnavailable
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.tokens.source import MAX_TRUSTED_TTL_S
from tests.unit.tokens.support import SourceBench

M = 0.8


def _with_bench(story: Callable[[SourceBench], Awaitable[None]], **issuer: float) -> None:
    async def main() -> None:
        bench = SourceBench.open(VirtualClock(asyncio.get_running_loop()), **issuer)
        await story(bench)
        await bench.source.close()

    run_virtual(main())


def _unreachable() -> IssuerUnavailable:
    return IssuerUnavailable("token request: no connection", reason="connection")


def _refused() -> IssuerRefused:
    return IssuerRefused("token request: answered 401", status=401, reason="invalid_client")


def test_a_token_with_enough_life_is_reused_and_one_with_less_is_not() -> None:
    async def story(bench: SourceBench) -> None:
        first = await bench.source.get(min_remaining=M)
        await asyncio.sleep(0.19 * 900)
        assert await bench.source.get(min_remaining=M) is first
        await asyncio.sleep(0.02 * 900)
        assert await bench.source.get(min_remaining=M) is not first
        assert len(bench.issuer.asked_at) == 2

    _with_bench(story)


def test_a_thousand_callers_make_one_request() -> None:
    async def story(bench: SourceBench) -> None:
        gets = [bench.source.get(min_remaining=M) for _ in range(500)]
        refreshes = [bench.source.refresh() for _ in range(500)]
        tokens = await asyncio.gather(*gets, *refreshes)
        assert len(set(tokens)) == 1
        assert len(bench.issuer.asked_at) == 1

    _with_bench(story, takes_s=0.5)


def test_a_request_in_flight_is_older_than_what_is_asked_for_since_then() -> None:
    async def story(bench: SourceBench) -> None:
        early = asyncio.create_task(bench.source.get(min_remaining=M))
        await asyncio.sleep(4)
        since_at = bench.clock.monotonic()
        late = [bench.source.get(min_remaining=M, since_at=since_at) for _ in range(3)]
        tokens = await asyncio.gather(*late)
        assert len(set(tokens)) == 1
        assert tokens[0] is not await early
        assert len(bench.issuer.asked_at) == 2
        assert bench.issuer.asked_at[1] >= since_at
        again = bench.source.best_available(min_remaining=M, since_at=since_at)
        assert again is tokens[0]

    _with_bench(story, takes_s=5)


def test_a_cancelled_caller_does_not_cancel_the_request_of_the_others() -> None:
    async def story(bench: SourceBench) -> None:
        first = asyncio.create_task(bench.source.get(min_remaining=M))
        second = asyncio.create_task(bench.source.get(min_remaining=M))
        await asyncio.sleep(0.1)
        first.cancel()
        assert (await second).ttl_s == 900
        assert len(bench.issuer.asked_at) == 1

    _with_bench(story, takes_s=0.5)


def test_a_caller_in_a_hurry_leaves_the_token_to_the_cache() -> None:
    async def story(bench: SourceBench) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await bench.source.get(min_remaining=M)
        await asyncio.sleep(1.0)
        assert bench.source.best() is not None

    _with_bench(story, takes_s=0.5)


def test_a_minted_token_is_returned_even_if_it_has_less_than_asked() -> None:
    async def story(bench: SourceBench) -> None:
        token = await bench.source.get(min_remaining=M)
        assert token.remaining_s(bench.clock.monotonic()) == 300

    _with_bench(story, age_s=600)


def test_an_issuer_of_half_used_tokens_is_not_asked_once_per_caller() -> None:
    async def story(bench: SourceBench) -> None:
        for _ in range(1000):
            await bench.source.get(min_remaining=M)
            await asyncio.sleep(0.01)
        assert len(bench.issuer.asked_at) == 1
        await asyncio.sleep(0.02 * 900)
        await bench.source.get(min_remaining=M)
        assert len(bench.issuer.asked_at) == 2

    _with_bench(story, age_s=600)


def test_a_shorter_life_does_not_displace_the_best_at_hand() -> None:
    async def story(bench: SourceBench) -> None:
        good = await bench.source.get(min_remaining=M)
        bench.issuer.ttl_s = 60
        await asyncio.sleep(400)
        assert await bench.source.get(min_remaining=M) is good
        assert bench.source.best() is good
        for _ in range(100):
            assert await bench.source.get(min_remaining=M) is good
        assert len(bench.issuer.asked_at) == 2

    _with_bench(story)


def test_a_longer_life_displaces_the_best_even_if_the_issuers_clock_went_back() -> None:
    async def story(bench: SourceBench) -> None:
        old = await bench.source.get(min_remaining=M)
        bench.issuer.skew_s = -3600
        await asyncio.sleep(400)
        new = await bench.source.get(min_remaining=M)
        assert new is bench.source.best()
        assert new.expires_s < old.expires_s

    _with_bench(story)


def test_a_shorter_life_displaces_the_best_that_a_step_of_the_issuers_clock_expires() -> None:
    async def story(bench: SourceBench) -> None:
        old = await bench.source.get(min_remaining=M)
        bench.issuer.skew_s, bench.issuer.ttl_s = 700, 600
        await asyncio.sleep(190)
        new = await bench.source.get(min_remaining=M)
        assert new is bench.source.best()
        assert new is not old
        assert new.expires_s > old.expires_s

    _with_bench(story)


def test_best_never_asks_and_never_returns_a_dead_token() -> None:
    async def story(bench: SourceBench) -> None:
        assert bench.source.best() is None
        token = await bench.source.refresh()
        await asyncio.sleep(899)
        assert bench.source.best() is token
        await asyncio.sleep(1)
        assert bench.source.best() is None
        assert len(bench.issuer.asked_at) == 1

    _with_bench(story)


def test_refresh_mints_even_with_a_new_token_at_hand() -> None:
    async def story(bench: SourceBench) -> None:
        first = await bench.source.refresh()
        assert await bench.source.refresh() is not first

    _with_bench(story)


def test_while_the_issuer_is_down_get_fails_at_once_without_a_request() -> None:
    async def story(bench: SourceBench) -> None:
        bench.issuer.fault = _unreachable
        for _ in range(3):
            with pytest.raises(IssuerUnavailable):
                await bench.source.get(min_remaining=M)
        assert bench.breaker.is_open
        asked = len(bench.issuer.asked_at)
        with pytest.raises(IssuerUnavailable, match="no connection"):
            await bench.source.get(min_remaining=M)
        assert len(bench.issuer.asked_at) == asked == 3

    _with_bench(story)


def test_while_the_issuer_is_down_a_token_with_enough_life_is_still_given() -> None:
    async def story(bench: SourceBench) -> None:
        token = await bench.source.get(min_remaining=M)
        bench.issuer.fault = _unreachable
        for _ in range(3):
            with pytest.raises(IssuerUnavailable):
                await bench.source.refresh()
        assert bench.breaker.is_open
        assert await bench.source.get(min_remaining=M) is token

    _with_bench(story)


def test_unusable_tokens_count_as_an_outage_and_leave_the_best_in_place() -> None:
    async def story(bench: SourceBench) -> None:
        good = await bench.source.refresh()
        bench.issuer.age_s = 901
        for _ in range(3):
            with pytest.raises(InvalidToken) as caught:
                await bench.source.refresh()
            assert caught.value.reason == "expired"
        assert bench.breaker.is_open
        assert bench.source.best() is good

    _with_bench(story)


def test_a_refusal_is_no_outage_and_is_not_repeated_for_every_caller() -> None:
    async def story(bench: SourceBench) -> None:
        bench.issuer.fault = _refused
        for _ in range(3000):
            with pytest.raises(IssuerRefused) as caught:
                await bench.source.get(min_remaining=M)
            assert (caught.value.status, caught.value.reason) == (401, "invalid_client")
            await asyncio.sleep(0.1)
        assert not bench.breaker.is_open
        assert len(bench.issuer.asked_at) < 40
        bench.issuer.fault = None
        await asyncio.sleep(30)
        assert (await bench.source.get(min_remaining=M)).ttl_s == 900

    _with_bench(story)


def test_an_issuer_that_refuses_is_back() -> None:
    async def story(bench: SourceBench) -> None:
        bench.issuer.fault = _unreachable
        for _ in range(3):
            with pytest.raises(IssuerUnavailable):
                await bench.source.get(min_remaining=M)
        assert bench.breaker.stats().down
        bench.issuer.fault = _refused
        with pytest.raises(IssuerRefused):
            await bench.source.refresh()
        assert not bench.breaker.stats().down

    _with_bench(story)


def test_a_retry_after_is_honoured_before_the_breaker_opens() -> None:
    async def story(bench: SourceBench) -> None:
        bench.issuer.fault = lambda: IssuerUnavailable("busy", status=429, retry_after_s=7.0)
        for _ in range(60):
            with pytest.raises(IssuerUnavailable):
                await bench.source.get(min_remaining=M)
            await asyncio.sleep(0.1)
        assert len(bench.issuer.asked_at) == 1
        bench.issuer.fault = None
        await asyncio.sleep(1.1)
        assert (await bench.source.get(min_remaining=M)).ttl_s == 900

    _with_bench(story)


@pytest.mark.parametrize(
    ("fault", "woken"),
    [
        pytest.param(lambda: _refused(), 1, id="refused"),
        pytest.param(
            lambda: IssuerUnavailable("busy", status=429, retry_after_s=7.0), 1, id="retry-after"
        ),
        pytest.param(lambda: _unreachable(), 0, id="one-lost-answer"),
    ],
)
def test_the_first_token_after_a_pause_wakes_all_who_were_held_back(
    fault: Callable[[], IssuerError], woken: int
) -> None:
    async def story(bench: SourceBench) -> None:
        heard: list[Instant] = []
        bench.breaker.on_recovery(lambda: heard.append(bench.clock.monotonic()))
        await bench.source.refresh()
        bench.issuer.fault = fault
        with pytest.raises(IssuerError):
            await bench.source.refresh()
        assert bench.breaker.stats().refuses is (type(fault()) is IssuerRefused)
        assert heard == []
        bench.issuer.fault = None
        await asyncio.sleep(8)
        for _ in range(2):
            await bench.source.refresh()
        assert len(heard) == woken
        assert not bench.breaker.stats().refuses

    _with_bench(story)


def test_each_waiter_gets_an_error_of_its_own() -> None:
    async def story(bench: SourceBench) -> None:
        bench.issuer.fault = _unreachable
        gets = [bench.source.get(min_remaining=M) for _ in range(10)]
        errors = await asyncio.gather(*gets, return_exceptions=True)
        assert len({id(error) for error in errors}) == 10
        assert {str(error) for error in errors} == {"token request: no connection"}
        assert len(bench.issuer.asked_at) == 1

    _with_bench(story)


def test_no_error_carries_the_token_that_was_refused() -> None:
    async def story(bench: SourceBench) -> None:
        bench.issuer.age_s = 901
        with pytest.raises(InvalidToken) as caught:
            await bench.source.refresh()
        assert "eyJ" not in "".join(traceback.format_exception(caught.value))
        assert "eyJ" not in repr(bench.source) + repr(bench.source.stats())

    _with_bench(story)


def test_closing_ends_the_request_in_flight() -> None:
    async def story(bench: SourceBench) -> None:
        waiter = asyncio.create_task(bench.source.refresh())
        await asyncio.sleep(1)
        await bench.source.close()
        with pytest.raises(IssuerUnavailable, match="closed"):
            await waiter

    _with_bench(story, takes_s=3600)


@pytest.mark.parametrize("skew_s", [-7200.0, -90.0, 0.0, 90.0, 7200.0])
def test_a_skewed_issuer_gives_its_time_and_costs_no_life(skew_s: float) -> None:
    async def story(bench: SourceBench) -> None:
        token = await bench.source.refresh()
        assert bench.issuer_time.skew_s == pytest.approx(skew_s, abs=1.0)
        assert token.remaining_s(bench.clock.monotonic()) == 900

    _with_bench(story, skew_s=skew_s)


def test_the_time_of_an_unusable_answer_is_not_believed() -> None:
    async def story(bench: SourceBench) -> None:
        bench.issuer.age_s = 901
        with pytest.raises(InvalidToken):
            await bench.source.refresh()
        assert not bench.issuer_time.observed

    _with_bench(story)


def test_a_date_before_the_issue_time_is_a_lagging_proxys() -> None:
    async def story(bench: SourceBench) -> None:
        bench.issuer.age_s = -300
        await bench.source.refresh()
        assert bench.issuer_time.skew_s == pytest.approx(300, abs=1.0)

    _with_bench(story)


@pytest.mark.parametrize(
    ("lives", "longest_ttl_s"),
    [
        pytest.param([], MAX_TRUSTED_TTL_S, id="nothing-seen-yet"),
        pytest.param([900.0], 900, id="one"),
        pytest.param([899.25], 900, id="rounded-up"),
        pytest.param([900.0, 60.0], 900, id="a-shorter-one-later"),
        pytest.param([60.0, 900.0], 900, id="a-longer-one-later"),
        pytest.param([200_000.0], 200_000, id="longer-than-sane-while-at-hand"),
    ],
)
def test_the_longest_life_seen_is_kept(lives: list[float], longest_ttl_s: float) -> None:
    async def story(bench: SourceBench) -> None:
        for ttl_s in lives:
            bench.issuer.ttl_s = ttl_s
            await bench.source.refresh()
        assert bench.source.longest_ttl_s == longest_ttl_s

    _with_bench(story)


def test_an_absurdly_long_life_is_forgotten_with_its_token() -> None:
    async def story(bench: SourceBench) -> None:
        bench.issuer.ttl_s = 2 * MAX_TRUSTED_TTL_S
        await bench.source.refresh()
        await asyncio.sleep(2 * MAX_TRUSTED_TTL_S)
        assert bench.source.longest_ttl_s == MAX_TRUSTED_TTL_S

    _with_bench(story)


def test_stats_count_tokens_and_have_the_last_error() -> None:
    async def story(bench: SourceBench) -> None:
        await bench.source.refresh()
        bench.issuer.fault = _refused
        with pytest.raises(IssuerRefused):
            await bench.source.refresh()
        stats = bench.source.stats()
        assert stats.issued_total == 1
        assert stats.best_remaining_s == 900
        assert stats.last_error == "token request: answered 401"

    _with_bench(story)
