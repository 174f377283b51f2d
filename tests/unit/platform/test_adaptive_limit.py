"""Requests to the platform at one time: additive increase, multiplicative decrease, two kinds."""

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import Instant
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.platform.adaptive_limit import SLOW_S, AdaptiveLimit, RequestKind
from reconciler.platform.limiter import Limiter

STEPS = ("ask", "end", "slow", "fail", "give_up", "drop")


def begun(limit: AdaptiveLimit[int], count: int, kind: RequestKind = RequestKind.LIST) -> list[int]:
    for waiter in range(count):
        limit.ask(waiter, kind)
    return limit.admit()


def end_all(limit: AdaptiveLimit[int], count: int, *, at: Instant, took_s: float) -> None:
    for _ in range(count):
        limit.ended(began_at=at - took_s, now_at=at, failed=False)


def test_as_many_as_the_limit_are_under_way_and_the_rest_waits() -> None:
    limit: AdaptiveLimit[int] = AdaptiveLimit(3)
    assert begun(limit, 5) == [0, 1, 2]
    assert len(limit) == 2
    limit.ended(began_at=Instant(0), now_at=Instant(0.1), failed=False)
    assert limit.admit() == [3]


def test_one_round_of_slow_answers_halves_it_once_and_each_further_round_again() -> None:
    limit: AdaptiveLimit[int] = AdaptiveLimit(8)
    for round_at, allowed in ((10.0, 4), (20.0, 2), (30.0, 1), (40.0, 1)):
        count = len(begun(limit, limit.allowed))
        end_all(limit, count, at=Instant(round_at), took_s=2.0)
        assert limit.allowed == allowed


def test_a_failure_halves_it_however_prompt_it_is() -> None:
    limit: AdaptiveLimit[int] = AdaptiveLimit(8)
    begun(limit, 1)
    limit.ended(began_at=Instant(1), now_at=Instant(1.01), failed=True)
    assert limit.allowed == 4


def test_prompt_rounds_raise_it_by_one_each_up_to_the_most() -> None:
    limit: AdaptiveLimit[int] = AdaptiveLimit(4)
    for round_at in (10.0, 20.0):
        count = len(begun(limit, limit.allowed))
        end_all(limit, count, at=Instant(round_at), took_s=2.0)
    assert limit.allowed == 1
    for allowed in (2, 3, 4, 4):
        count = len(begun(limit, limit.allowed))
        end_all(limit, count, at=Instant(50), took_s=0.1)
        assert limit.allowed == allowed


@pytest.mark.parametrize("took_s", [SLOW_S, SLOW_S + 0.01])
def test_an_answer_after_exactly_the_limit_of_slowness_is_prompt(took_s: float) -> None:
    limit: AdaptiveLimit[int] = AdaptiveLimit(8)
    begun(limit, 1)
    end_all(limit, 1, at=Instant(took_s), took_s=took_s)
    assert limit.allowed == (8 if took_s == SLOW_S else 4)


def test_the_kinds_take_turns_while_both_wait() -> None:
    limit: AdaptiveLimit[str] = AdaptiveLimit(1)
    for number in range(3):
        limit.ask(f"list {number}", RequestKind.LIST)
    for number in range(2):
        limit.ask(f"single {number}", RequestKind.SINGLE)
    order = []
    while admitted := limit.admit():
        order += admitted
        limit.ended(began_at=Instant(0), now_at=Instant(0), failed=False)
    assert order == ["single 0", "list 0", "single 1", "list 1", "list 2"]


def test_fewer_than_one_request_is_no_limit() -> None:
    with pytest.raises(ValueError, match="at least one"):
        AdaptiveLimit(0)


@given(
    most=st.integers(1, 16),
    steps=st.lists(
        st.tuples(st.sampled_from(["ask", "end", "slow", "fail", "give_up", "drop"]), st.booleans())
    ),
)
def test_never_more_than_allowed_begin_and_no_waiter_is_lost(
    most: int, steps: list[tuple[str, bool]]
) -> None:
    limit: AdaptiveLimit[int] = AdaptiveLimit(most)
    asked = admitted = ended = dropped = 0
    now_at = 0.0
    for step, flag in steps:
        now_at += 0.5
        if step == "ask":
            limit.ask(asked, RequestKind.LIST if flag else RequestKind.SINGLE)
            asked += 1
        elif step == "drop":
            dropped += limit.drop(asked - 1)
        elif limit.under_way:
            ended += 1
            if step == "give_up":
                limit.given_up()
            else:
                took_s = 5.0 if step == "slow" else 0.1
                limit.ended(
                    began_at=Instant(now_at - took_s), now_at=Instant(now_at), failed=step == "fail"
                )
        before = limit.under_way
        new = limit.admit()
        admitted += len(new)
        assert 1 <= limit.allowed <= most
        assert not new or limit.under_way <= limit.allowed
        assert limit.under_way == before + len(new) == admitted - ended
        assert len(limit) == asked - admitted - dropped
        assert not len(limit) or limit.under_way >= limit.allowed


def test_a_caller_that_is_cancelled_in_any_state_leaves_its_turn_to_the_next() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        turns, random, served = Limiter(VirtualClock(loop), most=2), Random(3), 0

        async def ask(number: int) -> None:
            nonlocal served
            async with turns.turn(RequestKind.SINGLE if number % 2 else RequestKind.LIST):
                await asyncio.sleep(random.uniform(0.0, 0.2))
            served += 1

        tasks = [asyncio.create_task(ask(number)) for number in range(300)]
        for task in random.sample(tasks, 150):
            await asyncio.sleep(random.choice([0.0, 0.05]))
            task.cancel()
        await asyncio.wait(tasks)
        assert served >= 150
        assert turns.limit.under_way == 0
        assert len(turns.limit) == 0

    run_virtual(main())


def test_an_error_of_the_caller_counts_as_failed() -> None:
    async def main() -> None:
        turns = Limiter(VirtualClock(asyncio.get_running_loop()), most=8)
        with pytest.raises(TimeoutError):
            async with turns.turn(RequestKind.LIST):
                raise TimeoutError
        assert turns.limit.allowed == 4

    run_virtual(main())
