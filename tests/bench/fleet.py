"""A control plane with many sessions, and for each session a Secret of the peers' own."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from reconciler.controller.decide.pod_touches import LATEST_SYNC_S
from reconciler.naming import Names
from tests.bench.plan import LARGE
from tests.bench.procfs import peak_mb, rss_mb
from tests.bench.say import say
from tests.cluster.accounts import account_token
from tests.cluster.admin import SECRETS, Admin, collection
from tests.cluster.controlplane import ControlPlane, free_port
from tests.cluster.copies import Etcd, add_copies, copy_object
from tests.cluster.installed import ACCOUNT
from tests.cluster.world import Runner, World, open_world
from tests.controller import Controller, running

TTL_S = 900.0
"""Life of a token."""

PROJECTS = 4
CONNECTIONS = 64
TOUCHES_PER_SESSION = 2
"""Source: `pod_touches.TOUCHES_PER_WRITE`: the adoption replaces a token that cannot be read."""

LAST_TOUCH_S = LATEST_SYNC_S + 15.0
"""After the last write: touches that found no room until then are not made any more."""

NAMES = Names()
TOUCHES = "token_reconciler_pod_touches_total"
LAG = "token_reconciler_event_loop_lag_seconds"
PEER_LABEL = "bench.example.invalid/peer"
BARE, KOPF = "bare", "kopf"
"""Values of `PEER_LABEL`, and prefixes of the Secrets' names. kopf adds a finalizer to its own."""


@dataclass
class Fleet:
    """One world whose sessions the product has adopted: the next run is a restart.

    `first_start` has the figures of the run that adopted them.
    """

    world: World
    folder: Path
    first_start: dict[str, float] = field(default_factory=dict)

    @property
    def sessions(self) -> int:
        return len(self.world.runners)

    def environment(self, **settings: str) -> dict[str, str]:
        """Return the environment of a controller of all namespaces, on a free port."""
        listen = f"127.0.0.1:{free_port()}"
        return self.world.environment(
            RECONCILER_NAMESPACES="", RECONCILER_LISTEN=listen, **settings
        )

    async def renew_account(self) -> None:
        """Ask for a new token of the account: one lasts an hour, and a long run longer."""
        world = self.world
        world.account_token = await account_token(world.admin, world.home, ACCOUNT)

    @property
    def limit_s(self) -> float:
        """The longest time to wait for a step over all sessions."""
        return 120.0 + self.sessions / 20


@asynccontextmanager
async def opened(
    control_plane: ControlPlane, folder: Path, *, sessions: int, peers: Iterable[str] = ()
) -> AsyncIterator[Fleet]:
    """Make the sessions, and a Secret a session for each of `peers`; adopt the sessions."""
    async with (
        Admin.connect(
            control_plane.url, ca_file=control_plane.ca_file, token=control_plane.admin_token
        ) as admin,
        open_world(control_plane, admin, folder, ttl_s=ttl_s(sessions)) as world,
    ):
        fleet = Fleet(world, folder)
        say(f"making {sessions:,} sessions in {PROJECTS} projects")
        await populate(world, sessions)
        for peer in peers:
            await _add_peer(world, peer)
        await _adopt(fleet)
        yield fleet


def ttl_s(sessions: int) -> float:
    """Return the life of the tokens, seconds: none is due while a step over all sessions lasts."""
    return TTL_S if sessions <= LARGE else 4 * TTL_S


async def populate(world: World, sessions: int) -> None:
    """Create the sessions, the first through the API server and the others as its copies."""
    projects = [await world.add_project() for _ in range(PROJECTS)]
    first, *others = (projects[number % PROJECTS] for number in range(sessions))
    await add_copies(world, await world.add(first), others)


def peer_secret(runner: Runner, peer: str) -> str:
    """Return the name of a peer's Secret of a session."""
    return f"{peer}-{runner.secret}"


