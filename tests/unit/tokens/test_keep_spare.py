"""The spare: young in steady state, quiet in an outage, back within seconds of its end."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from reconciler.errors import IssuerRefused, IssuerUnavailable
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.net.circuit_breaker import PROBE_S
from tests.unit.tokens.support import Desk


def _with_spare(story: Callable[[Desk], Awaitable[None]], **issuer: float) -> None:
    async def main() -> None:
        desk = Desk.open(VirtualClock(asyncio.get_running_loop()), **issuer)
        keeper = asyncio.create_task(desk.source.keep_standby())
        await story(desk)
        keeper.cancel()
        await asyncio.wait((keeper,))
        assert keeper.cancelled()
        await desk.source.close()

    run_virtual(main())


def _age_s(desk: Desk) -> float:
    best = desk.source.best()
    assert best is not None
    return best.ttl_s - best.remaining_s(desk.clock.monotonic())


@pytest.mark.parametrize("ttl_s", [20.0, 60.0, 900.0, 3600.0])
def test_the_best_token_is_never_older_than_a_tenth_of_its_life(ttl_s: float) -> None:
    async def story(desk: Desk) -> None:
        await asyncio.sleep(1)
        for _ in range(500):
            await asyncio.sleep(ttl_s / 97)
            assert _age_s(desk) <= 0.1 * ttl_s + 0.1
        assert len(desk.issuer.asked_at) <= 1 + desk.clock.monotonic() / (0.1 * ttl_s)

    _with_spare(story, ttl_s=ttl_s, takes_s=0.05)


def test_very_short_lives_do_not_turn_into_a_storm() -> None:
    async def story(desk: Desk) -> None:
        await asyncio.sleep(60)
        assert len(desk.issuer.asked_at) <= 61

    _with_spare(story, ttl_s=1.0)


def test_half_used_tokens_do_not_turn_into_a_storm() -> None:
    async def story(desk: Desk) -> None:
        await asyncio.sleep(900)
        assert len(desk.issuer.asked_at) <= 11

    _with_spare(story, age_s=600)


def test_an_outage_is_probed_at_the_probes_pace_and_its_end_is_noticed() -> None:
    async def story(desk: Desk) -> None:
        await asyncio.sleep(100)
        before = len(desk.issuer.asked_at)
        desk.issuer.fault = lambda: IssuerUnavailable("away")
        await asyncio.sleep(400)
        assert desk.breaker.stats().down
        assert 400 / PROBE_S / 2 <= len(desk.issuer.asked_at) - before <= 400
        assert _age_s(desk) > 400
        desk.issuer.fault = None
        await asyncio.sleep(PROBE_S)
        assert not desk.breaker.stats().down
        assert _age_s(desk) <= PROBE_S

    _with_spare(story)


def test_the_spare_outlives_an_outage_by_nine_tenths_of_a_life() -> None:
    async def story(desk: Desk) -> None:
        await asyncio.sleep(1234)
        desk.issuer.fault = lambda: IssuerUnavailable("away")
        await asyncio.sleep(0.9 * 900 - 1)
        assert desk.source.best() is not None

    _with_spare(story)


def test_one_lost_answer_is_repeated_within_a_second() -> None:
    async def story(desk: Desk) -> None:
        desk.issuer.fault = lambda: IssuerUnavailable("reset")
        await asyncio.sleep(0.1)
        desk.issuer.fault = None
        await asyncio.sleep(1.0)
        assert _age_s(desk) <= 1.0

    _with_spare(story)


def test_refused_credentials_are_tried_again_slowly_and_heal_by_themselves() -> None:
    async def story(desk: Desk) -> None:
        desk.issuer.fault = lambda: IssuerRefused("no", status=401)
        await asyncio.sleep(600)
        assert not desk.breaker.is_open
        assert len(desk.issuer.asked_at) < 80
        desk.issuer.fault = None
        await asyncio.sleep(31)
        assert desk.source.best() is not None

    _with_spare(story)


def test_an_outage_that_turns_into_a_refusal_wakes_nobody_until_that_ends_too() -> None:
    async def story(desk: Desk) -> None:
        heard: list[float] = []
        desk.breaker.on_recovery(lambda: heard.append(desk.clock.monotonic()))
        await asyncio.sleep(100)
        desk.issuer.fault = lambda: IssuerUnavailable("away")
        await asyncio.sleep(300)
        assert desk.breaker.stats().down
        desk.issuer.fault = lambda: IssuerRefused("no", status=401)
        await asyncio.sleep(60)
        stats = desk.breaker.stats()
        assert (stats.down, stats.refuses, heard) == (False, True, [])
        assert 50 < stats.refused_for_s <= 60
        desk.issuer.fault = None
        await asyncio.sleep(31)
        assert len(heard) == 1

    _with_spare(story)


def test_an_issuer_that_is_away_from_the_start_is_waited_for() -> None:
    async def main() -> None:
        desk = Desk.open(VirtualClock(asyncio.get_running_loop()))
        desk.issuer.fault = lambda: IssuerUnavailable("away")
        keeper = asyncio.create_task(desk.source.keep_standby())
        await asyncio.sleep(60)
        assert desk.source.best() is None
        desk.issuer.fault = None
        await asyncio.sleep(PROBE_S)
        assert desk.source.best() is not None
        keeper.cancel()
        await asyncio.wait((keeper,))

    run_virtual(main())
