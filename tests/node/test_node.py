"""The guide's commands on a real node; the tokens that containers read decide."""

import asyncio
import re

import pytest

from tests.cluster.world import NAMES
from tests.node.guide import MIGRATE, blocks, commands
from tests.node.installation import Installation

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="session"),
]


START_S = 40.0
"""Time for a pod's start, its first lists, and the first answer of an issuer."""

READYZ = """
import urllib.error, urllib.request
try:
    answer = urllib.request.urlopen("http://127.0.0.1:8080/readyz", timeout=5)
except urllib.error.HTTPError as error:
    answer = error
except OSError as error:
    print("nothing listens yet:", error)
    raise SystemExit
print(answer.status, answer.read().decode())
"""


async def last_writer(installed: Installation) -> str:
    """Return the replica of the last write, by the Secret's annotation."""
    secrets = [await installed.world.secret(runner) for runner in installed.runners]
    found = [secret["metadata"]["annotations"] for secret in secrets]
    last = max(found, key=lambda annotations: str(annotations[NAMES.refreshed_at]))
    return str(last[NAMES.refreshed_by]).partition("/")[0]


async def new_pod(installed: Installation, before: set[str]) -> str:
    """Wait for a new running pod of ours, and return its name."""
    async with asyncio.timeout(START_S):
        while True:
            for name, state in (await installed.pods()).items():
                if name not in before and "running" in dict(state["state"]):  # type: ignore[call-overload]  # an object of JSON
                    return name
            await asyncio.sleep(0.5)


async def why_not_ready(installed: Installation, pod: str) -> str:
    """Return the message of /readyz in a pod with synced caches that is not ready."""
    async with asyncio.timeout(START_S):
        while "token" not in (said := await installed.ask(pod, READYZ)):
            await asyncio.sleep(0.5)
    assert said.startswith("503 ")
    return said


def rows(table: str, installed: Installation) -> list[list[str]]:
    """Return a table's rows about the runners' Secrets, cell by cell: each of them has one."""
    names = {runner.secret for runner in installed.runners}
    found = [cells for line in table.splitlines() if (cells := line.split())[1] in names]
    assert len(found) == len(names)
    return found


class TestNode:
    async def test_tokens_change_in_the_containers_files_before_they_die(
        self, installed: Installation
    ) -> None:
        await installed.everybody_renewed(times=2)

    async def test_a_rolling_update_goes_by_unnoticed(self, installed: Installation) -> None:
        before = await installed.settled()
        target = ("-n", installed.namespace, "deployment/token-reconciler")
        await installed.kubectl("rollout", "restart", *target)
        await installed.settled()
        await installed.everybody_renewed()
        assert not before & set(await installed.pods())

    async def test_a_rollout_with_a_wrong_token_url_keeps_the_old_pods(
        self, installed: Installation
    ) -> None:
        before = await installed.settled()
        target = ("-n", installed.namespace, "deployment/token-reconciler")
        wrong = f"OIDC_TOKEN_URL={installed.world.issuer.token_url}/obviously-wrong"
        await installed.kubectl("set", "env", *target, wrong)
        try:
            why = await why_not_ready(installed, await new_pod(installed, before))
            assert "waiting for the first token" in why
            assert "answered 404" in why
            await installed.everybody_renewed(times=2)
            assert before < set(await installed.pods())
        finally:
            await installed.kubectl("rollout", "undo", *target)
        assert await installed.settled() == before

    async def test_a_rollout_while_the_issuer_is_unreachable_waits_for_it(
        self, installed: Installation
    ) -> None:
        before = await installed.settled()
        target = ("-n", installed.namespace, "deployment/token-reconciler")
        installed.world.issuer.faults.unreachable = True
        try:
            await installed.kubectl("rollout", "restart", *target)
            why = await why_not_ready(installed, await new_pod(installed, before))
            assert "waiting for the first token" in why
            assert before < set(await installed.pods())
        finally:
            installed.world.issuer.clear_faults()
        await installed.settled()
        await installed.everybody_renewed()
        assert not before & set(await installed.pods())

    async def test_the_writer_killed_on_its_node_is_replaced_in_time(
        self, installed: Installation
    ) -> None:
        writer = await last_writer(installed)
        state = (await installed.pods())[writer]
        container = re.sub("^containerd://", "", str(state["containerID"]))
        await asyncio.to_thread(installed.node.runtime.kill, container)
        await installed.everybody_renewed(times=2)  # the first may have been its last word
        assert (await installed.pods())[writer]["restartCount"] == 1

    async def test_what_the_migration_guide_looks_at_shows_that_we_write_alone(
        self, installed: Installation
    ) -> None:
        [look] = blocks("sh", under="1. Look before", guide=MIGRATE)
        [check] = blocks("sh", under="4. Check", guide=MIGRATE)
        said = [await installed.sh(command) for command in commands(look) + commands(check)]
        writers, verdicts, finished, tokens = said
        ours = rows(writers, installed)
        assert {writer for _, _, writer, _ in ours} == {"token-reconciler"}
        assert "FAIL" not in verdicts
        assert "startup_resync_finished" in finished
        replicas = await installed.pods()
        for _, _, _, by in rows(tokens, installed):
            assert by.partition("/")[0] in replicas

    async def test_the_pods_are_what_the_security_review_was_given(
        self, installed: Installation
    ) -> None:
        [name, *_] = await installed.settled()
        words = "import os, sys; sys.stdout.write(f'{os.getuid()} {os.access(chr(47), os.W_OK)}')"
        assert await installed.ask(name, words) == "65532 False"
