"""The example of docs/runners.md in each language, as a program that makes calls on request."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.assets import issuers, locate
from tests.assets.programs import RUNNER_PROGRAM
from tests.assets.typescript import TYPESCRIPT_MODULE, TYPESCRIPT_PACKAGE
from tests.cluster.conftest import unavailable

HERE = Path(__file__).parent
LIMIT_S = 60.0

Command = Callable[[Path], list[str]]
"""Makes the program of an example in an empty folder, and returns how it is started."""


@dataclass(frozen=True, slots=True)
class Example:
    """One language.

    Args:
        fence: The name of the language in the document's block.
        source: What the document shows.
    """

    fence: str
    source: Path
    command: Command


def _python(_folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.runners.python.main"]


def _go(_folder: Path) -> list[str]:
    found, _ = locate.search(RUNNER_PROGRAM)
    if found is None:
        unavailable("the example in Go is not built: install Go 1.26, then run `make assets`")
    return [str(found.path)]


def _typescript(folder: Path) -> list[str]:
    node, compiler = shutil.which("node"), issuers.find(TYPESCRIPT_PACKAGE)
    if node is None or compiler is None:
        unavailable("no TypeScript: install Node.js 20 with npm, then run `make assets`")
    shutil.copytree(TYPESCRIPT_MODULE, folder, dirs_exist_ok=True)
    (folder / "node_modules").symlink_to(TYPESCRIPT_PACKAGE.folder / "node_modules")
    done = subprocess.run(
        [node, compiler, "--project", folder], capture_output=True, text=True, check=False,
        timeout=2 * LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return [node, str(folder / "main.js")]


EXAMPLES = (
    Example("python", HERE / "python" / "runner_token.py", _python),
    Example("go", HERE / "go" / "runner_token.go", _go),
    Example("typescript", TYPESCRIPT_MODULE / "runner_token.ts", _typescript),
)


class ExampleProgram:
    """A started program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self) -> int:
        """Let it make one call; returns the status code that the call ended with."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        async with asyncio.timeout(LIMIT_S):
            return int(await self._process.stdout.readline())


@asynccontextmanager
async def started(command: list[str], target: str, file: Path) -> AsyncIterator[ExampleProgram]:
    """Start a program that calls `target` with the token in `file`; it ends with its input."""
    process = await asyncio.create_subprocess_exec(
        *command, target, str(file),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    try:
        yield ExampleProgram(process)
    finally:
        process.stdin.close()
        async with asyncio.timeout(LIMIT_S):
            await process.wait()
