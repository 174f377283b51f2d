"""The standby token: new in steady state, few probes in an outage, back seconds after it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from reconciler.clock import Instant
from reconciler.errors import IssuerRefused, IssuerUnavailable
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.net.circuit_breaker import PROBE_S
from tests.unit.tokens.support import SourceBench


def _with_standby(story: Callable[[SourceBench], Awaitable[None]], **issuer: float) -> None:
    async def main() -> None:
        bench = SourceBench.open(VirtualClock(asyncio.get_running_loop()), **issuer)
        keeper = asyncio.create_task(bench.source.keep_standby())
        await story(bench)
        keeper.cancel()
        await asyncio.wait((keeper,))
        assert keeper.cancelled()
        await bench.source.close()

    run_virtual(main())


def _age_s(bench: SourceBench) -> float:
    best = bench.source.best()
    assert best is not None
    return best.ttl_s - best.remaining_s(bench.clock.monotonic())


@pytest.mark.parametrize("ttl_s", [20.0, 60.0, 900.0, 3600.0])
def test_the_best_token_is_never_older_than_a_tenth_of_its_life(ttl_s: float) -> None:
    async def story(bench: SourceBench) -> None:
        await asyncio.sleep(1)
        for _ in range(500):
            await asyncio.sleep(ttl_s / 97)
            assert _age_s(bench) <= 0.1 * ttl_s + 0.1
        assert len(bench.issuer.asked_at) <= 1 + float(bench.clock.monotonic()) / (0.1 * ttl_s)

    _with_standby(story, ttl_s=ttl_s, takes_s=0.05)


def test_a_refusal_of_a_young_token_is_followed_at_the_end_of_its_pause() -> None:
    async def story(bench: SourceBench) -> None:
        await asyncio.sleep(1)
        bench.issuer.fault = lambda: IssuerRefused("invalid_client", status=401)
        with pytest.raises(IssuerRefused):
            await bench.source.refresh()
        bench.issuer.fault = None
        assert len(bench.issuer.asked_at) == 2
        await asyncio.sleep(30)  # far below the age at which a standby token is requested
        assert len(bench.issuer.asked_at) == 3

    _with_standby(story)


def test_very_short_lifetimes_do_not_cause_many_requests() -> None:
    async def story(bench: SourceBench) -> None:
        await asyncio.sleep(60)
        assert len(bench.issuer.asked_at) <= 61

    _with_standby(story, ttl_s=1.0)


def test_half_used_tokens_do_not_cause_many_requests() -> None:
    async def story(bench: SourceBench) -> None:
        await asyncio.sleep(900)
        assert len(bench.issuer.asked_at) <= 11

    _with_standby(story, age_s=600)


def test_an_outage_is_probed_at_the_probes_pace_and_its_end_is_noticed() -> None:
    async def story(bench: SourceBench) -> None:
        await asyncio.sleep(100)
        before = len(bench.issuer.asked_at)
        bench.issuer.fault = lambda: IssuerUnavailable("unreachable")
        await asyncio.sleep(400)
        assert bench.breaker.stats().down
        assert 400 / PROBE_S / 2 <= len(bench.issuer.asked_at) - before <= 400
        assert _age_s(bench) > 400
        bench.issuer.fault = None
        await asyncio.sleep(PROBE_S)
        assert not bench.breaker.stats().down
        assert _age_s(bench) <= PROBE_S

    _with_standby(story)


def test_the_standby_token_outlives_an_outage_by_nine_tenths_of_a_life() -> None:
    async def story(bench: SourceBench) -> None:
        await asyncio.sleep(1234)
        bench.issuer.fault = lambda: IssuerUnavailable("unreachable")
        await asyncio.sleep(0.9 * 900 - 1)
        assert bench.source.best() is not None

    _with_standby(story)


def test_one_lost_answer_is_repeated_within_a_second() -> None:
    async def story(bench: SourceBench) -> None:
        bench.issuer.fault = lambda: IssuerUnavailable("reset")
        await asyncio.sleep(0.1)
        bench.issuer.fault = None
        await asyncio.sleep(1.0)
        assert _age_s(bench) <= 1.0

    _with_standby(story)


def test_refused_credentials_are_tried_again_slowly_and_recover() -> None:
    async def story(bench: SourceBench) -> None:
        bench.issuer.fault = lambda: IssuerRefused("no", status=401)
        await asyncio.sleep(600)
        assert not bench.breaker.is_open
        assert len(bench.issuer.asked_at) < 80
        bench.issuer.fault = None
        await asyncio.sleep(31)
        assert bench.source.best() is not None

    _with_standby(story)


def test_an_outage_that_turns_into_a_refusal_wakes_no_session_until_that_ends_too() -> None:
    async def story(bench: SourceBench) -> None:
        heard: list[Instant] = []
        bench.breaker.on_recovery(lambda: heard.append(bench.clock.monotonic()))
        await asyncio.sleep(100)
        bench.issuer.fault = lambda: IssuerUnavailable("unreachable")
        await asyncio.sleep(300)
        assert bench.breaker.stats().down
        bench.issuer.fault = lambda: IssuerRefused("no", status=401)
        await asyncio.sleep(60)
        stats = bench.breaker.stats()
        assert (stats.down, stats.refuses, heard) == (False, True, [])
        assert 50 < stats.refused_for_s <= 60
        bench.issuer.fault = None
        await asyncio.sleep(31)
        assert len(heard) == 1

    _with_standby(story)


def test_an_issuer_that_is_unreachable_from_the_start_is_waited_for() -> None:
    async def main() -> None:
        bench = SourceBench.open(VirtualClock(asyncio.get_running_loop()))
        bench.issuer.fault = lambda: IssuerUnavailable("unreachable")
        keeper = asyncio.create_task(bench.source.keep_standby())
        await asyncio.sleep(60)
        assert bench.source.best() is None
        bench.issuer.fault = None
        await asyncio.sleep(PROBE_S)
        assert bench.source.best() is not None
        keeper.cancel()
        await asyncio.wait((keeper,))

    run_virtual(main())
