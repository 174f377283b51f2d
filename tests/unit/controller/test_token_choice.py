"""Which token is written: the issuer is asked below the floor, though one at hand would do."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from reconciler.clock import EpochTime, Instant
from reconciler.controller.decide.refresh_plan import Action, Plan
from reconciler.controller.reconcile.token_choice import choose
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
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
