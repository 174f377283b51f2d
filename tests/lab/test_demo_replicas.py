"""`reconciler demo` with replicas: leaders end in every way, and no runner notices it."""

import pytest

from tests.lab.test_demo import assert_clean, run

pytestmark = pytest.mark.realtime

SMALL = (
    "--sessions", "8", "--replicas", "3", "--token-ttl", "12", "--projection-delay", "0.2-0.6",
    "--report", "json",
)  # fmt: skip


async def test_a_killed_and_a_frozen_leader_cost_nothing() -> None:
    ended = await run(
        *SMALL, "--duration", "24", "--chaos", "kill-leader@5", "--chaos", "freeze-leader@12+5"
    )

    found = ended.report()
    assert ended.code == 0
    assert_clean(found)
    assert (found["replicas"], found["lease_s"]) == (3, 2)
    assert found["leader_changes"] >= 2
    assert found["writes_applied_without_leadership"] == 0
    assert found["failover_s"] > 0


@pytest.mark.timeout(120)
async def test_ten_leaders_that_are_frozen_past_their_lease_write_nothing_late() -> None:
    chaos = [f"freeze-leader@{4 + 5 * number}+3" for number in range(10)]
    options = [word for each in chaos for word in ("--chaos", each)]
    ended = await run(*SMALL, "--duration", "58", *options)

    found = ended.report()
    assert found["writes_applied_without_leadership"] == 0
    assert found["leader_changes"] >= 10
    assert ended.code == 0


async def test_clocks_that_step_an_hour_either_way_change_no_leader() -> None:
    ended = await run(*SMALL, "--duration", "16", "--chaos", "clock-step@4+5")

    found = ended.report()
    assert ended.code == 0
    assert_clean(found)
    assert found["leader_changes"] == 0


async def test_replicas_killed_together_lead_again_at_once_in_their_pods() -> None:
    ended = await run(*SMALL, "--duration", "12", "--chaos", "restart-all@5")

    found = ended.report()
    assert ended.code == 0
    assert_clean(found)
    assert '"event":"lease_taken_over"' in ended.stderr
    assert found["leader_changes"] == 1
