"""The commands in a terminal, watched live, and through kubectl."""

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.naming import Names
from tests.commands import BIN, command, environment, terminal
from tests.lab.operator_lab import TTL_S, Lab, open_lab

NAMES = Names()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path) as opened:
        yield opened


async def test_a_terminal_gets_colours_and_as_many_columns_as_fit(lab: Lab) -> None:
    lab.add("2AbOneOfTheUsualLength00000", age_s=TTL_S + 60)
    config = lab.kubeconfig("reader")
    for columns, kept in ((160, True), (80, False)):
        async with terminal("status", "-A", columns=columns, KUBECONFIG=config) as shown:
            assert await shown.wait() == 1
            await shown.wait_for("the row", lambda text: "expired" in text)
        assert "\x1b[1;31mexpired" in shown.raw
        assert ("REFRESHED" in shown.text) == kept
        lines = shown.text.splitlines()
        assert max(len(line.rstrip()) for line in lines) <= columns
        assert any("session-2aboneoftheusuallength00000-runner" in line for line in lines)


async def test_watching_follows_the_cluster_until_ctrl_c(lab: Lab) -> None:
    one = lab.add("2AbOne", age_s=TTL_S + 60)
    async with terminal("status", "-w", KUBECONFIG=lab.kubeconfig("reader")) as shown:
        await shown.wait_for("the dead token", lambda text: "expired" in text)
        lab.write(one)
        await shown.wait_for("the new token", lambda text: "1 session pod: 1 ok" in text)
        await lab.server.stop_listening()
        await shown.wait_for("that it is unreachable", lambda text: "cannot list pods" in text)
        await lab.server.listen()
        shown.forget()
        await shown.wait_for("that it is back", lambda text: "read just now; press Ctrl-C" in text)
        shown.forget()
        assert await shown.end() == 0
        await shown.wait_for("the last picture", lambda text: "1 session pod: 1 ok" in text)
    assert "Traceback" not in shown.text


async def test_watching_into_a_pipe_prints_one_json_object_a_change(lab: Lab) -> None:
    one = lab.add("2AbOne", age_s=TTL_S + 60)
    process = await asyncio.create_subprocess_exec(
        BIN / "reconciler", "status", "-w", "-o", "json",
        env=environment(KUBECONFIG=lab.kubeconfig("reader")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            first = json.loads(await process.stdout.readline())
            lab.write(one)
            second = json.loads(await process.stdout.readline())
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
            assert await process.stdout.read() == b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert [found["summary"]["expired"] for found in (first, second)] == [1, 0]


async def test_watching_an_expired_token_ends_with_1_on_any_signal(lab: Lab) -> None:
    lab.add("2AbOne", age_s=TTL_S + 60)
    async with terminal("status", "-w", KUBECONFIG=lab.kubeconfig("reader")) as shown:
        await shown.wait_for("the dead token", lambda text: "expired" in text)
        assert await shown.end(signal.SIGTERM) == 1
    assert "Traceback" not in shown.text


async def test_explain_in_a_narrow_terminal_keeps_commands_whole(lab: Lab) -> None:
    one = lab.add("2AbOneOfTheUsualLength00000", age_s=TTL_S + 60)
    config = lab.kubeconfig("reader")
    async with terminal("explain", one.pod, columns=60, KUBECONFIG=config) as shown:
        assert await shown.wait() == 1
        await shown.wait_for("the advice", lambda text: "--wait" in text)
    assert f"reconciler refresh team-a/{one.pod} --wait" in shown.text


async def test_kubectl_finds_the_plugin_and_its_completions(lab: Lab) -> None:
    one = lab.add("2AbOne")
    config = lab.kubeconfig("reader")
    status = await command("status", program="kubectl-token_reconciler", KUBECONFIG=config)
    assert status.lines[1].split()[:2] == ["2AbOne", one.pod]
    if shutil.which("kubectl"):
        through = await command("token_reconciler", "status", program="kubectl", KUBECONFIG=config)
        assert through.lines[1].split()[:2] == ["2AbOne", one.pod]
    usage = await command("explain", "-h", program="kubectl-token_reconciler")
    assert usage.lines[0].startswith("Usage: kubectl token_reconciler explain")
    for words, offered in (
        (["st"], ["status", ":4"]),
        (["explain", "sess"], [one.pod, ":4"]),
        (["status", "-n", ""], ["team-a", ":4"]),
        (["status", "--context", "l"], ["lab", ":4"]),
    ):
        program = "kubectl_complete-token_reconciler"
        assert (await command(*words, program=program, KUBECONFIG=config)).lines == offered
    silent = await command("explain", "s", program="kubectl_complete-token_reconciler")
    assert (silent.code, silent.lines, silent.stderr) == (0, [":4"], "")