async def _add_peer(world: World, peer: str) -> None:
    """Create Secrets like the sessions', without the label by which the product selects its own.

    They have the session's ID, as the policies of the manifests ask for.
    """
    runner, *others = world.runners
    labels = {NAMES.session_id: runner.session_id, PEER_LABEL: peer}
    body = {
        "metadata": {"name": peer_secret(runner, peer), "labels": labels},
        "stringData": {NAMES.secret_key: "obviously-fake-old-token"},
    }
    await world.admin.expect("POST", collection(runner.namespace, SECRETS), body)
    async with Etcd.connect(world.control_plane.etcd_socket) as etcd:
        await copy_object(world, etcd, SECRETS, peer_secret(runner, peer), runner, others)


async def _adopt(fleet: Fleet) -> None:
    """Run the controller once, until it has written each token and made the last pod touch."""
    environment = fleet.environment()
    limit_s = fleet.limit_s * 3
    started_s = time.time()
    async with running(environment) as controller:
        await controller.wait_for_event("startup_resync_finished", limit_s=limit_s)
        count = fleet.sessions
        await controller.wait_for_event("runner_token_refreshed", count=count, limit_s=limit_s)
        say("adopted; waiting for the pod touches")
        until_s = time.monotonic() + LAST_TOUCH_S
        while await touches(environment) < TOUCHES_PER_SESSION * count:
            if time.monotonic() > until_s:
                break  # a large fleet's later touches were dropped
            await asyncio.sleep(0.5)
        synced_s = controller.seconds_to("stores_synced", started_s)
        fleet.first_start = {
            "first_start_synced_s": synced_s,
            "first_start_wait_s": controller.seconds_to("runner_token_refreshed", started_s)
            - synced_s,
            "first_start_resync_s": controller.seconds_to("startup_resync_finished", started_s),
            "first_start_touched_s": time.time() - started_s,
            "first_start_touches": await touches(environment) / count,
            "first_start_rss_mb": rss_mb(controller.process.pid),
            "first_start_rss_peak_mb": peak_mb(controller.process.pid),
            "first_start_lag_worst_s": longest_s(await metrics_text(environment), LAG),
        }
        await controller.terminate()


async def touches(environment: Mapping[str, str]) -> float:
    """Return how many pods the controller of this environment has touched."""
    return (await metrics(environment)).get(TOUCHES, 0.0)


async def metrics(environment: Mapping[str, str]) -> dict[str, float]:
    """Return the samples of /metrics, summed over labels."""
    return samples(await metrics_text(environment))


async def metrics_text(environment: Mapping[str, str]) -> str:
    url = f"http://{environment['RECONCILER_LISTEN']}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return await response.text()


def longest_s(text: str, histogram: str) -> float:
    """Return the upper bound of the largest value in a histogram without labels, seconds.

    >>> longest_s('a_bucket{le="0.1"} 7\\na_bucket{le="0.2"} 8\\na_bucket{le="+Inf"} 8\\n', "a")
    0.2
    """
    lines = [line for line in text.splitlines() if line.startswith(f"{histogram}_bucket")]
    counts = {float(line.split('"')[1]): float(line.split()[-1]) for line in lines}
    return min(bound for bound, count in counts.items() if count == counts[math.inf])


def samples(text: str) -> dict[str, float]:
    """Return name -> the sum of its samples over all labels.

    >>> samples('# HELP a b\\na 2\\nb{c="d"} 3\\nb{c="e f"} 4\\n')
    {'a': 2.0, 'b': 7.0}
    """
    sums: dict[str, float] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


async def finished_resync(controller: Controller, fleet: Fleet) -> dict[str, Any]:
    """Wait for the end of the startup resync; return its line, in which all were refreshed."""
    await controller.wait_for_event("startup_resync_finished", limit_s=fleet.limit_s)
    [line] = controller.events("startup_resync_finished")
    if line["refreshed"] != fleet.sessions:
        raise AssertionError(f"not every session was refreshed: {json.dumps(line)}")
    finished: dict[str, Any] = line
    return finished
