"""Events of the whole controller on virtual time: which, how often, and at what cost."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from reconciler.controller.events.recorder import CAPACITY, EventStats
from reconciler.errors import Forbidden, ServerError, TransportError
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.kinds import EVENTS, PODS
from tests.lab.leaks import core_texts, find_leaks
from tests.unit.controller.virtual import INTRUDER, NAMES, PROJECT, World, running, simulate


async def settled(world: World) -> None:
    async with asyncio.timeout(60):
        await world.controller.startup.finished.wait()
        await asyncio.sleep(5)


def recorded(world: World) -> list[tuple[str, str, int]]:
    """Return type, reason and count of every Event, oldest first."""
    found = sorted(events(world), key=lambda one: int(one["metadata"]["resourceVersion"]))
    return [(one["type"], one["reason"], one["count"]) for one in found]


def events(world: World) -> list[Mapping[str, Any]]:
    return list(world.core.list(EVENTS).items)


def test_an_hour_without_trouble_makes_no_event() -> None:
    async def scenario(world: World) -> None:
        for number in range(3):
            world.add(f"2Ab{number}")
        async with running(world):
            await settled(world)
            await asyncio.sleep(3600)
        assert recorded(world) == []
        assert world.controller.events.stats == EventStats()

    simulate(scenario)


def test_consecutive_failures_make_an_event_at_the_first_and_at_their_end() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        async with running(world):
            await settled(world)
            world.faults.rule = lambda verb, plural: (
                InjectedFault(ServerError("no", status=500))
                if (verb, plural) == ("patch", "secrets")
                else None
            )
            await asyncio.sleep(700)
            world.faults.rule = None
            await asyncio.sleep(60)
            assert recorded(world) == [
                ("Warning", "RefreshFailed", 1),
                ("Normal", "RefreshRecovered", 1),
            ]
            [event, _] = events(world)
            assert event["message"] == ("The runner's token could not be refreshed (scheduled): no")
            pod = world.core.get(PODS, PROJECT, "session-2aa-runner")["metadata"]
            assert event["involvedObject"] | {"resourceVersion": ""} == {
                "apiVersion": "v1", "kind": "Pod", "namespace": PROJECT, "name": pod["name"],
                "uid": pod["uid"], "resourceVersion": "",
            }  # fmt: skip
            assert event["source"] == {"component": "token-reconciler"}
            assert event["reportingComponent"] == "token-reconciler"

    simulate(scenario)


def test_a_conflict_is_no_failure_worth_an_event() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        async with running(world):
            await settled(world)
            version = {"metadata": {"annotations": {"other/tool": "was here"}}}
            for _ in range(30):
                await asyncio.sleep(30)
                world.core.patch(PODS, PROJECT, "session-2aa-runner", version, by=INTRUDER)
        assert recorded(world) == []

    simulate(scenario)


def test_an_overwrite_a_competing_writer_and_a_deletion_make_events() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        async with running(world):
            await settled(world)
            world.overwrite("2Aa")
            await asyncio.sleep(20)
            assert recorded(world) == [("Warning", "TokenOverwritten", 1)]
            assert "kubectl overwrote" in events(world)[0]["message"]
            for number in range(12):
                world.overwrite("2Aa", f"obviously-fake-intruder-{number}")
                await asyncio.sleep(20)
            reasons = {reason: count for _, reason, count in recorded(world)}
            assert reasons["SecretFoughtOver"] >= 1
            assert len(recorded(world)) == 2
            world.delete_secret("2Aa")
            await asyncio.sleep(400)
            assert ("Warning", "SecretRecreated", 1) in recorded(world)
            assert find_leaks(core_texts(world.core), world.issuer.minted) == []

    simulate(scenario)


def test_a_pause_makes_one_event_however_long_it_lasts() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        async with running(world):
            await settled(world)
            for value in ("true", None, "true"):
                body = {"metadata": {"annotations": {NAMES.paused: value}}}
                world.core.patch(PODS, PROJECT, "session-2aa-runner", body, by=INTRUDER)
                await asyncio.sleep(1000)
            assert recorded(world) == [
                ("Normal", "RefreshResumed", 1),
                ("Normal", "RefreshPaused", 2),
            ]

    simulate(scenario)


def test_a_storm_is_bounded_and_delays_no_refresh() -> None:
    async def scenario(world: World) -> None:
        count = 2 * CAPACITY
        for number in range(count):
            world.add(f"2Ab{number}")
        async with running(world):
            await settled(world)
            hang = InjectedFault(delay_s=4.0)
            world.faults.rule = lambda verb, plural: hang if plural == "events" else None
            for number in range(count):
                world.delete_secret(f"2Ab{number}")
            await asyncio.sleep(10)
            assert min(world.remaining_s(f"2Ab{n}") for n in range(count)) > 800
            stats = world.controller.events.stats
            assert stats.created <= 3
            assert len(world.controller.events) <= CAPACITY
            assert stats.dropped >= count - CAPACITY - 3

    simulate(scenario)


@pytest.mark.parametrize(
    ("error", "stats", "lines"),
    [
        (TransportError("no route"), EventStats(dropped=3), 0),
        (ServerError("no", status=500), EventStats(dropped=3), 0),
        (Forbidden("events is forbidden", status=403), EventStats(forbidden=3), 1),
    ],
    ids=["unreachable", "failing", "forbidden"],
)
def test_an_event_that_cannot_be_made_costs_one_count_and_a_missing_right_one_line(
    error: Exception, stats: EventStats, lines: int
) -> None:
    async def scenario(world: World) -> None:
        for number in range(3):
            world.add(f"2Ab{number}")
        async with running(world):
            await settled(world)
            world.faults.rule = lambda verb, plural: (
                InjectedFault(error) if plural == "events" else None  # type: ignore[arg-type]  # all are KubeErrors
            )
            for number in range(3):
                world.delete_secret(f"2Ab{number}")
            await asyncio.sleep(30)
        assert world.controller.events.stats == stats
        assert len(world.events("events_forbidden")) == lines
        assert min(world.remaining_s(f"2Ab{n}") for n in range(3)) > 800

    simulate(scenario)


def test_only_a_replica_that_may_write_records_events() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        async with running(world):
            await settled(world)
            world.fence.is_open = False
            body = {"metadata": {"annotations": {NAMES.paused: "true"}}}
            world.core.patch(PODS, PROJECT, "session-2aa-runner", body, by=INTRUDER)
            await asyncio.sleep(60)
            assert world.events("session_blocked")
            assert recorded(world) == []
            assert world.controller.events.stats.dropped == 0  # none was queued

    simulate(scenario)


def test_events_of_an_outage_come_after_it_and_repetitions_share_one() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        async with running(world):
            await settled(world)
            world.faults.rule = lambda verb, plural: InjectedFault(TransportError("no route"))
            world.faults.drop_watches()
            await asyncio.sleep(700)
            world.faults.rule = None
            await asyncio.sleep(30)
            assert recorded(world) == [
                ("Warning", "RefreshFailed", 1),
                ("Normal", "RefreshRecovered", 1),
            ]

    simulate(scenario)
