"""An exec plug-in: its last words are in the message, bounded; what it leaves behind is killed."""

import asyncio
import base64
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from reconciler.errors import SettingsError
from reconciler.kube.auth.exec_plugin import (
    EXTENSION,
    MAX_OUTPUT_BYTES,
    TAIL_BYTES,
    Plugin,
    cluster_info,
    plugin_of,
    run_plugin,
)
from reconciler.kube.auth.redaction import LIMIT

LIMIT_S = 20.0
SECRET = "obviously-fake-token-0123456789"
ANSWER = json.dumps({"apiVersion": "v1", "status": {"token": "t"}})


def shell(script: str, **fields: Any) -> Plugin:
    section = {"command": "sh", "args": ["-c", script], "apiVersion": "v1"}
    return plugin_of(section | fields)


async def problem(script: str, *, limit_s: float = LIMIT_S) -> str:
    with pytest.raises(SettingsError) as caught:
        await run_plugin(shell(script), limit_s=limit_s)
    return str(caught.value)


async def test_the_words_of_a_failing_plug_in_are_in_the_message() -> None:
    said = await problem(
        f"echo first >&2; echo {SECRET}; echo 'Unable to locate token' >&2; exit 3"
    )
    assert said == "exec plug-in sh exited 3; it said: first Unable to locate token"
    assert await problem("exit 3") == "exec plug-in sh exited 3; run it by hand to see why"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("nonsense", "did not answer with an v1 status"),
        ('{"apiVersion":"v1","status":{}}', "gave neither a token nor a certificate with its key"),
    ],
)
async def test_words_of_one_that_answers_nothing_of_use_are_too(output: str, words: str) -> None:
    said = await problem(f"echo '{output}'; echo 'no session' >&2")
    assert said == f"exec plug-in sh {words}; it said: no session"


async def test_one_that_hangs_is_ended_and_its_words_are_in_the_message() -> None:
    said = await problem(
        "echo 'open https://login.example to sign in' >&2; exec sleep 600", limit_s=0.5
    )
    assert said == (
        "its credentials did not come within 0.5 s from exec plug-in sh; it said: open"
        " https://login.example to sign in"
    )


def _has_ended(reader: int) -> bool:
    try:
        return os.read(reader, 1) == b""
    except BlockingIOError:
        return False


async def test_what_it_has_started_ends_with_it(tmp_path: Path) -> None:
    fifo = tmp_path / "open"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        await problem(f"sleep 600 >{fifo} & wait", limit_s=0.5)
        # The end of the pipe comes when the last process that has it open has ended.
        async with asyncio.timeout(LIMIT_S):
            while not _has_ended(reader):
                await asyncio.sleep(0.01)
    finally:
        os.close(reader)


async def test_its_words_are_bounded_and_hold_no_secret() -> None:
    lines = f"i=0; while [ $i -lt 20000 ]; do echo token={SECRET} $i; i=$((i+1)); done >&2"
    script = f"{lines}; echo end >&2; exit 1"
    said = await problem(script)
    assert said.endswith("19999 end")
    assert "obviously-fake" not in said
    assert len(said) <= LIMIT + 100 < TAIL_BYTES


async def test_an_answer_without_end_is_read_to_its_bound() -> None:
    assert await problem("exec yes") == "exec plug-in sh answered with more than 1048576 bytes"


async def test_an_answer_of_its_bound_is_read_whole() -> None:
    begin, end = ANSWER.split('"t"')
    count = MAX_OUTPUT_BYTES - len(begin) - len(end) - 2
    script = f"""printf '%s"' '{begin}'; {long(count)}; printf '"%s' '{end}'"""
    assert (await run_plugin(shell(script), limit_s=LIMIT_S)).token == "x" * count
    script = script.replace(str(count), str(count + 1))
    assert await problem(script) == "exec plug-in sh answered with more than 1048576 bytes"


def long(count: int) -> str:
    """Return a command that writes so many letters."""
    return f"head -c {count} /dev/zero | tr '\\0' x"


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("held", ["", ">/dev/null", ">/dev/null 2>&1"])
def test_what_it_leaves_behind_is_not_waited_for(
    held: str, loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    left = tmp_path / "pid"
    script = f"sleep 600 {held} & echo $! > {left}; echo '{ANSWER}'"
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            assert runner.run(run_plugin(shell(script), limit_s=LIMIT_S)).token == "t"
    finally:
        os.kill(int(left.read_text()), signal.SIGKILL)


async def test_a_missing_command_comes_with_the_kubeconfigs_hint() -> None:
    plugin = plugin_of(
        {"command": "/nowhere/p", "apiVersion": "v1", "installHint": "get it\n from\x1b[1m docs"}
    )
    with pytest.raises(SettingsError) as caught:
        await run_plugin(plugin, limit_s=LIMIT_S)
    assert str(caught.value) == (
        "exec plug-in p cannot be started: No such file or directory; get it from docs"
    )


@pytest.mark.parametrize("asks", [True, False, None])
async def test_it_gets_the_cluster_if_it_asks(asks: bool | None, tmp_path: Path) -> None:
    info = tmp_path / "info"
    script = f"printf %s \"$KUBERNETES_EXEC_INFO\" > {info}; echo '{ANSWER}'"
    plugin = shell(script, provideClusterInfo=asks, env=[{"name": "EMPTY", "value": None}])
    await run_plugin(plugin, cluster={"server": "https://k"}, limit_s=LIMIT_S)
    spec = json.loads(info.read_text())["spec"]
    assert spec == {"interactive": False} | ({"cluster": {"server": "https://k"}} if asks else {})


def test_what_it_gets_has_the_ca_as_data_and_its_own_extension(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(b"PEM")
    data = base64.b64encode(b"PEM").decode()
    assert cluster_info({"server": "s", "certificate-authority": str(tmp_path / "ca.crt")}) == {
        "server": "s", "certificate-authority-data": data, "config": None,
    }  # fmt: skip
    found = cluster_info(
        {
            "server": "s",
            "certificate-authority": "/nowhere",
            "certificate-authority-data": data,
            "tls-server-name": "n",
            "insecure-skip-tls-verify": True,
            "proxy-url": "http://p",
            "extensions": [
                {"name": "x", "extension": 1},
                {"name": EXTENSION, "extension": {"a": 2}},
            ],
        }
    )
    assert found == {
        "server": "s", "certificate-authority-data": data, "config": {"a": 2},
        "tls-server-name": "n", "insecure-skip-tls-verify": True, "proxy-url": "http://p",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("certificate-authority", "/nowhere/ca", "/nowhere/ca: No such file"),
        ("certificate-authority-data", "x", "its certificate-authority-data is no base64"),
    ],
)
def test_a_ca_that_cannot_be_read_is_named(field: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        cluster_info({"server": "s", field: value})
