"""An urgent session's wait while the pods of all others change thousands of times a second."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.bench.figures import Value, quantile
from tests.bench.procfs import cpu_s
from tests.bench.say import say
from tests.controller import running

RATE = 5050
"""A little above the target: the last group of changes is never due within the time."""
URGENT_A_SECOND = 5
LIMIT_S = 120.0
TOUCHES_S = 5.0
"""After the first start every pod is touched, and again after 2 s."""


async def measure(*, sessions: int, seconds: float) -> list[Value]:
    """Return the waits; the changes come from a server in a process of its own."""
    urgent = min(sessions // 2, max(1, round(seconds * URGENT_A_SECOND)))
    async with _server(sessions) as server:
        environment = await _line(server)
        async with running(environment) as controller:
            await controller.wait_for_event("startup_resync_finished", limit_s=LIMIT_S)
            await asyncio.sleep(TOUCHES_S)
            say(f"{RATE:,} changes of pods a second for {seconds:.0f} s, {urgent} urgent sessions")
            pid, loop = controller.process.pid, asyncio.get_running_loop()
            used_s, began = cpu_s(pid), loop.time()
            assert server.stdin is not None
            server.stdin.write(f"{RATE} {seconds} {urgent}\n".encode())
            found = await _line(server, limit_s=LIMIT_S + seconds)
            share = (cpu_s(pid) - used_s) / (loop.time() - began)
            await controller.terminate()
    waits_ms = [wait_s * 1e3 for wait_s in found["waits_s"]]
    return [
        Value("storm_changes_rate", found["rate"]),
        Value("storm_urgent_p50_ms", quantile(waits_ms, 0.5)),
        Value("storm_urgent_p99_ms", quantile(waits_ms, 0.99)),
        Value("storm_urgent_worst_ms", quantile(waits_ms, 1.0)),
        Value("storm_server_lag_p99_ms", found["lag_p99_s"] * 1e3),
        Value("storm_server_lag_worst_ms", found["lag_worst_s"] * 1e3),
        Value("storm_cpu_percent", share * 100),
    ]


@asynccontextmanager
async def _server(sessions: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.storm_server", f"{sessions}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**22,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _line(process: asyncio.subprocess.Process, *, limit_s: float = LIMIT_S) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(limit_s):
        line = await process.stdout.readline()
    if not line:
        raise AssertionError("the storm's server ended")
    found: dict[str, Any] = json.loads(line)
    return found
