"""Several `reconciler run` on a real API server: one writes, and the next takes over unnoticed."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.cluster.admin import MERGE, Admin
from tests.cluster.controlplane import ControlPlane
from tests.cluster.deeds import Deeds, leases
from tests.cluster.world import ExpiryWatch, World, open_world
from tests.controller import Controller, running

pytestmark = pytest.mark.timeout(120)

TTL_S = 60.0
SESSIONS = 6
SHORT_LEASE = {
    "RECONCILER_LEASE_DURATION_S": "4",
    "RECONCILER_RENEW_DEADLINE_S": "3",
    "RECONCILER_RETRY_PERIOD_S": "0.5",
    "RECONCILER_REQUEST_LIMIT_S": "3",
}


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path, ttl_s=TTL_S) as opened:
        await opened.add_sessions(each=SESSIONS)
        yield opened


@asynccontextmanager
async def replicas(world: World, count: int) -> AsyncIterator[list[Controller]]:
    """Start replicas in separate pods; the first of the list leads, the others are standby."""
    async with AsyncExitStack() as stack:
        started = []
        for index in range(count):
            settings = world.environment(
                RECONCILER_REPLICA=f"reconciler-{index}",
                RECONCILER_POD_UID=f"11111111-2222-3333-4444-00000000000{index}",
                **SHORT_LEASE,
            )
            controller = await stack.enter_async_context(running(settings))
            await controller.wait_for_event("lease_acquired" if index == 0 else "leader_observed")
            await controller.wait_for_event("stores_synced")
            started.append(controller)
        await started[0].wait_for_event("startup_resync_finished")
        yield started


class Succession:
    """Created before a leader ends; waits for the next holder of the Lease."""

    def __init__(self, *controllers: Controller) -> None:
        self._wins = {each: len(each.events("lease_acquired")) for each in controllers}

    async def winner(self) -> Controller:
        """Return the next leader, once it has refreshed every session."""
        waiting = {
            asyncio.create_task(_led(controller, wins + 1)): controller
            for controller, wins in self._wins.items()
        }
        done, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.wait(waiting)
        for task in done:
            task.result()
        [leader] = [waiting[task] for task in done]
        return leader


async def _led(controller: Controller, times: int) -> None:
    await controller.wait_for_event("lease_acquired", count=times)
    await controller.wait_for_event("startup_resync_finished", count=times)


def refreshed(controller: Controller) -> set[str]:
    return {line["session_id"] for line in controller.events("runner_token_refreshed")}


async def all_alive(world: World) -> None:
    for runner in world.runners:
        world.issuer.verify(await world.token(runner))


async def test_one_of_three_writes_and_each_death_is_taken_over(world: World) -> None:
    everyone = {runner.session_id for runner in world.runners}
    watch, deeds = ExpiryWatch(world), Deeds(world)
    async with deeds.running(), replicas(world, 3) as (first, *others), watch.running():
        assert refreshed(first) == everyone
        assert not any(refreshed(each) for each in others)
        succession = Succession(*others)
        first.kill()
        second = await succession.winner()
        assert refreshed(second) == everyone
        [third] = [each for each in others if each is not second]
        assert refreshed(third) == set()
        succession = Succession(third)
        assert await second.terminate() == 0
        assert second.events("lease_released")
        assert await succession.winner() is third
        await all_alive(world)
        assert await third.terminate() == 0
        await deeds.catch_up()
        assert len(deeds.holders) == 3
        assert len(deeds.writers()) == 3
    assert deeds.late() == []
    assert watch.expired_s == 0
    for each in (second, third):
        assert not each.events("lease_lost")
        assert "Traceback" not in "".join(each.text)


async def test_a_frozen_leader_that_thaws_writes_nothing_and_follows(world: World) -> None:
    deeds = Deeds(world)
    async with deeds.running(), replicas(world, 2) as (first, second):
        before = len(first.events("runner_token_refreshed"))
        succession = Succession(second)
        first.process.send_signal(signal.SIGSTOP)
        await succession.winner()
        first.process.send_signal(signal.SIGCONT)
        await first.wait_for_event("lease_lost")
        await first.wait_for_event("leader_observed")
        assert len(first.events("runner_token_refreshed")) == before
        assert await first.terminate() == 0
        assert not second.events("lease_lost")
        await deeds.catch_up()
        assert len(deeds.holders) == 2
    assert deeds.late() == []


async def test_a_container_that_is_killed_and_restarts_in_its_pod_inherits(world: World) -> None:
    settings = world.environment(RECONCILER_LEASE_DURATION_S="150", RECONCILER_RENEW_DEADLINE_S="9")
    async with running(settings) as first:
        await first.wait_for_event("startup_resync_finished")
        first.kill()
    # A lease of 150 s that was not inherited would outlast this test.
    async with running(settings) as second:
        await second.wait_for_event("startup_resync_finished")
        assert second.events("lease_taken_over")
        assert refreshed(second) == {runner.session_id for runner in world.runners}


async def test_a_lease_taken_and_deleted_by_hand_is_won_again_without_a_restart(
    world: World,
) -> None:
    deeds = Deeds(world)
    async with deeds.running(), replicas(world, 2) as (first, second):
        succession = Succession(first, second)
        path = leases(world.home, "token-reconciler")
        body = {"spec": {"holderIdentity": "another-replica", "leaseDurationSeconds": 2}}
        await world.admin.expect("PATCH", path, body, content_type=MERGE)
        await first.wait_for_event("lease_lost")
        assert first.events("lease_lost")[0]["reason"] == "held by another-replica"
        leader = await succession.winner()
        lost, succession = len(leader.events("lease_lost")), Succession(first, second)
        await world.admin.expect("DELETE", path)
        await leader.wait_for_event("lease_lost", count=lost + 1)
        await succession.winner()
        for each in (first, second):
            assert await each.terminate() == 0
            assert "Traceback" not in "".join(each.text)
        await deeds.catch_up()
    assert deeds.late() == []
