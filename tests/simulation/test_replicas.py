"""Three replicas with every fault of leader election: only one of them writes at a time."""

import asyncio
import os
from collections import Counter

import pytest

from reconciler.lab.simulation.commit_checks import NO_WRITE_WITHOUT_LEADERSHIP
from reconciler.lab.simulation.run import play
from reconciler.lab.simulation.scenario import ELECTION, draw_election
from reconciler.lab.simulation.virtual_time import FreezableScope, run_virtual
from reconciler.leadership.lease_fence import LeaseFence

SEEDS = int(os.environ.get("RECONCILER_SEEDS", 20))
"""`make worlds` plays more."""

SHARE = 10
"""Seeds of a test."""


@pytest.mark.parametrize("first", range(0, SEEDS, SHARE))
def test_no_two_replicas_write_whatever_strikes_the_leader(first: int) -> None:
    changes = 0
    for seed in range(first, first + SHARE):
        outcome = play(draw_election(seed))
        assert outcome.violations == (), "\n".join([f"seed {seed}", *outcome.last])
        assert outcome.writes_total > outcome.sessions
        changes += outcome.leader_changes
    assert changes > 2 * SHARE


def test_every_way_to_strike_a_leader_is_drawn() -> None:
    drawn = Counter(fault.kind for seed in range(20) for fault in draw_election(seed).faults)
    assert set(drawn) == set(ELECTION)


def test_without_the_gate_a_frozen_leader_would_write_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseFence, "may_write", lambda fence, need_s: True)
    monkeypatch.setattr(LeaseFence, "check", lambda fence: None)
    found = {v.invariant for seed in range(8) for v in play(draw_election(seed)).violations}
    assert NO_WRITE_WITHOUT_LEADERSHIP in found


def test_a_frozen_domain_does_nothing_until_the_thaw_and_drops_what_was_cancelled() -> None:
    async def main() -> None:
        domain, ran = FreezableScope(), list[str]()
        news: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            try:
                async with asyncio.timeout(5):
                    ran.append(await news)
            except TimeoutError:
                ran.append("too late")
            await asyncio.sleep(1)
            ran.append("slept")

        task = domain.create_task(work())
        await asyncio.sleep(1)
        domain.freeze()
        news.set_result("news")  # it arrives first; the limit passes while no one can see it
        await asyncio.sleep(100)
        assert ran == []
        domain.thaw()
        await task
        assert ran == ["news", "slept"]
        assert asyncio.get_running_loop().time() == pytest.approx(102.0)

    run_virtual(main())
