"""Two installations for the whole of one cluster, by kustomize and by Helm: docs/install.md."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.accounts import account_kubeconfig, account_token
from tests.cluster.admin import MERGE, PODS, RBAC, SECRETS, Admin, item
from tests.cluster.controlplane import ControlPlane
from tests.cluster.helm import CHART, helm, template
from tests.cluster.manifests import MANIFESTS, Object, kubectl, of_kind, render
from tests.cluster.world import Runner, World, open_world
from tests.controller import Controller, running
from tests.node.guide import blocks

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

LIMIT_S = 60.0

FIRST = ("ambient-code", "token-reconciler")
SECOND = ("ambient-blue", "blue-token-reconciler")
"""Namespace and name of each installation's account."""

TOUCH = {"metadata": {"annotations": {"ambient-code.io/token-touched-at": "now"}}}


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path, installs=False) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The guide's two folders, next to the manifests."""
    (tmp_path / "manifests").symlink_to(MANIFESTS)
    for name, heading in (("site", "In three commands"), ("blue", "A second installation")):
        (tmp_path / name).mkdir()
        [text] = blocks("yaml", under=heading)
        (tmp_path / name / "kustomization.yaml").write_text(text)
    return tmp_path


def names(objects: list[Object]) -> set[tuple[str, str]]:
    return {(found["kind"], found["metadata"]["name"]) for found in objects}


def test_share_no_object_without_a_namespace_and_no_label(folder: Path) -> None:
    first, second = render(folder / "site"), render(folder / "blue")
    assert not names(first) & names(second)
    instances = [
        {found["metadata"]["labels"]["app.kubernetes.io/instance"] for found in objects}
        for objects in (first, second)
    ]
    assert instances == [{"token-reconciler"}, {"blue"}]


def test_has_the_names_and_the_rights_of_a_helm_release_called_like_the_prefix(
    folder: Path,
) -> None:
    ours = [one for one in render(folder / "blue") if one["kind"] != "ConfigMap"]
    theirs = [one for one in template(SECOND[0], release="blue") if one["kind"] != "ConfigMap"]
    assert names(ours) == names(theirs)
    for kind, parts in {
        "ClusterRoleBinding": ("roleRef", "subjects"),
        "RoleBinding": ("roleRef", "subjects"),
        "ValidatingAdmissionPolicyBinding": ("spec",),
        "ValidatingAdmissionPolicy": ("spec",),
    }.items():
        pairs = zip(*(by_name(of_kind(objects, kind)) for objects in (ours, theirs)), strict=True)
        for one, other in pairs:
            assert [one[part] for part in parts] == [other[part] for part in parts]


def by_name(objects: list[Object]) -> list[Object]:
    return sorted(objects, key=lambda found: str(found["metadata"]["name"]))


async def start(world: World, account: tuple[str, str], namespace: str) -> dict[str, str]:
    """Return the environment of the controller of one installation, for one namespace."""
    home, name = account
    return world.environment(
        KUBECONFIG=str(await account_kubeconfig(world, home, name)),
        NAMESPACE=home,
        RECONCILER_REPLICA=f"{name}-0",
        RECONCILER_NAMESPACES=namespace,
    )


async def recreates(
    world: World, controller: Controller, runner: Runner, *, count: int = 1
) -> None:
    """Delete a session's Secret for the `count`th time, and wait for the controller's."""
    await world.admin.delete(runner.namespace, SECRETS, runner.secret)
    await controller.wait_for_event("secret_recreated", count=count)
    world.issuer.verify(await world.token(runner))


async def refusal(world: World, account: tuple[str, str], runner: Runner) -> str:
    """Wait until the account's policy refuses a change of a pod without a session; return why."""
    plane = world.control_plane
    token = await account_token(world.admin, *account)
    path = item(runner.namespace, PODS, "other")
    async with (
        Admin.connect(plane.url, ca_file=plane.ca_file, token=token) as client,
        asyncio.timeout(LIMIT_S),
    ):
        while True:
            answer = await client.call("PATCH", path, TOUCH, content_type=MERGE, dryRun="All")
            if "ValidatingAdmissionPolicy" in (message := str(answer.body.get("message", ""))):
                return message
            await asyncio.sleep(0.1)


async def test_both_work_and_one_is_removed_without_the_other(world: World, folder: Path) -> None:
    config = world.control_plane.kubeconfig(folder / "admin")

    async def as_admin(*arguments: str) -> None:
        done = await asyncio.to_thread(kubectl, *arguments, kubeconfig=config)
        assert done.returncode == 0, done.stderr

    for home, _ in (FIRST, SECOND):
        await world.admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": home}})
    for site in ("site", "blue"):
        await as_admin("apply", "-k", str(folder / site))
    runners = [await world.add(await world.add_project()) for _ in range(2)]
    for runner in runners:
        await world.admin.create_pod(runner.namespace, "other", labels={}, secret=runner.secret)
    environments = [
        await start(world, account, runner.namespace)
        for account, runner in zip((FIRST, SECOND), runners, strict=True)
    ]
    async with running(environments[1]) as second:
        async with running(environments[0]) as first:
            for controller, runner in zip((first, second), runners, strict=True):
                await controller.wait_for_event("startup_resync_finished")
                await recreates(world, controller, runner)
            for account, runner in zip((FIRST, SECOND), runners, strict=True):
                assert f"'{account[1]}-pods'" in await refusal(world, account, runner)
            assert await first.terminate() == 0
        await as_admin("delete", "--wait=false", "-k", str(folder / "site"))
        await recreates(world, second, runners[1], count=2)
        assert "'blue-token-reconciler-pods'" in await refusal(world, SECOND, runners[1])
        assert await second.terminate() == 0
    await as_admin("delete", "--wait=false", "-k", str(folder / "blue"))


async def test_two_releases_of_helm_share_no_object_either(world: World, folder: Path) -> None:
    config = world.control_plane.kubeconfig(folder / "admin")

    async def run_helm(*arguments: str) -> None:
        done = await asyncio.to_thread(helm, *arguments, kubeconfig=config)
        assert done.returncode == 0, done.stderr

    async def subjects() -> dict[str, list[Object]]:
        path = f"/apis/{RBAC}/v1/clusterrolebindings"
        label = "app.kubernetes.io/name=token-reconciler"
        found = (await world.admin.expect("GET", path, labelSelector=label))["items"]
        return {one["metadata"]["name"]: one["subjects"] for one in found}

    for release, (home, _) in (("token-reconciler", FIRST), ("blue", SECOND)):
        await run_helm("install", release, str(CHART), f"--namespace={home}", "--create-namespace")
    both = await subjects()
    assert both == {
        name: [{"kind": "ServiceAccount", "name": name, "namespace": home}]
        for home, name in (FIRST, SECOND)
    }
    await run_helm("uninstall", "token-reconciler", f"--namespace={FIRST[0]}")
    assert await subjects() == {SECOND[1]: both[SECOND[1]]}
    await run_helm("uninstall", "blue", f"--namespace={SECOND[0]}")
