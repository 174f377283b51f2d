"""The product as a running leader of a fleet."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.fleet import Fleet, finished_resync
from tests.controller import COMMAND, Controller, running


@asynccontextmanager
async def leading(
    fleet: Fleet,
    environment: Mapping[str, str],
    *,
    command: Sequence[str | Path] = (COMMAND, "run"),
) -> AsyncIterator[Controller]:
    """Start the product, and yield it when its startup resync has ended; end it by SIGTERM."""
    async with running(environment, command=command) as controller:
        await finished_resync(controller, fleet)
        yield controller
        if controller.process.returncode is None:
            await controller.terminate(limit_s=fleet.limit_s)
