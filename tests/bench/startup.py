"""Startup resync of a fleet: the product against the replaced loop and against a bare client."""

import asyncio
import base64
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from reconciler.clock import format_utc, format_utc_millis
from reconciler.naming import Names
from tests.cluster.admin import MERGE, PARTIAL, SECRETS, Admin, item
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import Runner, World, open_world
from tests.controller import running

PROJECTS = 4
CONNECTIONS = 64
OLD_RATE = 50.0
OLD_BURST = 100
NAMES = Names()


async def measure(
    control_plane: ControlPlane, folder: Path, *, sessions: int, rounds: int
) -> dict[str, Any]:
    """Return the figures; rates are sessions a second."""
    async with (
        Admin.connect(
            control_plane.url, ca_file=control_plane.ca_file, token=control_plane.admin_token
        ) as admin,
        open_world(control_plane, admin, folder) as world,
    ):
        print(f"bench: making {sessions} sessions in {PROJECTS} projects", flush=True)
        await _populate(world, sessions)
        await _adopt(world)
        floors, ours, firsts, ratios = [], [], [], []
        for number in range(rounds):
            floor = await _bare_patches(world)
            rate, first_s = await _product(world)
            floors.append(floor)
            ours.append(rate)
            firsts.append(first_s)
            ratios.append(rate / floor)
            print(
                f"bench: round {number + 1}: product {rate:.0f}/s, bare client {floor:.0f}/s,"
                f" ratio {rate / floor:.2f}, first refresh after {first_s:.2f} s",
                flush=True,
            )
        print("bench: the replaced loop, GET and PUT one after another at 50/s", flush=True)
        old = await _old_loop(world)
    return {
        "sessions": sessions,
        "rounds": rounds,
        "resync_rate": round(median(ours), 1),
        "floor_rate": round(median(floors), 1),
        "old_loop_rate": round(old, 1),
        "resync_vs_old_loop": round(median(ours) / old, 2),
        "resync_vs_floor": round(median(ratios), 3),
        "first_refresh_s": round(median(firsts), 3),
    }


async def _populate(world: World, sessions: int) -> None:
    projects = [await world.add_project() for _ in range(PROJECTS)]
    todo = iter([projects[number % PROJECTS] for number in range(sessions)])

    async def work() -> None:
        for project in todo:
            await world.add(project)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())


async def _adopt(world: World) -> None:
    """Let the controller take the fleet over once: the story that is timed is its restart."""
    async with running(world.environment(RECONCILER_NAMESPACES="")) as controller:
        await controller.wait_for_event("startup_resync_finished", limit_s=120)
        count = len(world.runners)
        await controller.wait_for_event("runner_token_refreshed", count=count, limit_s=120)
        await controller.terminate()


async def _product(world: World) -> tuple[float, float]:
    """Return the rate of a restarted controller, and process start to its first refresh."""
    started_s = time.time()
    async with running(world.environment(RECONCILER_NAMESPACES="")) as controller:
        await controller.wait_for_event("startup_resync_finished", limit_s=120)
        [finished] = controller.events("startup_resync_finished")
        first_s = controller.seconds_to("runner_token_refreshed", started_s)
        reasons = {line["reason"] for line in controller.events("runner_token_refreshed")}
        assert finished["refreshed"] == len(world.runners), finished
        assert reasons == {"startup_resync"}, reasons
        await controller.terminate()
    return finished["sessions"] / finished["seconds"], first_s


async def _bare_patches(world: World) -> float:
    """Return the rate of a client that does nothing but PATCH what the product would.

    It connects anew, as the product does after its restart: both rates hold their handshakes.
    """
    bodies = iter([(runner, _body(world)) for runner in world.runners])
    headers = {"Content-Type": MERGE, "Accept": PARTIAL}
    control_plane = world.control_plane

    async def work(session: aiohttp.ClientSession) -> None:
        for runner, body in bodies:
            url = control_plane.url + item(runner.namespace, SECRETS, runner.secret)
            async with session.patch(
                url, data=body, headers=headers, params={"fieldManager": NAMES.field_manager}
            ) as response:
                await response.read()
                assert response.status == 200, response.status

    connecting = Admin.connect(
        control_plane.url, ca_file=control_plane.ca_file, token=control_plane.admin_token
    )
    began = time.perf_counter()
    async with connecting as admin, asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work(admin.session))
    return len(world.runners) / (time.perf_counter() - began)


def _body(world: World) -> bytes:
    """Make the product's patch without its preconditions; the fleet stays the product's own."""
    value = world.issuer.issue()
    claims = world.issuer.verify(value)
    annotations = {
        NAMES.issued_at: format_utc(claims["iat"]),
        NAMES.expires_at: format_utc(claims["exp"]),
        NAMES.refreshed_at: format_utc_millis(time.time()),
        NAMES.refreshed_by: "bare client",
    }
    token = base64.b64encode(value.encode()).decode()
    return json.dumps(
        {"metadata": {"annotations": annotations}, "data": {NAMES.secret_key: token}}
    ).encode()


async def _old_loop(world: World) -> float:
    """Return the rate of the loop that is replaced: its client's limits are a token bucket."""
    began = time.perf_counter()
    spent = 0

    async def wait_for_leave() -> None:
        nonlocal spent
        spent += 1
        wait_s = began + (spent - OLD_BURST) / OLD_RATE - time.perf_counter()
        await asyncio.sleep(max(0.0, wait_s))

    for runner in world.runners:
        await wait_for_leave()
        secret = await world.secret(runner)
        await wait_for_leave()
        await _put(world, runner, secret)
    return len(world.runners) / (time.perf_counter() - began)


async def _put(world: World, runner: Runner, secret: dict[str, Any]) -> None:
    body = secret | {"stringData": {NAMES.secret_key: world.issuer.issue()}}
    await world.admin.expect("PUT", item(runner.namespace, SECRETS, runner.secret), body)
