"""Restarts of the real API server, with the product under an ordinary account."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.admin import Admin
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import ExpiryWatch, Runner, World, open_world
from tests.controller import Controller, running

pytestmark = [pytest.mark.cluster, pytest.mark.realtime, pytest.mark.timeout(300)]

TTL_S = 60.0
SESSIONS = 200


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path, ttl_s=TTL_S) as opened:
        yield opened


async def renewed_once_more(controller: Controller, runners: list[Runner]) -> None:
    """Wait until each session was refreshed again, from now on."""
    before = len(controller.events("runner_token_refreshed"))
    wanted = {runner.session_id for runner in runners}
    await controller.wait_for(
        "each session refreshed again",
        lambda: (
            wanted
            <= {line["session_id"] for line in controller.events("runner_token_refreshed")[before:]}
        ),
        limit_s=2 * TTL_S,
    )


async def test_a_restart_of_the_api_server_costs_no_token_and_no_right(world: World) -> None:
    runners = await world.add_sessions(each=SESSIONS)
    watch = ExpiryWatch(world)
    async with running(world.environment()) as controller, watch.polling():
        await controller.wait_for_event("startup_resync_finished")
        await renewed_once_more(controller, runners)
        await asyncio.to_thread(world.control_plane.restart_apiserver)
        await renewed_once_more(controller, runners)
    assert watch.expired_s == 0
    for name in ("list_forbidden", "watch_forbidden", "write_forbidden", "pod_touch_forbidden"):
        assert controller.events(name) == []
    assert controller.events("lease_refused") == []
