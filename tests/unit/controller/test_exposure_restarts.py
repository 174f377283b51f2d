"""Estimated exposure: counted from when a pod's container can have started, and by whom it grew."""

import asyncio

import pytest

from reconciler.clock import EpochTime
from reconciler.controller.status.exposure import (
    EARLIEST_START_S,
    RECENT,
    TOUCHED_S,
    EstimatedExposure,
)
from reconciler.controller.status.status_metrics import samples
from reconciler.naming import SessionKey
from reconciler.platform.models import PlatformSession
from reconciler.telemetry import metrics
from tests.unit.controller.virtual import PROJECT, World, finished, running, simulate

KEY = SessionKey("team-a", "2Ab0")


async def ended_and_expired(world: World, session: str) -> None:
    """Have a session stopped, and wait until its Secret's token has expired."""
    world.platform.sessions[session] = PlatformSession(
        id=session, project_id=PROJECT, phase="Stopped"
    )
    world.delete_pod(session)
    await asyncio.sleep(2000)
    assert world.remaining_s(session) < 0


def restart(world: World, session: str) -> None:
    """Start a session again as the platform does: another pod on the Secret that is there."""
    world.platform.sessions[session] = PlatformSession(
        id=session, project_id=PROJECT, phase="Running"
    )
    world.add_pod(session)


async def read(world: World) -> tuple[float, float | None]:
    """Return the metrics: the sum, and when it last grew."""
    survey = await world.controller.status_collector.snapshot(max_age_s=0.0)
    found = {sample.metric: sample.value for sample in samples(survey, per_session=False)}
    total, grown = found[metrics.EXPOSURE], found.get(metrics.EXPOSURE_GREW)
    assert isinstance(total, float)
    assert grown is None or isinstance(grown, float)
    return total, grown


def test_a_session_that_restarts_on_an_expired_token_is_not_exposed_if_written_in_time() -> None:
    async def scenario(world: World) -> None:
        sessions = [f"2Ab{number}" for number in range(8)]
        for session in sessions:
            world.add(session)
        async with running(world):
            await finished(world, 1)
            world.add("2Fine")
            for session in sessions:
                await ended_and_expired(world, session)
            for session in sessions:
                restart(world, session)
                await asyncio.sleep(0.7)  # at every part of a second: creation times have none
                await read(world)
            await asyncio.sleep(5)
            assert min(world.remaining_s(session) for session in sessions) > 800
            assert len(world.pod_writes()) >= len(sessions)
            total_s, grew_s = await read(world)
            assert (total_s, grew_s) == (0.0, None)

    simulate(scenario)


def test_a_restart_without_a_write_is_counted_from_the_containers_earliest_start() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        world.add("2Fine")
        async with running(world):
            await finished(world, 1)
            await ended_and_expired(world, "2Ab0")
            world.controller.queue.pause()
            restart(world, "2Ab0")
            made_s = world.clock.wall()
            await asyncio.sleep(30)
            total_s, grew_s = await read(world)
            assert total_s == pytest.approx(30 - EARLIEST_START_S, abs=1.01)
            assert grew_s == pytest.approx(made_s + 30, abs=0.5)
            survey = await world.controller.status_collector.snapshot()
            assert [each.key for each in survey.exposed] == [SessionKey(PROJECT, "2Ab0")]
            assert survey.exposed[0].seconds == pytest.approx(total_s)
            world.controller.queue.resume()
            await asyncio.sleep(100)
            total_s, grew_s = await read(world)
            assert total_s == pytest.approx(30 - EARLIEST_START_S + TOUCHED_S, abs=1.2)
            assert grew_s == pytest.approx(made_s + 30, abs=3)

    simulate(scenario)


def test_the_sessions_that_are_named_are_bounded_and_those_of_late() -> None:
    exposure = EstimatedExposure(90.0)
    for number in range(500):
        key = SessionKey("team-a", f"2Ab{number}")
        exposure.count(
            EpochTime(900), EpochTime(0), EpochTime(0), now_s=EpochTime(1000.0 + number), key=key
        )
    exposure.count(
        EpochTime(900),
        EpochTime(0),
        EpochTime(990),
        now_s=EpochTime(1000),
        key=SessionKey("team-a", "2Ab495"),
    )
    recent = exposure.recent()
    assert len(recent) == RECENT
    assert recent[0].key == SessionKey("team-a", "2Ab495")
    assert recent[0].seconds == 595.0 + 10.0


@pytest.mark.parametrize(
    ("written_s", "touched", "exposed_s"),
    [
        (1000.0 + EARLIEST_START_S, True, 0.0),
        (1000.0 + EARLIEST_START_S, False, 0.0),
        (1000.0 + EARLIEST_START_S + 1, True, 1 + TOUCHED_S),
        (1000.0 + EARLIEST_START_S + 1, False, 1 + 90.0),
    ],
)
def test_what_is_written_before_the_container_can_have_started_is_what_it_reads(
    written_s: EpochTime, touched: bool, exposed_s: float
) -> None:
    exposure = EstimatedExposure(90.0)
    exposure.written(KEY, EpochTime(500), EpochTime(1000), written_s, touched=touched)
    assert exposure.total_s == exposed_s
