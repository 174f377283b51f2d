"""The API server is killed and started again under a leader of a large fleet."""

import asyncio
import time

from tests.bench.figures import Value
from tests.bench.fleet import LAG, NAMES, Fleet, longest_s, metrics_text, samples
from tests.bench.procfs import peak_mb
from tests.bench.product import leading
from tests.cluster.admin import SECRETS
from tests.controller import Controller

EXPOSURE = "token_reconciler_estimated_exposure_seconds_total"


async def measure(fleet: Fleet) -> list[Value]:
    """Return the time until a change is acted on again, and what the return cost the leader."""
    world = fleet.world
    environment = fleet.environment()
    async with leading(fleet, environment) as controller:
        await asyncio.to_thread(world.control_plane.kill_apiserver)
        await controller.wait_for_event("endpoint_down", limit_s=fleet.limit_s)
        await asyncio.to_thread(world.control_plane.start_apiserver)
        ready_s = time.monotonic()
        runner = world.runners[-1]
        asked = {"metadata": {"annotations": {NAMES.requested_at: "now"}}}
        await world.admin.patch(runner.namespace, SECRETS, runner.secret, asked)
        await controller.wait_for(
            "the requested refresh", lambda: _is_requested(controller), limit_s=fleet.limit_s
        )
        text = await metrics_text(environment)
        found = {
            "restart_refresh_s": time.monotonic() - ready_s,
            "restart_rss_peak_mb": peak_mb(controller.process.pid),
            "restart_lag_worst_s": longest_s(text, LAG),
            "restart_exposure_s": samples(text)[EXPOSURE],
        }
    return [Value(name, value, fleet.sessions) for name, value in found.items()]


def _is_requested(controller: Controller) -> bool:
    reason: str = controller.events("runner_token_refreshed")[-1]["reason"]
    return reason == "requested"
