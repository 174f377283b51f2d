"""Commands with an output that cannot be written, or with closed standard files."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.commands import BIN, LIMIT_S, environment
from tests.lab.operator_lab import NAMES, Lab, open_lab

FULL = Path("/dev/full")
PIPE, OUTPUT = 141, 8


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path) as opened:
        for number in range(3):
            opened.add(f"2Ab{number:024}")
        yield opened


async def end(lab: Lab, script: str) -> tuple[int, str]:
    """Run a line of shell with our command as `$R`; return exit code and stderr."""
    settings = environment(KUBECONFIG=lab.kubeconfig("reader"), R=str(BIN / "reconciler"))
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, env=settings,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_S):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


COMMANDS = ["status -A", "status -A -o json", "explain -n team-a 2Ab000000000000000000000000"]

LOCAL_COMMANDS = [
    "--help", "--version", "status --help", "settings", "settings -o json", "completion bash",
    "simulate --from 0 --seeds 1",
]  # fmt: skip
"""What prints without a cluster: click, rich and ours each write in their own way."""


@pytest.mark.parametrize("words", LOCAL_COMMANDS)
async def test_each_command_ends_quietly_with_a_reader_that_has_ended(words: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        code, errors = await piped(words, write, environment())
    finally:
        os.close(write)
    assert (code, errors) == (PIPE, "")


@pytest.mark.parametrize("words", [*COMMANDS, "status -A --watch"])
async def test_a_reader_that_has_ended_is_no_expired_token(lab: Lab, words: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        settings = environment(KUBECONFIG=lab.kubeconfig("reader"))
        code, errors = await piped(words, write, settings)
    finally:
        os.close(write)
    assert code == PIPE, errors
    assert "rror" not in errors


async def piped(words: str, stdout: int, settings: Mapping[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        BIN / "reconciler", *words.split(), env=settings, stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(LIMIT_S):
        _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", COMMANDS)
async def test_a_full_disk_is_named_and_has_a_code_of_its_own(lab: Lab, words: str) -> None:
    code, errors = await end(lab, f"$R {words} > /dev/full")
    assert code == OUTPUT, errors
    last = errors.splitlines()[-1]
    assert last == "reconciler: cannot write the output: No space left on device"
    assert "Traceback" not in errors


async def test_notes_that_cannot_be_written_change_neither_the_result_nor_the_code(
    lab: Lab,
) -> None:
    code, _ = await end(lab, "test $($R status -A 2> /dev/full | wc -l) = 4")
    assert code == 0
    code, _ = await end(lab, "set -o pipefail; $R status -A 2> /dev/full | cat")
    assert code == 0


async def test_a_text_that_the_encoding_lacks_is_escaped(lab: Lab) -> None:
    text = {NAMES.refreshed_by: "\u6f22"}
    lab.add("2AbOdd", annotations=text)
    script = "PYTHONUTF8=0 PYTHONIOENCODING=ascii $R status -A -o wide >&2"
    code, output = await end(lab, script)
    assert code == 0
    assert "\\u6f22" in output


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
async def test_standard_files_that_are_closed_change_nothing_else(lab: Lab, closed: str) -> None:
    code, errors = await end(lab, f"$R status -A {closed}")
    assert code == 0
    assert "rror" not in errors
