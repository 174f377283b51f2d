"""Seconds without a write after a leader ends: by a release, a kill, or a kill of all replicas."""

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from uuid import uuid4

from tests.bench.figures import Value
from tests.bench.say import say
from tests.cluster.admin import Admin
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import World, open_world
from tests.controller import Controller, running

LEASE_S = 5
"""Shorter than the default: a result has the lease subtracted, and twenty crashes take long."""

SESSIONS = 20


@dataclass
class Replica:
    """A controller in a separate pod; a killed process has a successor there."""

    controller: Controller
    pod_uid: str
    stack: AsyncExitStack


async def measure(control_plane: ControlPlane, folder: Path, *, rounds: int) -> list[Value]:
    """Return p50 and maximum, in seconds, for each way in which a leader ends."""
    async with (
        Admin.connect(
            control_plane.url, ca_file=control_plane.ca_file, token=control_plane.admin_token
        ) as admin,
        open_world(control_plane, admin, folder) as world,
    ):
        project = await world.add_project()
        for _ in range(SESSIONS):
            await world.add(project)
        graceful = await _handovers(world, rounds, crash=False)
        say(f"graceful handovers {_shown(graceful)}")
        crashes = [s - LEASE_S for s in await _handovers(world, rounds, crash=True)]
        say(f"crashes, less the lease of {LEASE_S} s, {_shown(crashes)}")
        restarts = await _restarts(world, rounds)
        say(f"restarts of a killed leader in its pod {_shown(restarts)}")
    return [
        Value("failover_rounds", rounds),
        Value("failover_graceful_p50_s", median(graceful)),
        Value("failover_graceful_worst_s", max(graceful)),
        Value("failover_crash_minus_lease_p50_s", median(crashes)),
        Value("failover_crash_minus_lease_worst_s", max(crashes)),
        Value("restart_same_pod_p50_s", median(restarts)),
        Value("restart_same_pod_worst_s", max(restarts)),
    ]


async def _handovers(world: World, rounds: int, *, crash: bool) -> list[float]:
    """Return the seconds from the leader's signal to its successor's first write."""
    found = []
    leader = await _start(world)
    await leader.controller.wait_for_event("startup_resync_finished", limit_s=60)
    for _ in range(rounds):
        follower = await _start(world)
        await follower.controller.wait_for_event("stores_synced")
        await follower.controller.wait_for_event("leader_observed")
        signalled_s = time.time()
        if crash:
            leader.controller.kill()
        else:
            await leader.controller.terminate()
        await follower.controller.wait_for_event("startup_resync_finished", limit_s=60)
        found.append(_first_write_s(follower.controller) - signalled_s)
        await leader.stack.aclose()
        leader = follower
    await leader.stack.aclose()
    return found


async def _restarts(world: World, rounds: int) -> list[float]:
    """Return the seconds from the start of the next process in a killed leader's pod to its first
    write."""
    found = []
    leader = await _start(world)
    await leader.controller.wait_for_event("startup_resync_finished", limit_s=60)
    for _ in range(rounds):
        leader.controller.kill()
        started_s = time.time()
        successor = await _start(world, pod_uid=leader.pod_uid)
        await successor.controller.wait_for_event("startup_resync_finished", limit_s=60)
        found.append(_first_write_s(successor.controller) - started_s)
        await leader.stack.aclose()
        leader = successor
    await leader.stack.aclose()
    return found


async def _start(world: World, *, pod_uid: str = "") -> Replica:
    pod_uid = pod_uid or str(uuid4())
    environment = world.environment(
        RECONCILER_POD_UID=pod_uid,
        RECONCILER_LEASE_DURATION_S=f"{LEASE_S}",
        RECONCILER_RENEW_DEADLINE_S=f"{LEASE_S * 2 / 3:.2f}",
        RECONCILER_RETRY_PERIOD_S=f"{LEASE_S * 2 / 15:.2f}",
        RECONCILER_REQUEST_LIMIT_S="3",
    )
    stack = AsyncExitStack()
    return Replica(await stack.enter_async_context(running(environment)), pod_uid, stack)


def _first_write_s(controller: Controller) -> float:
    stamp = controller.events("runner_token_refreshed")[0]["timestamp"]
    return datetime.fromisoformat(stamp).timestamp()


def _shown(seconds: list[float]) -> str:
    return f"p50 {median(seconds):.2f} s, worst {max(seconds):.2f} s"
