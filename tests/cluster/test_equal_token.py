"""A static token that the platform has put into each Secret itself, on the real API server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.admin import Admin
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import NAMES, PLATFORM_MANAGER, World, open_world
from tests.controller import running

TOKEN = "obviously-fake-static-token-of-everybody"
EDITS = 20


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path) as opened:
        opened.platform.verify = None
        yield opened


async def test_an_equal_token_of_another_owner_is_written_once(world: World) -> None:
    """The server keeps the old owner of an equal value, so that a name alone proves nothing."""
    project = await world.add_project()
    asked, *others = [await world.add(project, token=TOKEN) for _ in range(4)]
    environment = world.environment(
        OIDC_CLIENT_ID="", OIDC_CLIENT_SECRET="", AMBIENT_API_TOKEN=TOKEN
    )
    async with running(environment) as controller:
        await controller.wait_for_event("startup_resync_finished")
        before = {runner: await world.secret(runner) for runner in others}
        owners = [
            entry["manager"]
            for secret in before.values()
            for entry in secret["metadata"]["managedFields"]
            if NAMES.secret_key in str(entry.get("fieldsV1", {}).get("f:data", {}))
        ]
        assert owners == [PLATFORM_MANAGER] * len(others)
        for number in range(EDITS):
            for runner in others:
                body = {"metadata": {"annotations": {"example.com/turn": str(number)}}}
                await world.admin.patch(project, "pods", runner.pod, body)
        # A request by hand is worked on after what came before it.
        body = {"metadata": {"annotations": {"ambient-code.io/refresh-requested-at": "now"}}}
        await world.admin.patch(project, "pods", asked.pod, body)
        await controller.wait_for(
            "the requested refresh",
            lambda: any(
                line["reason"] == "requested"
                for line in controller.events("runner_token_refreshed")
            ),
        )
        for runner, secret in before.items():
            version = (await world.secret(runner))["metadata"]["resourceVersion"]
            assert version == secret["metadata"]["resourceVersion"]
        written = [line["session_id"] for line in controller.events("runner_token_refreshed")]
        assert sorted(written) == sorted([asked.session_id, *(r.session_id for r in world.runners)])
        assert not controller.events("competing_writer")
        assert await controller.terminate() == 0
