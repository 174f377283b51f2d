"""The last hours in a ring: what happened is in its minute, in memory that does not grow."""

import asyncio
import math
import tracemalloc
from typing import Any

import pytest

from reconciler.clock import Instant
from reconciler.controller.reconcile.run import ReconcileStats
from reconciler.controller.status.snapshot import LeaseStatus
from reconciler.controller.status.trend import STEP_S, STEPS, Trend
from reconciler.net.circuit_breaker import BreakerStats
from tests.exhibit import Shown, survey
from tests.unit.controller.virtual import World, running, simulate

LEADER = LeaseStatus("a/1", True, "a_uid_1", 7, 0)


def at(minute: float, **changes: Any) -> Shown:
    return survey(taken_at=Instant(minute * STEP_S), **changes)


def test_what_happened_is_in_its_minute() -> None:
    trend = Trend()
    stats = ReconcileStats({"scheduled": 5}, {})
    trend.add(at(10, reconciler=stats, exposure_s=3.0, lease=LEADER))
    stats = ReconcileStats({"scheduled": 9, "expired": 1}, {"Conflict": 2})
    trend.add(at(11.2, reconciler=stats, exposure_s=3.0, lease=LEADER))
    changed = LeaseStatus("a/1", True, "a_uid_1", 8, 0)
    trend.add(at(11.9, reconciler=stats, exposure_s=5.5, lease=changed, down="issuer"))

    found = trend.read()

    assert found["refreshes"] == (0.0, 5.0)
    assert found["failures"] == (0.0, 2.0)
    assert found["exposure_s"] == (0.0, 2.5)
    assert found["leader_changes"] == (0.0, 1.0)
    assert (found["issuer"], found["kube"]) == ((0.0, 1.0), (0.0, 0.0))


def test_an_outage_between_two_snapshots_is_counted() -> None:
    trend = Trend()
    for minute, outages in ((1, 4), (2, 6), (3, 6)):
        trend.add(at(minute, breakers=(BreakerStats("kube", False, 0.0, outages, ""),)))

    assert trend.read()["kube"] == (0.0, 1.0, 0.0)


def test_a_lease_that_was_not_seen_before_is_no_change() -> None:
    trend = Trend()
    for minute, lease in ((1, LeaseStatus("", False, "", 0, 0)), (2, LEADER), (3, LEADER)):
        trend.add(at(minute, lease=lease))

    assert trend.read()["leader_changes"] == (0.0, 0.0, 0.0)


def test_minutes_without_a_snapshot_are_unknown() -> None:
    trend = Trend()
    for minute in (5, 8):
        trend.add(at(minute, exposure_s=float(minute)))

    first, *between, last = trend.read()["exposure_s"]
    assert (first, last) == (0.0, 3.0)
    assert [math.isnan(value) for value in between] == [True, True]


@pytest.mark.parametrize("pause", [STEPS - 1, STEPS, 10 * STEPS])
def test_a_long_pause_leaves_the_newest_minute_alone(pause: int) -> None:
    trend = Trend()
    trend.add(at(0))
    trend.add(at(1, exposure_s=1.0))
    trend.add(at(1 + pause, exposure_s=4.0))

    found = trend.read()["exposure_s"]
    assert found[-1] == 3.0
    assert [value for value in found[:-1] if value > 0] == ([1.0] if pause < STEPS else [])


def test_its_memory_is_of_a_fixed_size() -> None:
    trend = Trend()
    shown = [at(minute, exposure_s=float(minute)) for minute in range(3 * STEPS)]
    for each in shown[:STEPS]:
        trend.add(each)
    tracemalloc.start()
    for each in shown[STEPS:]:
        trend.add(each)
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept_bytes < 2_000
    assert len(trend.read()["exposure_s"]) == STEPS


def test_a_controller_keeps_what_its_fleet_and_its_endpoints_did() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        async with running(world):
            await asyncio.sleep(200)
            world.issuer.refused = True
            await asyncio.sleep(100)
            world.issuer.refused = False
            await asyncio.sleep(400)
            found = world.controller.status_collector.trend()
        assert sum(found["refreshes"]) == sum(world.controller.stats.refreshes.values()) > 1
        assert 1 <= sum(found["issuer"]) <= 4
        assert sum(found["kube"]) == 0
        assert max(found["lateness_s"]) < 60
        assert len(found["refreshes"]) == pytest.approx(700 / STEP_S, abs=2)

    simulate(scenario)
