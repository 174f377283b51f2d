"""An installation on the node, and the reports of its readers."""

import asyncio
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.conftest import require
from tests.cluster.manifests import MANIFESTS
from tests.cluster.world import Runner, World
from tests.image.build import IMAGE
from tests.node.node import Node
from tests.node.runners import Account, account, add_reader, add_runner

LABEL = "app.kubernetes.io/name=token-reconciler"

TTL_S = 60.0
"""Refreshed at an age of 12-36 s. Only touches bring these tokens into the pods in time: the
kubelet's next sync would be too late."""

ROUND_S = TTL_S + 30.0
"""Every session is refreshed at least once in this time, even if a replica fails."""

COMMAND_LIMIT_S = 200.0

REMOVAL_S = 15.0
"""Longest time after the grace period until the API server no longer lists an ended pod: before,
the kubelet removes its containers, volumes and network."""


@dataclass
class Installation:
    """One Deployment of the product, its world, and the runners there.

    Args:
        namespace: Namespace of the installation.
        home: Folder with the manifests; the guide's commands run there.
    """

    world: World
    node: Node
    namespace: str
    home: Path
    runners: list[Runner]

    async def sh(self, command: str) -> str:
        """Run one shell line, with the client's credentials in the environment."""
        issuer = self.world.issuer
        words = {"CLIENT_ID": issuer.client_id, "CLIENT_SECRET": issuer.client_secret}
        return await asyncio.to_thread(run, command, self.home, self.node.kubeconfig, words)

    async def kubectl(self, *arguments: str) -> str:
        return await asyncio.to_thread(self.node.kubectl, *arguments)

    async def pods(self) -> dict[str, dict[str, object]]:
        """Return our pods' container states by name."""
        answer = await self.kubectl("get", "pods", "-n", self.namespace, "-l", LABEL, "-o", "json")
        return {
            pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]
            for pod in json.loads(answer)["items"]
            if pod["status"].get("containerStatuses")
        }

    async def settled(self) -> set[str]:
        """Wait until the last rollout is complete and its former pods are removed; return our pods.

        `rollout status` does not count terminating pods: it returns while former ones are listed
        until their grace period ends, and may still run.
        """
        target = ("-n", self.namespace, "deployment/token-reconciler")
        await self.kubectl("rollout", "status", *target, "--timeout=50s")
        grace = "jsonpath={.spec.template.spec.terminationGracePeriodSeconds}"
        limit_s = int(await self.kubectl("get", *target, "-o", grace)) + REMOVAL_S
        terminating = await self._terminating()
        try:
            async with asyncio.timeout(limit_s):
                while terminating:
                    await asyncio.sleep(0.5)
                    terminating = await self._terminating()
        except TimeoutError:
            pytest.fail(f"still terminating after {limit_s:.0f} s: {sorted(terminating)}")
        return set(await self.pods())

    async def _terminating(self) -> set[str]:
        answer = await self.kubectl("get", "pods", "-n", self.namespace, "-l", LABEL, "-o", "json")
        pods = [pod["metadata"] for pod in json.loads(answer)["items"]]
        return {pod["name"] for pod in pods if "deletionTimestamp" in pod}

    async def ask(self, pod: str, program: str) -> str:
        """Run a Python program inside a pod's container and return what it printed."""
        command = ("/opt/reconciler/bin/python3", "-c", program)
        return await self.kubectl("exec", "-n", self.namespace, pod, "--", *command)

    async def accounts(self) -> dict[Runner, Account]:
        """Return the last report of each reader that has one."""
        found = {runner: await account(self.world.admin, runner) for runner in self.runners}
        return {runner: said for runner, said in found.items() if said is not None}

    async def everybody_renewed(self, *, times: int = 1) -> None:
        """Wait until each reader has read this many more tokens; none was ever without one."""
        before = await self.accounts()
        assert len(before) == len(self.runners)
        now = before
        try:
            async with asyncio.timeout(ROUND_S * times):
                while any(now[one].tokens < before[one].tokens + times for one in self.runners):
                    await asyncio.sleep(1.0)
                    now = await self.accounts()
        except TimeoutError:
            pytest.fail(f"not everybody was renewed: {before} -> {now}")
        assert {one.pod: said.expired_s for one, said in now.items() if said.expired_s > 0} == {}


def own_values(text: str, world: World) -> str:
    """Replace a reader's own values in a file of the guide by those of the test's world."""
    for theirs, ours in (
        ("registry.example/runner-token-reconciler", IMAGE.rpartition(":")[0]),
        ("https://ambient-api-server.ambient-code.svc:8000", world.platform.url),
        ("https://issuer.example/realms/platform/protocol/openid-connect/token",
         world.issuer.token_url),
    ):  # fmt: skip
        assert theirs in text
        text = text.replace(theirs, ours)
    return text


def run(command: str, home: Path, kubeconfig: Path, words: Mapping[str, str]) -> str:
    """Run one shell command; raises `AssertionError` with its output if it fails."""
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=home,
        env={
            "PATH": f"{require('helm')['helm'].parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "KUBECONFIG": str(kubeconfig),
            **words,
        },
        capture_output=True,
        text=True,
        timeout=COMMAND_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def make_home(home: Path, *, site: str) -> Path:
    """Create a folder with the manifests and a site, as for a reader of the guide."""
    (home / "site").mkdir()
    (home / "manifests").symlink_to(MANIFESTS)
    (home / "site/kustomization.yaml").write_text(site)
    return home


async def add_runners(
    world: World, node: Node, places: Mapping[str, str], *, each: int
) -> list[Runner]:
    """Create running runner pods, `places` project -> namespace, with a valid first token."""
    for project, namespace in places.items():
        await world.admin.create_namespace(namespace)
        world.platform.add_project(project)
        await add_reader(world, namespace)
    made = [
        await add_runner(world, project, namespace)
        for project, namespace in places.items()
        for _ in range(each)
    ]
    await all_ready(node, made)
    return made


async def all_ready(node: Node, runners: Sequence[Runner]) -> None:
    for runner in runners:
        place = ("--namespace", runner.namespace, f"pod/{runner.pod}", "--timeout=60s")
        await asyncio.to_thread(node.kubectl, "wait", "--for=condition=Ready", *place)
