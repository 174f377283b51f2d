"""Startup resync of a fleet: the product against the replaced loop and against a bare client."""

import asyncio
import base64
import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from reconciler.clock import format_utc, format_utc_millis
from reconciler.naming import Names
from tests.cluster.admin import SECRETS, Admin, collection, item
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import Runner, World, open_world
from tests.controller import running

PROJECTS = 4
CONNECTIONS = 64
OLD_RATE = 50.0
OLD_BURST = 100
NAMES = Names()


class Product(NamedTuple):
    """One restart of the product: refreshes a second, and CPU a refresh from the first log line of
    the startup resync to its last, all threads included.
    """

    rate: float
    cpu_ms: float
    synced_s: float
    first_s: float
    rss_mb: float


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
        bares: list[dict[str, float]] = []
        ours: list[Product] = []
        for number in range(rounds):
            bares.append(await _bare_client(world, folder))
            ours.append(await _product(world))
            bare, product = bares[-1], ours[-1]
            print(
                f"bench: round {number + 1}: product {product.rate:.0f}/s and"
                f" {product.cpu_ms:.2f} ms of CPU a refresh, bare client {bare['rate']:.0f}/s and"
                f" {bare['cpu_ms']:.2f} ms, first refresh after {product.first_s:.2f} s",
                flush=True,
            )
        print("bench: the replaced loop, GET and PUT one after another at 50/s", flush=True)
        old = await _old_loop(world)
    pairs = list(zip(ours, bares, strict=True))
    rate = median(product.rate for product in ours)
    return {
        "sessions": sessions,
        "rounds": rounds,
        "resync_rate": round(rate, 1),
        "floor_rate": round(median(bare["rate"] for bare in bares), 1),
        "old_loop_rate": round(old, 1),
        "resync_vs_old_loop": round(rate / old, 2),
        "resync_vs_floor": round(median(one.rate / bare["rate"] for one, bare in pairs), 3),
        "cpu_ms": round(median(product.cpu_ms for product in ours), 3),
        "floor_cpu_ms": round(median(bare["cpu_ms"] for bare in bares), 3),
        "cpu_vs_floor": round(median(one.cpu_ms / bare["cpu_ms"] for one, bare in pairs), 2),
        "synced_s": round(median(product.synced_s for product in ours), 3),
        "first_refresh_s": round(median(product.first_s for product in ours), 3),
        "rss_mb": round(median(product.rss_mb for product in ours), 1),
    }


async def _populate(world: World, sessions: int) -> None:
    projects = [await world.add_project() for _ in range(PROJECTS)]
    todo = iter([projects[number % PROJECTS] for number in range(sessions)])

    async def work() -> None:
        for project in todo:
            runner = await world.add(project)
            body = {
                "metadata": {"name": _bare_name(runner)},
                "data": (await world.secret(runner))["data"],
            }
            await world.admin.expect("POST", collection(runner.namespace, SECRETS), body)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())


async def _adopt(world: World) -> None:
    """Run the controller once, so that the measured run is a restart."""
    async with running(world.environment(RECONCILER_NAMESPACES="")) as controller:
        await controller.wait_for_event("startup_resync_finished", limit_s=120)
        count = len(world.runners)
        await controller.wait_for_event("runner_token_refreshed", count=count, limit_s=120)
        await controller.terminate()


async def _product(world: World) -> Product:
    """Restart the controller, and measure its startup resync."""
    started_s = time.time()
    async with running(world.environment(RECONCILER_NAMESPACES="")) as controller:
        pid = controller.process.pid
        await controller.wait_for_event("startup_resync_started", limit_s=120)
        cpu_s = _cpu_s(pid)
        await controller.wait_for_event("startup_resync_finished", limit_s=240)
        cpu_s = _cpu_s(pid) - cpu_s
        [finished] = controller.events("startup_resync_finished")
        reasons = {line["reason"] for line in controller.events("runner_token_refreshed")}
        assert finished["refreshed"] == len(world.runners), finished
        assert reasons == {"startup_resync"}, reasons
        found = Product(
            rate=finished["sessions"] / finished["seconds"],
            cpu_ms=cpu_s / len(world.runners) * 1e3,
            synced_s=controller.seconds_to("stores_synced", started_s),
            first_s=controller.seconds_to("runner_token_refreshed", started_s),
            rss_mb=_peak_mb(pid),
        )
        await controller.terminate()
    return found


def _cpu_s(pid: int) -> float:
    """Return the CPU that a process has used, its threads included (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [peak] = [line for line in lines if line.startswith("VmHWM:")]
    return int(peak.split()[1]) / 1024


async def _bare_client(world: World, folder: Path) -> dict[str, float]:
    """Return the figures of a client that only sends the product's PATCHes.

    It opens new connections, as the product does after its restart: both rates include handshakes.
    Its Secrets belong to no session, so that its writes cause no work in the product.
    """
    spec = folder / "bare-client.json"
    todo = [
        (item(runner.namespace, SECRETS, _bare_name(runner)), _body(world))
        for runner in world.runners
    ]
    control_plane = world.control_plane
    spec.write_text(
        json.dumps(
            {
                "url": control_plane.url,
                "ca_file": str(control_plane.ca_file),
                "token": control_plane.admin_token,
                "connections": CONNECTIONS,
                "todo": todo,
            }
        )
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.bare_client", str(spec), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, process.returncode
    found: dict[str, float] = json.loads(printed)
    return found


def _bare_name(runner: Runner) -> str:
    return f"bare-{runner.secret}"


def _body(world: World) -> str:
    """Return what the product's patch holds, without its preconditions."""
    value = world.issuer.issue()
    claims = world.issuer.verify(value)
    annotations = {
        NAMES.issued_at: format_utc(claims["iat"]),
        NAMES.expires_at: format_utc(claims["exp"]),
        NAMES.refreshed_at: format_utc_millis(time.time()),
        NAMES.refreshed_by: "bare client",
    }
    token = base64.b64encode(value.encode()).decode()
    return json.dumps({"metadata": {"annotations": annotations}, "data": {NAMES.secret_key: token}})


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
