"""CPU of a leader with nothing to do, and with the renewals of 15-minute tokens."""

import asyncio

from tests.bench.figures import Value
from tests.bench.fleet import TTL_S, Fleet, ttl_s
from tests.bench.procfs import cpu_s
from tests.bench.product import leading
from tests.bench.say import say

RENEWED_FROM = 0.2
"""Of a token's life: the youngest token that is refreshed; a resync gives all the same age."""


async def measure(fleet: Fleet, *, seconds: float, renews: bool) -> list[Value]:
    """Return the shares of a core, each over `seconds`."""
    async with leading(fleet, fleet.environment()) as controller:
        pid = controller.process.pid
        found = [Value("idle_cpu_percent", await _share(pid, seconds) * 100, fleet.sessions)]
        if renews and ttl_s(fleet.sessions) == TTL_S:
            wait_s = RENEWED_FROM * TTL_S + 20
            say(f"waiting {wait_s:.0f} s until tokens are refreshed by age")
            await asyncio.sleep(wait_s)
            before = len(controller.events("runner_token_refreshed"))
            share = await _share(pid, seconds)
            count = len(controller.events("runner_token_refreshed")) - before
            if not count:
                raise AssertionError("no token was refreshed")
            say(f"{count / seconds:.1f} renewals a second")
            found.append(Value("renewing_cpu_percent", share * 100, fleet.sessions))
    return found


async def _share(pid: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    used_s, began = cpu_s(pid), loop.time()
    await asyncio.sleep(seconds)
    return (cpu_s(pid) - used_s) / (loop.time() - began)
