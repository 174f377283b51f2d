"""The algorithm of the replaced loop: GET and PUT of one Secret after another, 50 a second."""

import asyncio
import time
from typing import Any

from reconciler.naming import Names
from tests.cluster.admin import SECRETS, item
from tests.cluster.world import Runner, World

RATE = 50.0
BURST = 100
"""Its client's limits, a token bucket."""


async def measure(world: World) -> float:
    """Refresh every session's Secret; return the rate, Secrets a second."""
    began = time.perf_counter()
    spent = 0

    async def wait_for_leave() -> None:
        nonlocal spent
        spent += 1
        wait_s = began + (spent - BURST) / RATE - time.perf_counter()
        await asyncio.sleep(max(0.0, wait_s))

    for runner in world.runners:
        await wait_for_leave()
        secret = await world.secret(runner)
        await wait_for_leave()
        await _put(world, runner, secret)
    return len(world.runners) / (time.perf_counter() - began)


async def _put(world: World, runner: Runner, secret: dict[str, Any]) -> None:
    body = secret | {"stringData": {Names().secret_key: world.issuer.issue()}}
    await world.admin.expect("PUT", item(runner.namespace, SECRETS, runner.secret), body)
