"""Renewals at a constant rate: how late they are, and what they cost.

Short tokens give a small fleet the rate of a large one: a token is renewed at each 0.4 of its life.
"""

import asyncio
from pathlib import Path

from tests.bench.figures import Value, quantile, ratio
from tests.bench.fleet import populate
from tests.bench.procfs import cpu_s
from tests.bench.say import say
from tests.cluster.admin import Admin
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import open_world
from tests.controller import Controller, running

TTL_S = 30.0
PERIOD_S = 0.4 * TTL_S
LIMIT_S = 300.0

TIMES = {
    "RECONCILER_PROPAGATION_ALLOWANCE_S": "3",
    "RECONCILER_LEASE_DURATION_S": "5",
    "RECONCILER_RENEW_DEADLINE_S": "3.333",
    "RECONCILER_RETRY_PERIOD_S": "0.667",
    "RECONCILER_REQUEST_LIMIT_S": "3.333",
    # The first tokens are unreadable, and each pod would be touched twice for it.
    "RECONCILER_TOUCH": "false",
}
"""The default times in proportion to the token's life."""


async def measure(
    control_plane: ControlPlane, folder: Path, *, rate: float, seconds: float
) -> list[Value]:
    """Return rate, lateness and CPU over `seconds`, after one period of all sessions."""
    sessions = round(rate * PERIOD_S)
    async with (
        Admin.connect(
            control_plane.url, ca_file=control_plane.ca_file, token=control_plane.admin_token
        ) as admin,
        open_world(control_plane, admin, folder, ttl_s=TTL_S) as world,
    ):
        say(
            f"making {sessions:,} sessions with tokens of {TTL_S:.0f} s: {rate:g} renewals a second"
        )
        await populate(world, sessions)
        async with running(world.environment(**TIMES)) as controller:
            await controller.wait_for_event("startup_resync_finished", limit_s=LIMIT_S)
            await asyncio.sleep(PERIOD_S)
            first = len(controller.events("runner_token_refreshed"))
            pid, loop = controller.process.pid, asyncio.get_running_loop()
            used_s, began = cpu_s(pid), loop.time()
            await asyncio.sleep(seconds)
            used_s, took_s = cpu_s(pid) - used_s, loop.time() - began
            lateness_s = _lateness_s(controller, first)
            await controller.terminate()
    count = len(lateness_s)
    return [
        Value("steady_rate", count / took_s),
        Value("steady_lateness_p50_s", quantile(lateness_s, 0.5)),
        Value("steady_lateness_p99_s", quantile(lateness_s, 0.99)),
        Value("steady_lateness_worst_s", quantile(lateness_s, 1.0)),
        Value("steady_cpu_percent", used_s / took_s * 100),
        Value("steady_cpu_ms", ratio(used_s * 1e3, count)),
    ]


def _lateness_s(controller: Controller, first: int) -> list[float]:
    return [
        line["lateness_seconds"] for line in controller.events("runner_token_refreshed")[first:]
    ]
