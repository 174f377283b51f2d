"""Which token is written: the issuer is asked below the floor, though one at hand would do."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from reconciler.clock import EpochTime, Instant
from reconciler.controller.decide.annotations import TokenAnnotations
from reconciler.controller.decide.refresh_plan import Action, Plan
from reconciler.controller.reconcile.token_choice import best_available, choose, is_improvement
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.tokens.token import Token
from reconciler.workqueue.items import Priority
from tests.unit.tokens.support import SourceBench


def _with_bench(story: Callable[[SourceBench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = SourceBench.open(VirtualClock(asyncio.get_running_loop()))
        await story(bench)
        await bench.source.close()

    run_virtual(main())


@pytest.mark.parametrize("reason", ["scheduled", "startup_resync", "expiring", "token_replaced"])
@pytest.mark.parametrize(("left", "asked"), [(0.85, 1), (0.7, 2)])
def test_a_token_at_hand_with_less_than_the_floor_is_not_written(
    reason: str, left: float, asked: int
) -> None:
    async def story(bench: SourceBench) -> None:
        first = await bench.source.get(min_remaining=0.0)
        await asyncio.sleep((1 - left) * 900)
        plan = Plan(Action.WRITE, reason, Priority.ROUTINE, EpochTime(0), 0.0)
        token = await choose(bench.source, plan, term_began_at=Instant(0))
        assert token is not None
        assert len(bench.issuer.asked_at) == asked
        assert (token is first) is (asked == 1)
        assert token.remaining_s(bench.clock.monotonic()) >= 0.8 * 900

    _with_bench(story)


@pytest.mark.parametrize(
    ("is_ours", "problem", "asked"),
    [(True, "expiry_unknown", 2), (True, "", 1), (False, "", 1)],
    ids=["ours, hidden", "ours, readable", "another writer's"],
)
def test_a_token_of_ours_whose_expiry_is_hidden_gets_one_that_is_younger_than_the_term(
    is_ours: bool, problem: str, asked: int
) -> None:
    """The previous leader may have written a younger one than our standby token."""

    async def story(bench: SourceBench) -> None:
        await bench.source.get(min_remaining=0.0)
        await asyncio.sleep(30.0)
        began_at, expires_s = bench.clock.monotonic(), None if problem else EpochTime(0)
        found = TokenAnnotations(None, expires_s, "", None, is_ours, "", problem)
        plan = Plan(Action.WRITE, "any", Priority.EXPIRING, EpochTime(0), 0.0, annotations=found)
        for _ in range(3):  # one request a term
            at_hand = best_available(bench.source, plan, term_began_at=began_at)
            assert (at_hand is None) is (asked > len(bench.issuer.asked_at))
            token = await choose(bench.source, plan, term_began_at=began_at)
            assert token is not None
            assert len(bench.issuer.asked_at) == asked
            assert (token.received_at >= began_at) is (asked == 2)

    _with_bench(story)


@pytest.mark.parametrize(
    ("reason", "later_s", "is_written"),
    [
        ("scheduled", 1, True),
        ("scheduled", 0, False),
        ("scheduled", -1, False),
        ("expiring", -1, False),
        ("startup_resync", 0, True),
        ("startup_resync", -1, False),
        ("requested", 0, True),
        ("requested", -1, False),
        ("token_replaced", -1, True),
    ],
)
def test_an_expiry_moves_backwards_for_a_replaced_token_alone(
    reason: str, later_s: float, *, is_written: bool
) -> None:
    found = TokenAnnotations(EpochTime(0), EpochTime(900), "", None, True, "", "")
    token = Token(
        "obviously-fake-token",
        issued_s=EpochTime(0),
        expires_s=EpochTime(900) + later_s,
        received_at=Instant(0),
    )
    assert is_improvement(token, found, reason) is is_written
