"""Sessions whose writes are denied for hours: the tries become rarer, and recovery stays quick."""

import asyncio
import itertools
import math

import pytest

from reconciler import backoff
from reconciler.controller.decide.write_errors import (
    DENIED_FOR_LONG,
    DENIED_FOR_LONG_S,
    denied_wait_s,
)
from tests.unit.controller.test_denials import ROUNDS_S, install, now_s
from tests.unit.controller.virtual import PROJECT, World, running, simulate

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


def test_a_denial_without_end_causes_some_hundred_tries_a_day() -> None:
    async def scenario(world: World) -> None:
        webhook = install(world)
        world.add("2Ab0")
        async with running(world):
            await asyncio.sleep(60)
            webhook.denies.add(PROJECT)
            began_s = now_s()
            await asyncio.sleep(DAY_S)
            first = webhook.tries(began_s)
            assert 500 < len(first) < 700
            await asyncio.sleep(6 * HOUR_S)
            later = webhook.tries(began_s + DAY_S)
            assert 80 < len(later) < 120
            gaps_s = [next_at - at for at, next_at in itertools.pairwise(later)]
            assert max(gaps_s) <= DENIED_FOR_LONG_S + 1.0

    simulate(scenario)


@pytest.mark.parametrize("denied_s", [5 * 60.0, 20 * 60.0, HOUR_S, 6 * HOUR_S])
def test_the_end_of_a_denial_is_noticed_within_a_fraction_of_the_time_that_it_lasted(
    denied_s: float,
) -> None:
    async def scenario(world: World) -> None:
        webhook = install(world, PROJECT)
        world.add("2Ab0")
        async with running(world):
            await asyncio.sleep(denied_s)
            webhook.denies.clear()
            await asyncio.sleep(max(backoff.DENIED.cap_s, DENIED_FOR_LONG * denied_s) + ROUNDS_S)
            assert world.remaining_s("2Ab0") > 0

    simulate(scenario)


def test_a_new_pod_of_a_session_that_has_long_been_denied_does_not_wait_for_minutes() -> None:
    async def scenario(world: World) -> None:
        webhook = install(world, PROJECT)
        world.add("2Ab0")
        async with running(world):
            await asyncio.sleep(6 * HOUR_S)
            world.delete_pod("2Ab0")
            world.add_pod("2Ab0", name="session-2ab0-again")
            started_s = now_s()
            await asyncio.sleep(600)
            tried = [started_s, *webhook.tries(started_s)]
            gaps_s = [next_at - at for at, next_at in itertools.pairwise(tried)]
            assert len(tried) > 600 / backoff.DENIED.cap_s
            assert max(gaps_s) <= backoff.DENIED.cap_s + 1.0

    simulate(scenario)


def longest_s(attempt: int, left_s: float) -> float:
    return denied_wait_s(attempt, 1, slack_s=left_s - 90.0, left_s=left_s, rand=0.999)


@pytest.mark.parametrize("left_s", [DAY_S, 60.0, 0.0, -1.0, -600.0])
def test_a_session_with_a_token_or_one_that_expired_only_just_is_tried_as_before(
    left_s: float,
) -> None:
    assert longest_s(10_000, left_s) <= backoff.DENIED.cap_s


@pytest.mark.parametrize("left_s", [-DAY_S, -math.inf])
def test_the_first_denials_of_a_session_with_an_old_or_an_unknown_expiry_are_followed_soon(
    left_s: float,
) -> None:
    assert longest_s(40, left_s) <= backoff.DENIED.cap_s
    assert longest_s(10_000, left_s) == pytest.approx(DENIED_FOR_LONG_S, rel=0.01)
