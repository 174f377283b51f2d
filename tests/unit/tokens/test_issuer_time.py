"""The issuer's time as the controller reads it: on virtual time, with a source that asks."""

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import formatdate

import pytest

from reconciler.clock import EpochTime
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.tokens.issuer_time import ClockMove, IssuerTime
from reconciler.tokens.server_clock import TimeSource, TokenTimes
from tests.support import ManualClock
from tests.unit.tokens.support import SourceBench


def _with_bench(story: Callable[[SourceBench], Awaitable[None]], **issuer: float) -> None:
    async def main() -> None:
        bench = SourceBench.open(VirtualClock(asyncio.get_running_loop()), **issuer)
        await story(bench)
        await bench.source.close()

    run_virtual(main())


async def _proven(bench: SourceBench) -> None:
    for _ in range(3):
        await bench.source.refresh()
        await asyncio.sleep(2)


def _answer(clock: ManualClock, *, ahead_s: float = 0.0) -> TokenTimes:
    issued_s, at = EpochTime(int(clock.wall_s + ahead_s)), clock.now_at
    return TokenTimes(issued_s, issued_s + 900, 900.0, at, at, token_id=hash((issued_s, at)))


def test_before_the_first_answer_the_wall_clock_is_the_best_guess() -> None:
    clock = ManualClock()
    time = IssuerTime(clock)
    clock.wall_s += 5
    assert not time.observed
    assert time.now_s() == clock.wall_s
    assert (time.skew_s, time.error_s) == (0.0, 0.0)
    assert time.offsets_s() == {}


def test_before_the_first_answer_the_time_is_supported_if_two_clocks_agree() -> None:
    clock = ManualClock()
    time = IssuerTime(clock)
    supported = [time.is_supported]
    time.observe_api_server(formatdate(float(clock.wall_s), usegmt=True))
    supported.append(time.is_supported)
    clock.wall_s += 60
    supported.append(time.is_supported)
    time.observe(_answer(clock), None)
    supported.append(time.is_supported)
    assert supported == [False, True, False, True]


def test_a_step_of_our_wall_clock_changes_nothing_but_the_skew() -> None:
    clock = ManualClock()
    time = IssuerTime(clock)
    time.observe(_answer(clock), None)
    before_s = time.now_s()
    clock.wall_s += 3600
    assert time.now_s() == before_s
    assert time.skew_s == pytest.approx(-3600, abs=0.5)


@pytest.mark.parametrize("step_s", [-3600.0, -700.0, 700.0, 3600.0])
def test_a_step_is_proven_by_two_more_tokens_before_one_is_given(step_s: float) -> None:
    moves: list[ClockMove] = []

    async def story(bench: SourceBench) -> None:
        bench.issuer_time.on_moved(moves.append)
        await _proven(bench)
        heard_at = bench.clock.monotonic() - 2
        asked = len(bench.issuer.asked_at)
        bench.issuer.skew_s = step_s
        token = await bench.source.refresh()
        assert len(bench.issuer.asked_at) - asked == 3
        assert bench.issuer_time.skew_s == pytest.approx(step_s, abs=1.0)
        assert token.remaining_s(bench.clock.monotonic()) == pytest.approx(900, abs=1.0)
        [move] = moves
        assert move.moved_s == pytest.approx(step_s, abs=1.0)
        assert move.since_at == pytest.approx(heard_at)
        assert not move.is_first
        await asyncio.sleep(2)
        await bench.source.refresh()
        assert len(bench.issuer.asked_at) - asked == 4

    _with_bench(story)


def test_one_node_of_the_issuer_that_is_ahead_moves_nothing_and_gives_no_token() -> None:
    async def story(bench: SourceBench) -> None:
        await _proven(bench)
        bench.issuer.skew_s = 700.0
        asking = asyncio.create_task(bench.source.refresh())
        await asyncio.sleep(0.5)
        bench.issuer.skew_s = 0.0
        token = await asking
        assert token.issued_s <= bench.clock.wall()
        assert bench.issuer_time.skew_s == pytest.approx(0, abs=1.0)

    _with_bench(story)


def test_the_first_estimate_that_differs_from_the_wall_is_a_move_too() -> None:
    clock = ManualClock()
    time, moves = IssuerTime(clock), list[ClockMove]()
    time.on_moved(moves.append)
    time.observe(_answer(clock, ahead_s=40.0), None)
    [move] = moves
    assert move.is_first
    assert move.moved_s == pytest.approx(40, abs=1.0)


def test_it_is_shown_by_how_much_each_clock_is_off() -> None:
    clock = ManualClock()
    time = IssuerTime(clock)
    time.observe_api_server("Thu, 01 Jan 2026 00:00:00 GMT")
    time.observe_api_server("no date at all")
    clock.wall_s -= 40.0
    time.observe(_answer(clock, ahead_s=40.0), clock.wall_s + 340.0)
    offsets_s = time.offsets_s()
    assert offsets_s[TimeSource.WALL_CLOCK] == pytest.approx(-40, abs=1.0)
    assert offsets_s[TimeSource.ISSUER_DATE] == pytest.approx(300, abs=1.0)
    assert offsets_s[TimeSource.API_SERVER_DATE] == pytest.approx(0, abs=1.0)


def test_the_api_servers_date_breaks_a_tie_between_a_cached_answer_and_our_clock() -> None:
    clock = ManualClock()
    time = IssuerTime(clock)
    time.observe_api_server("Thu, 01 Jan 2026 00:00:00 GMT")
    received_s = time.observe(_answer(clock, ahead_s=-600.0), None)
    assert received_s == pytest.approx(clock.wall_s, abs=1.0)


def test_a_token_without_a_date_came_at_the_time_that_the_tokens_show() -> None:
    clock = ManualClock()
    time = IssuerTime(clock)
    came_s = []
    for _ in range(4):
        came_s.append(time.observe(_answer(clock, ahead_s=3600.0), None) - clock.wall_s)
        clock.advance(2.0)
    assert came_s == pytest.approx([3600.0] * 4, abs=1.0)


def test_an_answer_of_the_api_server_that_is_read_late_blames_no_clock() -> None:
    clock = ManualClock()
    time = IssuerTime(clock)
    time.observe(_answer(clock), None)
    time.observe_api_server("Thu, 01 Jan 2026 00:00:00 GMT")
    clock.advance(60.0)
    time.observe_api_server("Thu, 01 Jan 2026 00:00:45 GMT")
    assert time.offsets_s()[TimeSource.API_SERVER_DATE] == 0.0
    for second in range(10):
        time.observe_api_server(f"Thu, 01 Jan 2026 00:00:{40 + second} GMT")
        clock.advance(1.0)
    assert time.offsets_s()[TimeSource.API_SERVER_DATE] == pytest.approx(-20, abs=1.0)


def test_a_slow_answer_blames_no_clock() -> None:
    clock = ManualClock()
    time = IssuerTime(clock)
    sent_at, issued_s = clock.now_at, clock.wall_s
    clock.advance(20.0)
    times = TokenTimes(issued_s, issued_s + 900, 900.0, sent_at, clock.now_at, token_id=1)
    time.observe(times, issued_s)
    assert set(time.offsets_s().values()) == {0.0}
