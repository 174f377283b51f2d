"""The guide followed word for word on a real node; what containers read there decides."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.cluster.admin import Admin
from tests.cluster.controlplane import ControlPlane
from tests.cluster.manifests import MANIFESTS
from tests.cluster.world import NAMES, Runner, World, open_world
from tests.image.build import IMAGE
from tests.node import network
from tests.node.guide import blocks, commands
from tests.node.node import Node
from tests.node.runners import Account, account, add_reader, add_runner

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="module"),
]

OWN = "ambient-code"
LABEL = "app.kubernetes.io/name=token-reconciler"
TTL_S = 60.0
"""Renewed at an age of 12-36 s, and brought into the pods by touches alone: the kubelet's own pace
would be too slow for any of these tokens."""

ROUND_S = TTL_S + 30.0
"""Within it every session is renewed at least once, whatever happened to a replica."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(node: Node, node_plane: ControlPlane, folder: Path) -> AsyncIterator[World]:
    connected = Admin.connect(
        node_plane.url, ca_file=node_plane.ca_file, token=node_plane.admin_token
    )
    async with (
        connected as admin,
        open_world(node_plane, admin, folder, ttl_s=TTL_S, host=network.NODE) as opened,
    ):
        await admin.create_namespace(OWN)
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runners(world: World, node: Node) -> list[Runner]:
    """Runner pods of two projects, running, with a token that is good when they start."""
    projects = [await world.add_project() for _ in range(2)]
    for project in projects:
        await add_reader(world, project)
    made = [await add_runner(world, project) for project in projects for _ in range(2)]
    for runner in made:
        place = ("--namespace", runner.namespace, f"pod/{runner.pod}", "--timeout=60s")
        await asyncio.to_thread(node.kubectl, "wait", "--for=condition=Ready", *place)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installed(
    world: World, runners: list[Runner], node: Node, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Follow docs/install.md; only what a reader replaces by their own is replaced."""
    home = tmp_path_factory.mktemp("home")
    (home / "site").mkdir()
    (home / "manifests").symlink_to(MANIFESTS)
    [file, *_] = blocks("yaml")
    for theirs, ours in (
        ("registry.example/runner-token-reconciler", IMAGE.rpartition(":")[0]),
        ("https://ambient-api-server.ambient-code.svc:8000", world.platform.url),
        ("https://issuer.example/realms/platform/protocol/openid-connect/token",
         world.issuer.token_url),
    ):  # fmt: skip
        assert theirs in file
        file = file.replace(theirs, ours)
    (home / "site/kustomization.yaml").write_text(file)
    image, credentials, apply = commands(blocks("sh")[0])
    assert image.startswith("docker build")  # done, and the node has it
    for command in (credentials, apply, *commands(blocks("sh")[1])):
        await asyncio.to_thread(run, command, home, node, world)


def run(command: str, home: Path, node: Node, world: World) -> str:
    """Run one line of the guide as its reader would."""
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=home,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "KUBECONFIG": str(node.kubeconfig),
            "CLIENT_ID": world.issuer.client_id,
            "CLIENT_SECRET": world.issuer.client_secret,
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def accounts(node: Node, runners: list[Runner]) -> dict[Runner, Account]:
    """Return what each reader says now; each has said something."""
    found = {runner: account(node, runner) for runner in runners}
    return {runner: said for runner, said in found.items() if said is not None}


async def everybody_renewed(node: Node, runners: list[Runner], *, times: int = 1) -> None:
    """Wait until each reader has seen so many more tokens; none of them was ever without one."""
    before = await asyncio.to_thread(accounts, node, runners)
    assert len(before) == len(runners)
    now = before
    try:
        async with asyncio.timeout(ROUND_S * times):
            while any(now[one].tokens < before[one].tokens + times for one in runners):
                await asyncio.sleep(1.0)
                now = await asyncio.to_thread(accounts, node, runners)
    except TimeoutError:
        pytest.fail(f"not everybody was renewed: {before} -> {now}")
    assert {said.dead_s for said in now.values()} == {0.0}


def pods(node: Node) -> dict[str, dict[str, object]]:
    """Return our pods' container states by name."""
    listed = json.loads(node.kubectl("get", "pods", "-n", OWN, "-l", LABEL, "-o", "json"))
    return {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]
        for pod in listed["items"]
        if pod["status"].get("containerStatuses")
    }


async def last_writer(world: World, runners: list[Runner]) -> str:
    """Return the replica that wrote last, as its Secret says."""
    found = [(await world.secret(runner))["metadata"]["annotations"] for runner in runners]
    last = max(found, key=lambda annotations: str(annotations[NAMES.refreshed_at]))
    return str(last[NAMES.refreshed_by]).partition("/")[0]


@pytest.mark.usefixtures("installed")
class TestNode:
    async def test_tokens_change_in_the_containers_files_before_they_die(
        self, node: Node, runners: list[Runner]
    ) -> None:
        await everybody_renewed(node, runners, times=2)

    async def test_a_rolling_update_goes_by_unnoticed(
        self, node: Node, runners: list[Runner]
    ) -> None:
        before = set(await asyncio.to_thread(pods, node))
        target = ("-n", OWN, "deployment/token-reconciler")
        await asyncio.to_thread(node.kubectl, "rollout", "restart", *target)
        await asyncio.to_thread(node.kubectl, "rollout", "status", *target, "--timeout=50s")
        await everybody_renewed(node, runners)
        assert not before & set(await asyncio.to_thread(pods, node))

    async def test_the_writer_killed_on_its_node_is_replaced_in_time(
        self, node: Node, runners: list[Runner], world: World
    ) -> None:
        writer = await last_writer(world, runners)
        state = (await asyncio.to_thread(pods, node))[writer]
        container = re.sub("^containerd://", "", str(state["containerID"]))
        await asyncio.to_thread(node.runtime.kill, container)
        await everybody_renewed(node, runners, times=2)  # the first may have been its last word
        assert (await asyncio.to_thread(pods, node))[writer]["restartCount"] == 1

    async def test_the_pods_are_what_the_security_review_was_told(self, node: Node) -> None:
        [name, *_] = await asyncio.to_thread(pods, node)
        words = "import os, sys; sys.stdout.write(f'{os.getuid()} {os.access(chr(47), os.W_OK)}')"
        command = ("/opt/reconciler/bin/python3", "-c", words)
        said = await asyncio.to_thread(node.kubectl, "exec", "-n", OWN, name, "--", *command)
        assert said == "65532 False"
