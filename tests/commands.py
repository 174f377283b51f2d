"""The operator's commands as processes of their own: exit code, what they print, a terminal."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.controller import CLEARED
from tests.secrecy.outputs import OUTPUTS

BIN = Path(sys.executable).parent
LIMIT_S = 30.0

_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " os.execvp(sys.argv[1], sys.argv[1:])"
)
"""Make standard input the controlling terminal, which sends Ctrl-C to the foreground processes."""

_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[()][A-Z0-9]|[=>])")


@dataclass(frozen=True)
class Ended:
    """A command that is over; `lines` are those of standard output."""

    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


def environment(**settings: str) -> dict[str, str]:
    """Return ours without any setting of whoever runs the tests, and a home without files."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(CLEARED)}
    return inherited | {"HOME": "/dev/null", "PATH": f"{BIN}:{os.environ['PATH']}"} | settings


async def command(
    *words: str | Path, program: str = "reconciler", start: Sequence[str] = (), **settings: str
) -> Ended:
    """Run a command to its end with pipes; fails after `LIMIT_S`.

    Args:
        start: What is run with `words` in place of `program`.
    """
    own = BIN / program
    begin = [*start] or [str(own if own.exists() else program)]
    process = await asyncio.create_subprocess_exec(
        *begin,
        *words,
        env=environment(**settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


class Terminal:
    """A command in a terminal of its own; `text` is all that it drew, without colours."""

    def __init__(self, process: asyncio.subprocess.Process, keyboard: int) -> None:
        self._process = process
        self._keyboard = keyboard
        self.raw = ""
        self._news = asyncio.Event()

    @property
    def text(self) -> str:
        return _ESCAPE.sub("", self.raw)

    def take(self, data: bytes) -> None:
        OUTPUTS.left_in_parts("a terminal", id(self), data)
        self.raw += data.decode(errors="replace")
        self._news.set()

    async def wait_for(self, what: str, condition: Callable[[str], bool]) -> None:
        """Return when `condition` holds for the text; fails with the text's end otherwise."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while not condition(self.text):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not seen: {what}; it ends:\n{self.text[-2000:]}") from None

    def forget(self) -> None:
        """Look only at what is drawn from now on."""
        self.raw = ""

    def type(self, text: str) -> None:
        r"""Type text; "\x03" is Ctrl-C."""
        os.write(self._keyboard, text.encode())

    async def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and return the exit code."""
        self._process.send_signal(number)
        return await self.wait()

    async def wait(self) -> int:
        async with asyncio.timeout(LIMIT_S):
            return await self._process.wait()


@asynccontextmanager
async def terminal(
    *words: str | Path,
    program: str | Path = BIN / "reconciler",
    columns: int = 120,
    rows: int = 30,
    **settings: str,
) -> AsyncIterator[Terminal]:
    """Run a command in a terminal of that size; killed at the end if it still runs."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _TAKE_TERMINAL, program, *words),
            env=environment(TERM="xterm-256color", **settings),
            start_new_session=True,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    shown = Terminal(process, ours)
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            data = os.read(ours, 65_536)
        except OSError:  # Linux: the other side is closed
            data = b""
        if not data:
            loop.remove_reader(ours)
        shown.take(data)

    loop.add_reader(ours, read)
    try:
        yield shown
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        loop.remove_reader(ours)
        os.close(ours)
