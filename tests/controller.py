"""`reconciler run` as a process of its own, its log read as a stranger would read it."""

import asyncio
import json
import os
import signal
import sys
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

Line = dict[str, Any]

COMMAND = Path(sys.executable).with_name("reconciler")

CLEARED = (
    "KUBECONFIG", "AMBIENT_", "OIDC_", "RECONCILER_", "PLATFORM_MODE", "LOG_LEVEL", "PYTHON",
    "COLUMNS", "LINES",
)  # fmt: skip
"""The environment of whoever runs the tests must not reach the controller."""


class Controller:
    """One running process. `lines` are its log's JSON lines, `text` everything that it printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[Line] = []
        self.text: deque[str] = deque(maxlen=200_000)
        self._by_name: dict[str, list[Line]] = defaultdict(list)
        self._news = asyncio.Condition()

    async def read(self) -> None:
        """Read standard error to its end."""
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            line = raw.decode()
            self.text.append(line)
            with suppress(json.JSONDecodeError):
                found = json.loads(line)
                self.lines.append(found)
                self._by_name[found["event"]].append(found)
            async with self._news:
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()

    def events(self, name: str) -> list[Line]:
        return self._by_name[name]

    def seconds_to(self, name: str, started_s: float) -> float:
        """Return the seconds from an instant (epoch) to the first line of that event."""
        stamp = self.events(name)[0]["timestamp"]
        return datetime.fromisoformat(stamp).timestamp() - started_s

    async def wait_for(
        self, what: str, condition: Callable[[], bool], *, limit_s: float = 30.0
    ) -> None:
        """Return when the log makes `condition` true; fails with the log's end otherwise."""
        try:
            async with asyncio.timeout(limit_s), self._news:
                await self._news.wait_for(condition)
        except TimeoutError:
            tail = "".join(list(self.text)[-20:])
            raise AssertionError(f"not within {limit_s} s: {what}; the log ends:\n{tail}") from None

    async def wait_for_event(self, name: str, *, count: int = 1, limit_s: float = 30.0) -> None:
        await self.wait_for(
            f"{count} x {name}", lambda: len(self.events(name)) >= count, limit_s=limit_s
        )

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)

    async def terminate(self, *, limit_s: float = 30.0) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(limit_s):
            return await self.process.wait()


@asynccontextmanager
async def running(
    environment: Mapping[str, str],
    *,
    offset_s: float = 0.0,
    command: Sequence[str | Path] = (COMMAND, "run"),
) -> AsyncIterator[Controller]:
    """Start the controller with nothing of the outer environment's settings; kill it at the end.

    Args:
        offset_s: Its wall clock less this machine's.
        command: Another program, which writes its log in the same form.
    """
    if offset_s:
        command = [sys.executable, "-m", "tests.offset_clock", str(offset_s), "run"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(CLEARED)}
    process = await asyncio.create_subprocess_exec(
        *command,
        env=inherited | dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=2**22,
    )
    controller = Controller(process)
    reader = asyncio.create_task(controller.read())
    try:
        yield controller
    finally:
        controller.kill()
        await process.wait()
        await reader
