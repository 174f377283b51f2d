"""The operator's commands on a real API server, with exactly the permissions that they name."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.admin import Admin, rule
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import NAMES, Runner, World, open_world
from tests.commands import Ended, command
from tests.controller import running
from tests.lab.leaks import find_leaks

OLD_TOKEN = "obviously-fake-old-token"
READER = [rule("pods", "list"), rule("secrets", "list"), rule("events", "list")]
WRITER = [*READER, rule("pods", "patch")]


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path) as opened:
        yield opened


async def run(world: World, *words: str, user: str = "nobody") -> Ended:
    """Run a command as a user of the cluster; its output must contain no token."""
    path = world.control_plane.kubeconfig(world.folder / f"of-{user}", user=user)
    ended = await command(*words, KUBECONFIG=str(path))
    issued = [OLD_TOKEN, *world.issuer.issued]
    assert find_leaks({"out": ended.stdout, "err": ended.stderr}, issued) == []
    assert "Traceback" not in ended.stderr
    return ended


async def allowed(world: World, rules: list[Any], namespace: str, *words: str) -> Ended:
    """Grant exactly these permissions and run a command once the authorizer knows them."""
    await world.admin.grant("nobody", rules, namespace=namespace)
    async with asyncio.timeout(10):
        while (ended := await run(world, *words)).code == 5:
            await asyncio.sleep(0.1)
    return ended


async def refreshed_at(world: World, runner: Runner) -> str:
    found: str = (await world.secret(runner))["metadata"]["annotations"][NAMES.refreshed_at]
    return found


async def test_reading_needs_pods_secrets_and_events_and_no_more(world: World) -> None:
    project = await world.add_project()
    runner = await world.add(project, token=OLD_TOKEN)
    denied = await run(world, "status", "-n", project)
    assert denied.code == 5
    assert denied.stderr == (
        f"reconciler: no right to list pods in namespace {project}; check with: "
        f"kubectl auth can-i list pods -n {project}\n"
    )
    status = await allowed(world, READER, project, "status", "-n", project, "-o", "json")
    [row] = json.loads(status.stdout)["sessions"]
    assert (row["pod"], row["state"]) == (runner.pod, "unmanaged")
    assert row["otherWriters"] == ["ambient-control-plane"]
    explained = await run(world, "explain", f"{project}/{runner.pod}")
    assert explained.code == 0
    assert "The controller has no recent Event on this pod." in explained.stdout
    missing = await run(world, "explain", f"{project}/nosuch")
    assert (missing.code, missing.stdout) == (6, "")
    refreshed = await run(world, "refresh", "-n", project, runner.pod)
    assert (refreshed.code, refreshed.stdout) == (5, "")


async def test_without_the_right_to_events_only_they_are_missing(world: World) -> None:
    project = await world.add_project()
    runner = await world.add(project, token=OLD_TOKEN)
    target = f"{project}/{runner.pod}"
    ended = await allowed(world, READER[:2], project, "explain", target)
    assert ended.code == 0
    assert "Recent failures are unknown: no right to list events" in ended.stdout
    assert "The leader is unknown: no right to get lease token-reconciler" in ended.stdout


async def test_a_mount_by_subpath_is_read_with_the_right_to_list_pods_alone(world: World) -> None:
    project = await world.add_project()
    runner = await world.add(project, token=OLD_TOKEN, subpath=NAMES.secret_key)
    target = f"{project}/{runner.pod}"
    ended = await allowed(world, READER[:2], project, "explain", target)
    assert "never updates the token's file in container runner" in ended.stdout
    assert "Next: Mount the Secret as a directory" in ended.stdout


async def test_the_advice_follows_the_cause_that_the_controller_met(world: World) -> None:
    project = await world.add_project()
    unknown = await world.add(project, known=False, with_secret=False)
    immutable = await world.add(project, with_secret=False)
    await world.add_secret(immutable, OLD_TOKEN, immutable=True)
    async with running(world.environment()) as controller:
        await controller.wait_for_event("write_refused")
        await controller.wait_for_event("session_not_confirmed")
        target = f"{project}/{immutable.pod}"
        async with asyncio.timeout(30):  # the Event is written after the log's line
            while (
                "RefreshFailed"
                not in (found := await allowed(world, READER, project, "explain", target)).stdout
            ):
                await asyncio.sleep(0.1)
        assert "422 Invalid, data (the object is immutable)" in found.stdout
        assert "Next: Delete the immutable Secret" in found.stdout
        found = await run(world, "explain", f"{project}/{unknown.pod}", "-o", "json")
        search, check = [step["text"] for step in json.loads(found.stdout)["next"]]
        assert search.endswith(f"for session {unknown.session_id}")
        assert check == "Check that the platform has this session, with this project"
        assert await controller.terminate() == 0


async def test_events_of_the_controller_are_shown(world: World) -> None:
    project = await world.add_project()
    runner = await world.add(project, token=OLD_TOKEN)
    pod = await world.pod(runner)
    event = {
        "metadata": {"name": "refresh-failed", "namespace": project},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": project,
            "name": runner.pod,
            "uid": pod["metadata"]["uid"],
        },
        "source": {"component": NAMES.field_manager},
        "reportingComponent": NAMES.field_manager,
        "reportingInstance": "replica-0",
        "action": "Refresh",
        "type": "Warning",
        "reason": "RefreshFailed",
        "message": "the issuer is unreachable",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "series": {"count": 4, "lastObservedTime": "2026-01-01T00:01:00.000000Z"},
    }
    await world.admin.expect("POST", f"/api/v1/namespaces/{project}/events", event)
    ended = await allowed(world, READER, project, "explain", f"{project}/{runner.pod}")
    assert "Warning RefreshFailed (" in ended.stdout
    assert "4 times since 2026-01-01T00:00:00Z): the issuer is unreachable." in ended.stdout


async def test_a_controller_honours_what_the_commands_ask_for(world: World) -> None:
    project = await world.add_project()
    runner = await world.add(project, token=OLD_TOKEN)
    target = f"{project}/{runner.pod}"
    async with running(world.environment()) as controller:
        await controller.wait_for_event("startup_resync_finished")
        first = await refreshed_at(world, runner)
        status = await allowed(world, WRITER, project, "status", "-n", project)
        assert (status.code, status.lines[1].split()[3]) == (0, "ok")
        refreshed = await run(world, "refresh", target, "--wait")
        assert refreshed.code == 0
        assert refreshed.lines[1].startswith(f"pod/{runner.pod} refreshed, its token expires in ")
        second = await refreshed_at(world, runner)
        assert second > first

        assert (await run(world, "pause", target)).code == 0
        await controller.wait_for_event("session_blocked")
        late = await run(world, "refresh", target, "--wait", "--timeout=1s")
        assert late.code == 7
        assert await refreshed_at(world, runner) == second
        assert (await run(world, "status", "-n", project)).lines[1].split()[3] == "paused"
        assert (await run(world, "resume", target)).code == 0
        await controller.wait_for_event("runner_token_refreshed", count=3)
        assert await controller.terminate() == 0
    explained = await run(world, "explain", target)
    assert "there is no other writer since" in explained.stdout
    assert "The platform has confirmed this session, by a signed annotation" in explained.stdout

    await overwrite_clearly(world, runner)
    output = (await run(world, "explain", target)).stdout
    assert "that test-admin wrote over ours" in output


async def overwrite_clearly(world: World, runner: Runner) -> None:
    """Overwrite our token until the server's whole seconds show that it was after our write."""
    async with asyncio.timeout(30):
        for number in itertools.count():
            body = {"stringData": {NAMES.secret_key: f"{OLD_TOKEN}-{number}"}}
            await world.admin.patch(runner.namespace, "secrets", runner.secret, body)
            listed = await run(world, "status", "-n", runner.namespace)
            if listed.lines[1].split()[3] == "foreign_writer":
                return


async def test_a_server_that_is_down_is_exit_4(
    world: World,
) -> None:
    project = await world.add_project()
    await world.add(project, token=OLD_TOKEN)
    await allowed(world, READER, project, "status", "-n", project)
    plane = world.control_plane
    await asyncio.to_thread(plane.kill_apiserver)
    try:
        ended = await run(world, "status", "-n", project)
    finally:
        await asyncio.to_thread(plane.start_apiserver)
    assert ended.code == 4
    [line] = ended.stderr.splitlines()
    assert "(Connection refused)" in line
