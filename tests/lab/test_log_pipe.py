"""A real `reconciler run` with a log that no process reads: it refreshes, takes over, answers and
ends; only its metrics show the problem."""

import asyncio
import base64
import fcntl
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp
import pytest

from reconciler.lab.apiserver import kinds
from reconciler.lab.cluster.cluster import LabCluster
from reconciler.lab.cluster.ports import free_port
from tests.controller import CLEARED, COMMAND

pytestmark = pytest.mark.timeout(120)

SESSIONS = 3
LIMIT_S = 60.0
CLOCKS = [
    f'token_reconciler_clock_offset_seconds{{clock="{clock}"}}'
    for clock in ("wall_clock", "issuer_date", "api_server_date")
]


@dataclass
class Unread:
    """A replica with a pipe for both outputs, full from the start."""

    process: asyncio.subprocess.Process
    port: int

    async def status(self, path: str) -> int:
        """Return the status of one of its probes, 0 while it does not answer."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
                http.get(f"http://127.0.0.1:{self.port}{path}") as answer,
            ):
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def metrics(self) -> str:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self.port}/metrics") as answer,
        ):
            return await answer.text()

    async def is_ready(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            while await self.status("/readyz") != 200:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def unread(lab: LabCluster, name: str) -> AsyncIterator[Unread]:
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write_fd, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write_fd, b"\n" * 512)
    os.set_blocking(write_fd, True)
    try:
        async with started(lab, name, write_fd) as found:
            yield found
    finally:
        os.close(read_fd)


@asynccontextmanager
async def started(lab: LabCluster, name: str, write_fd: int) -> AsyncIterator[Unread]:
    """Start a replica that has both its outputs there, which are closed here."""
    port = free_port()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(CLEARED)}
    own = {"RECONCILER_LISTEN": f"127.0.0.1:{port}", "RECONCILER_REPLICA": name}
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "run",
        env=inherited | lab.environment() | own | {"LOG_LEVEL": "debug"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=write_fd,
        stderr=write_fd,
    )
    os.close(write_fd)
    try:
        yield Unread(process, port)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.05)


def writers(lab: LabCluster) -> set[str]:
    """Return which replicas wrote the tokens that the Secrets hold now, "" for none."""
    found = set()
    for session in lab.sessions.values():
        secret = lab.core.get(kinds.SECRETS, session.namespace, session.secret)
        value = base64.b64decode(secret["data"][lab.names.secret_key]).decode()
        by = secret["metadata"].get("annotations", {}).get(lab.names.refreshed_by, "")
        found.add("" if value == session.first_token else by.partition("/")[0])
    return found


async def test_replicas_whose_logs_are_not_read_refresh_take_over_answer_and_end() -> None:
    async with LabCluster() as lab:
        lab.populate(SESSIONS)
        async with unread(lab, "first") as first:
            await until(lambda: writers(lab) == {"first"})
            assert await first.status("/livez") == 200
            async with unread(lab, "second") as second:
                await second.is_ready()
                first.process.kill()
                await until(lambda: writers(lab) == {"second"})
                assert await second.status("/livez") == 200
                second.process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(LIMIT_S):
                    assert await second.process.wait() == 0


async def test_metrics_count_lines_that_were_dropped_and_tell_each_clock_that_was_heard() -> None:
    async with LabCluster() as lab:
        lab.populate(1)
        read_fd, write_fd = os.pipe()
        os.close(read_fd)  # each line is dropped at once
        async with started(lab, "first", write_fd) as first:
            await until(lambda: writers(lab) == {"first"})
            text = ""
            async with asyncio.timeout(LIMIT_S):
                while any(clock not in text for clock in CLOCKS):
                    await asyncio.sleep(0.5)  # a scrape may be some seconds old
                    text = await first.metrics()
    name = "token_reconciler_log_lines_dropped_total"
    [dropped] = [line for line in text.splitlines() if line.startswith(name)]
    assert float(dropped.split()[1]) > 0
