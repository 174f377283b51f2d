"""Projects that are added and removed, with permissions for each namespace separately."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from reconciler.preflight.permissions import PERMISSIONS
from tests.cluster.accounts import account_kubeconfig, create_account
from tests.cluster.admin import RBAC, SECRETS, Admin, rule
from tests.cluster.controlplane import ControlPlane
from tests.cluster.test_check import examined, missing
from tests.cluster.world import Runner, World, open_world
from tests.controller import Controller, running

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

ACCOUNT = "token-reconciler"
RESYNC_S = 6


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path, installs=False) as opened:
        await create_account(admin, opened.home, ACCOUNT)
        await grant(opened, opened.home, "own")
        yield opened


def user(world: World) -> str:
    return f"system:serviceaccount:{world.home}:{ACCOUNT}"


async def grant(world: World, namespace: str, where: str = "sessions") -> None:
    rules = [
        rule(right.resource, *right.verbs, group=right.group)
        for right in PERMISSIONS
        if right.where == where
    ]
    await world.admin.grant(user(world), rules, namespace=namespace)


async def revoke(world: World, namespace: str) -> None:
    path = f"/apis/{RBAC}/v1/namespaces/{namespace}/rolebindings/{user(world)}"
    await world.admin.expect("DELETE", path)


async def environment(world: World, names: str = "@platform") -> dict[str, str]:
    return world.environment(
        KUBECONFIG=str(await account_kubeconfig(world, world.home, ACCOUNT)),
        RECONCILER_NAMESPACES=names,
        RECONCILER_RESYNC_S=str(RESYNC_S),
    )


async def project_with_session(world: World, *, granted: bool = True) -> Runner:
    project = await world.add_project()
    if granted:
        await grant(world, project)
    return await world.add(project)


def is_refreshed(controller: Controller, *runners: Runner) -> Callable[[], bool]:
    wanted = {runner.session_id for runner in runners}
    return lambda: (
        wanted <= {line["session_id"] for line in controller.events("runner_token_refreshed")}
    )


async def until(what: str, condition: Callable[[], Awaitable[bool]], *, limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            while not await condition():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not within {limit_s} s: {what}") from None


def warnings(controller: Controller, namespace: str) -> list[str]:
    """Return the log lines about a namespace at warning level or above."""
    return [
        line["event"]
        for line in controller.lines
        if line.get("namespace") == namespace and line["level"] not in ("info", "debug")
    ]


async def test_a_project_that_appears_and_one_that_gets_its_rights_later(world: World) -> None:
    first = await project_with_session(world)
    async with running(await environment(world)) as controller:
        await controller.wait_for("the first project", is_refreshed(controller, first))
        second = await project_with_session(world)
        await controller.wait_for(
            "the new project", is_refreshed(controller, second), limit_s=RESYNC_S + 10
        )
        late = await project_with_session(world, granted=False)
        await controller.wait_for(
            "the refusal", lambda: "list_forbidden" in warnings(controller, late.namespace)
        )
        await grant(world, late.namespace)
        await controller.wait_for("the late project", is_refreshed(controller, late))
        # What was refused in one namespace kept no write from another.
        await world.admin.delete(first.namespace, SECRETS, first.secret)
        await controller.wait_for_event("secret_recreated")
        assert warnings(controller, late.namespace).count("list_forbidden") <= 2
        assert not [name for name in warnings(controller, second.namespace) if "forbidden" in name]
        assert await controller.terminate() == 0
    for runner in (first, second, late):
        world.issuer.verify(await world.token(runner))
    assert "Traceback" not in "".join(controller.text)


async def test_a_project_that_is_deleted_is_let_go_quietly(world: World) -> None:
    kept, gone = await project_with_session(world), await project_with_session(world)
    async with running(await environment(world)) as controller:
        await controller.wait_for("both projects", is_refreshed(controller, kept, gone))
        world.platform.remove_session(gone.session_id)
        world.platform.remove_project(gone.namespace)
        # As the namespace's own controller does, which no test's control plane has.
        await world.admin.expect("DELETE", f"/api/v1/namespaces/{gone.namespace}")
        await world.admin.delete(gone.namespace, "pods", gone.pod)
        await world.admin.delete(gone.namespace, SECRETS, gone.secret)
        await revoke(world, gone.namespace)
        await controller.wait_for_event("namespaces_unwatched", limit_s=3 * RESYNC_S + 20)
        await world.admin.delete(kept.namespace, SECRETS, kept.secret)
        await controller.wait_for(
            "the other project goes on",
            lambda: (
                kept.namespace
                in {line["namespace"] for line in controller.events("secret_recreated")}
            ),
        )
        assert await controller.terminate() == 0
    [line] = controller.events("namespaces_unwatched")
    assert line["names"] == gone.namespace
    assert warnings(controller, gone.namespace) == []
    assert "Traceback" not in "".join(controller.text)


async def test_a_start_without_the_platform_serves_the_names_in_the_settings(
    world: World,
) -> None:
    named, other = await project_with_session(world), await project_with_session(world)
    settings = await environment(world, f"{named.namespace},@platform")
    async with running(settings) as controller:
        await controller.wait_for("both projects", is_refreshed(controller, named, other))
        assert await controller.terminate() == 0
    world.platform.faults.unreachable = True
    async with running(settings) as controller:
        await controller.wait_for("the named one, by its seal", is_refreshed(controller, named))
        assert not controller.events("namespaces_found")
        world.platform.faults.unreachable = False
        await controller.wait_for("the other one", is_refreshed(controller, other))
        assert await controller.terminate() == 0


async def test_the_pre_flight_asks_in_the_namespaces_of_the_projects(world: World) -> None:
    granted, refused = await world.add_project(), await world.add_project()
    await grant(world, granted)
    code, found = await examined(await environment(world))
    assert code == 3
    assert refused in missing(found)["rights"]
    assert granted not in missing(found)["rights"]
    await grant(world, refused)

    async def is_complete() -> bool:
        return (await examined(await environment(world)))[0] == 0

    await until("the rights count", is_complete, limit_s=20)


async def test_many_watches_leave_the_writes_their_connections(world: World) -> None:
    runners = [await project_with_session(world) for _ in range(30)]
    settings = await environment(world) | {"RECONCILER_WORKERS": "2"}
    async with running(settings) as controller:
        await controller.wait_for("every project", is_refreshed(controller, *runners))
        last = runners[-1]
        await world.admin.delete(last.namespace, SECRETS, last.secret)
        await controller.wait_for_event("secret_recreated", limit_s=10)
        assert await controller.terminate() == 0
    assert not [
        line for line in controller.lines if line["event"] in ("list_failed", "watch_timed_out")
    ]
