"""CPU and memory of one replica for all sessions, and of each shard: the figures of sizing.md.

`python -m tests.bench.shards` measures on a real API server: one process for all sessions, then
each shard alone, in turn. RSS is less that of a process with `FEW` sessions, which has opened its
connections; CPU is less that of a process without sessions.

`python -m tests.bench.shards --paper 1000000 --shards 10` computes sizes and peaks of shards.
"""

import argparse
import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from reconciler.controller.decide.refresh_plan import GRID, phase
from reconciler.controller.decide.sharding import shard_of
from reconciler.naming import SessionKey
from tests.assets import find
from tests.bench.procfs import cpu_s, rss_mb
from tests.bench.say import say
from tests.cluster.admin import MERGE, RBAC, Admin
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import World, open_world
from tests.controller import running

PARALLEL = 32
FEW = 100
PERIOD_S = int(GRID * 900)
"""Each session is refreshed once in this time, with tokens of 15 minutes."""
LIMIT_S = 600.0
PROJECTS = 4


@dataclass(frozen=True)
class Figures:
    """Of one process: its sessions, CPU seconds until synced and of the resync, RSS in MB."""

    sessions: int
    synced_cpu_s: float
    resync_cpu_s: float
    rss_mb: float


async def measured(world: World, **settings: str) -> Figures:
    """Run one replica until its startup resync has finished."""
    async with running(world.environment(**settings)) as process:
        pid = process.process.pid
        await process.wait_for_event("stores_synced", limit_s=LIMIT_S)
        synced_s = cpu_s(pid)
        await process.wait_for_event("startup_resync_finished", limit_s=LIMIT_S)
        [end] = process.events("startup_resync_finished")
        return Figures(end["sessions"], synced_s, cpu_s(pid) - synced_s, rss_mb(pid))


async def fill(world: World, sessions: int) -> None:
    projects = [await world.add_project() for _ in range(PROJECTS)]
    slots = asyncio.Semaphore(PARALLEL)

    async def add(number: int) -> None:
        async with slots:
            await world.add(projects[number % PROJECTS])

    await asyncio.gather(*(add(number) for number in range(sessions)))


async def grant(world: World, shards: int) -> None:
    """Give the account the Leases of all shards."""
    path = f"/apis/{RBAC}/v1/namespaces/{world.home}/roles/token-reconciler-lease"
    role = await world.admin.expect("GET", path)
    for rule in role["rules"]:
        if "resourceNames" in rule:
            rule["resourceNames"] += [f"token-reconciler-{index}" for index in range(shards)]
    await world.admin.expect("PATCH", path, {"rules": role["rules"]}, content_type=MERGE)


async def measure(sessions: int, shards: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder, ControlPlane(find()) as control_plane:
        connected = Admin.connect(
            control_plane.url, ca_file=control_plane.ca_file, token=control_plane.admin_token
        )
        async with connected as admin, open_world(control_plane, admin, Path(folder)) as world:
            await grant(world, shards)
            empty = await measured(world, RECONCILER_NAMESPACES="")
            say(f"without sessions: {empty.rss_mb:.1f} MB, {empty.synced_cpu_s:.2f} s of CPU")
            await fill(world, FEW)
            few = await measured(world, RECONCILER_NAMESPACES="")
            say(f"with {FEW} sessions: {few.rss_mb:.1f} MB")
            await fill(world, sessions - FEW)
            await measured(world, RECONCILER_NAMESPACES="")  # the adoption, with its touches
            ratios: dict[str, list[float]] = {"rss": [], "resync_cpu": [], "cpu": []}
            for _ in range(rounds):
                one = await measured(world, RECONCILER_NAMESPACES="")
                parts = [
                    await measured(
                        world, RECONCILER_NAMESPACES="", RECONCILER_SHARD=f"{index}/{shards}"
                    )
                    for index in range(shards)
                ]
                say(f"all: {one}")
                for part in parts:
                    say(f"shard: {part}")
                if sum(part.sessions for part in parts) != one.sessions:
                    raise AssertionError("the shards have not all sessions once")
                for part in parts:
                    ratios["rss"].append((part.rss_mb - few.rss_mb) / (one.rss_mb - few.rss_mb))
                    ratios["resync_cpu"].append(part.resync_cpu_s / one.resync_cpu_s)
                    used_s, all_s = (
                        each.synced_cpu_s + each.resync_cpu_s - empty.synced_cpu_s
                        for each in (part, one)
                    )
                    ratios["cpu"].append(used_s / all_s)
                say(f"{(one.rss_mb - few.rss_mb) / (one.sessions - FEW) * 1024:.1f} KB a session")
            for name, found in ratios.items():
                say(f"{name} of a shard of {shards}: {median(found):.2f} of all sessions'")


def paper(sessions: int, shards: int) -> None:
    """Compute the shards' sizes, and the refreshes a second of the largest one over a period."""
    keys = [SessionKey(f"team-{number % 100}", f"2Ab{number:024x}") for number in range(sessions)]
    parts: list[list[int]] = [[] for _ in range(shards)]
    for number, key in enumerate(keys):
        parts[shard_of(key, shards)].append(number)
    sizes = sorted(map(len, parts))
    say(f"{sessions:,} sessions in {shards} shards: from {sizes[0]:,} to {sizes[-1]:,}")
    seconds = Counter(int(phase(f"uid-{number}") * PERIOD_S) for number in max(parts, key=len))
    mean = sizes[-1] / PERIOD_S
    say(
        f"refreshes a second of the largest: {mean:.0f} on average, {max(seconds.values())} at most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.shards", description=__doc__)
    parser.add_argument("--sessions", type=int, default=3000)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--paper", type=int, default=0, help="compute for so many sessions")
    arguments = parser.parse_args()
    if arguments.paper:
        paper(arguments.paper, arguments.shards)
        return
    asyncio.run(measure(arguments.sessions, arguments.shards, arguments.rounds))


if __name__ == "__main__":
    main()
