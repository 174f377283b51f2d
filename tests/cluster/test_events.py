"""Events on a real API server, as kubectl shows them, and without the permission for them."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.assets import find
from tests.cluster.admin import Admin, collection, rule
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import World, open_world
from tests.controller import running

LIMIT_S = 30.0


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path) as opened:
        yield opened


async def events(world: World, namespace: str, reason: str) -> list[dict[str, Any]]:
    """Return the Events of a reason as soon as there is one."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            listed = await world.admin.expect("GET", collection(namespace, "events"))
            if found := [one for one in listed["items"] if one["reason"] == reason]:
                return found
            await asyncio.sleep(0.1)


async def test_a_recreated_secret_is_shown_where_kubectl_describes_the_pod(world: World) -> None:
    project = await world.add_project()
    runner, quiet = await world.add(project), await world.add(project)
    async with running(world.environment()) as controller:
        await controller.wait_for_event("startup_resync_finished")
        await world.admin.delete(project, "secrets", runner.secret)
        [event] = await events(world, project, "SecretRecreated")
        assert await controller.terminate() == 0
    pod = (await world.pod(runner))["metadata"]
    assert event["involvedObject"]["uid"] == pod["uid"]
    assert event["source"] == {"component": "token-reconciler"}
    assert event["reportingComponent"] == "token-reconciler"
    assert event["count"] == 1
    listed = await world.admin.expect("GET", collection(project, "events"))
    recorded = {one["involvedObject"]["name"] for one in listed["items"]}
    assert recorded == {runner.pod}
    assert quiet.pod not in recorded
    kubeconfig = world.control_plane.kubeconfig(world.folder / "admin")
    shown = await asyncio.to_thread(_describe, kubeconfig, project, runner.pod)
    assert "SecretRecreated" in shown
    assert "token-reconciler" in shown


async def test_repetitions_are_counted_in_one_event(world: World) -> None:
    project = await world.add_project()
    runner = await world.add(project)
    body = {"stringData": {"api-token": "obviously-fake-intruder"}}
    async with running(world.environment()) as controller:
        await controller.wait_for_event("startup_resync_finished")
        for count in (1, 2):
            await world.admin.patch(project, "secrets", runner.secret, body)
            async with asyncio.timeout(LIMIT_S):
                while (await events(world, project, "TokenOverwritten"))[0]["count"] < count:
                    await asyncio.sleep(0.1)
        assert await controller.terminate() == 0
    [event] = await events(world, project, "TokenOverwritten")
    assert event["count"] == 2
    assert "obviously-fake" not in str(event)


async def test_a_missing_right_for_events_costs_the_events_alone(world: World) -> None:
    project = await world.add_project()
    runners = [await world.add(project) for _ in range(2)]
    rules = [
        rule("pods", "list", "watch", "patch"),
        rule("secrets", "list", "watch", "patch", "create"),
    ]
    await world.admin.grant("reconciler", rules, namespace=project)
    lease = rule("leases", "list", "watch", "create", "patch", group="coordination.k8s.io")
    await world.admin.grant("reconciler", [lease], namespace=world.home)
    kubeconfig = world.control_plane.kubeconfig(world.folder / "limited", user="reconciler")
    async with running(world.environment(KUBECONFIG=str(kubeconfig))) as controller:
        await controller.wait_for_event("startup_resync_finished")
        for runner in runners:
            await world.admin.delete(project, "secrets", runner.secret)
        await controller.wait_for_event("secret_recreated", count=2)
        await controller.wait_for_event("events_forbidden")
        for runner in runners:
            world.issuer.verify(await world.token(runner))
        assert await controller.terminate() == 0
    assert len(controller.events("events_forbidden")) == 1


def _describe(kubeconfig: Path, namespace: str, pod: str) -> str:
    kubectl = find().get("kubectl")
    assert kubectl is not None, "kubectl is one of the assets"
    command = [str(kubectl), f"--kubeconfig={kubeconfig}", "-n", namespace, "describe", "pod", pod]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return str(answer.stdout)
