"""Startup resync of a fleet: the product, two peers, a bare client and the replaced loop."""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from reconciler.clock import EpochTime, format_utc, format_utc_millis
from reconciler.naming import LIVE_PODS, Names
from tests.bench import old_loop
from tests.bench.figures import Value, ratio
from tests.bench.fleet import BARE, CONNECTIONS, Fleet, peer_secret
from tests.bench.operators import Resync, go_peer, kopf_peer, measured, product
from tests.bench.say import say
from tests.cluster.admin import SECRETS, item
from tests.cluster.world import World

NAMES = Names()

KOPF_MOST = 10_000
"""kopf writes some 85 tokens a second: with more sessions than this it is not run."""


async def measure(
    fleet: Fleet, binaries: Mapping[str, Path], *, rounds: int, old_loop_most: int
) -> list[Value]:
    """Run bare client, product and Go operator in turn, `rounds` times; the others once.

    Ratios are the medians of the rounds' ratios.

    Args:
        old_loop_most: With more sessions the replaced loop is not run: its rate is its client's
            limit for any number.
    """
    bares: list[dict[str, float]] = []
    ours: list[Resync] = []
    gos: list[Resync] = []
    for number in range(rounds):
        bares.append(await _bare_client(fleet))
        ours.append(await measured(fleet, product(fleet)))
        gos.append(await measured(fleet, go_peer(fleet, binaries["peer-operator"])))
        bare, one, go = bares[-1], ours[-1], gos[-1]
        say(
            f"{fleet.sessions:,} sessions, round {number + 1}, refreshes/s and CPU of each: product"
            f" {one.rate:.0f}/s {one.cpu_ms:.2f} ms, bare client {bare['rate']:.0f}/s"
            f" {bare['cpu_ms']:.2f} ms, Go {go.rate:.0f}/s {go.cpu_ms:.2f} ms"
        )
    found = _of_product(ours) | _of_bare(bares, ours) | _of_go(gos, ours)
    if fleet.sessions <= KOPF_MOST:
        say("the kopf operator, once to put its finalizers and once to be measured")
        await measured(fleet, kopf_peer(fleet))
        kopf = await measured(fleet, kopf_peer(fleet))
        found |= _of_kopf(kopf, found)
    if fleet.sessions <= old_loop_most:
        say(f"the replaced loop, {2 * fleet.sessions / old_loop.RATE:.0f} s")
        found["old_loop_rate"] = await old_loop.measure(fleet.world)
        found["rate_vs_old_loop"] = ratio(found["rate"], found["old_loop_rate"])
    return [Value(name, value, fleet.sessions) for name, value in found.items()]


def _of_product(ours: list[Resync]) -> dict[str, float]:
    return {
        "cpu_ms": median(one.cpu_ms for one in ours),
        "rate": median(one.rate for one in ours),
        "synced_s": median(one.synced_s for one in ours),
        "first_refresh_s": median(one.first_s for one in ours),
        "rss_synced_mb": median(one.rss_synced_mb for one in ours),
        "rss_mb": median(one.rss_mb for one in ours),
        "rss_peak_mb": median(one.rss_peak_mb for one in ours),
        "loop_lag_worst_s": max(one.lag_s for one in ours),
    }


def _of_bare(bares: list[dict[str, float]], ours: list[Resync]) -> dict[str, float]:
    pairs = list(zip(ours, bares, strict=True))
    return {
        "bare_cpu_ms": median(bare["cpu_ms"] for bare in bares),
        "bare_rate": median(bare["rate"] for bare in bares),
        "bare_lists_s": median(bare["lists_s"] for bare in bares),
        "cpu_vs_bare": median(ratio(one.cpu_ms, bare["cpu_ms"]) for one, bare in pairs),
        "rate_vs_bare": median(ratio(one.rate, bare["rate"]) for one, bare in pairs),
        "synced_vs_bare_lists": median(ratio(one.synced_s, bare["lists_s"]) for one, bare in pairs),
    }


def _of_go(gos: list[Resync], ours: list[Resync]) -> dict[str, float]:
    pairs = list(zip(ours, gos, strict=True))
    return {
        "go_cpu_ms": median(go.cpu_ms for go in gos),
        "go_rate": median(go.rate for go in gos),
        "go_synced_s": median(go.synced_s for go in gos),
        "go_first_refresh_s": median(go.first_s for go in gos),
        "go_rss_synced_mb": median(go.rss_synced_mb for go in gos),
        "go_rss_mb": median(go.rss_mb for go in gos),
        "cpu_vs_go": median(ratio(one.cpu_ms, go.cpu_ms) for one, go in pairs),
        "rate_vs_go": median(ratio(one.rate, go.rate) for one, go in pairs),
        "rss_vs_go": median(ratio(one.rss_mb, go.rss_mb) for one, go in pairs),
    }


def _of_kopf(kopf: Resync, found: Mapping[str, float]) -> dict[str, float]:
    return {
        "kopf_cpu_ms": kopf.cpu_ms,
        "kopf_rate": kopf.rate,
        "kopf_first_refresh_s": kopf.first_s,
        "kopf_rss_mb": kopf.rss_mb,
        "cpu_vs_kopf": ratio(found["cpu_ms"], kopf.cpu_ms),
        "rate_vs_kopf": ratio(found["rate"], kopf.rate),
    }


async def _bare_client(fleet: Fleet) -> dict[str, float]:
    """Return the figures of a client that only sends the product's lists and PATCHes.

    It opens new connections, as the product does after its restart, and has the same account. Its
    Secrets belong to no session of the product's, so that its writes cause no work there.
    """
    world = fleet.world
    body = _body(world)
    spec = {
        "url": world.control_plane.url,
        "ca_file": str(world.control_plane.ca_file),
        "token": world.account_token,
        "connections": CONNECTIONS,
        "lists": [
            ["/api/v1/pods", {"labelSelector": NAMES.session_id, "fieldSelector": LIVE_PODS}],
            ["/api/v1/secrets", {"labelSelector": NAMES.selector()}],
        ],
        "body": body,
        "todo": [
            item(runner.namespace, SECRETS, peer_secret(runner, BARE)) for runner in world.runners
        ],
    }
    path = fleet.folder / "bare-client.json"
    path.write_text(json.dumps(spec))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.bare_client", str(path), stdout=asyncio.subprocess.PIPE
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise AssertionError(f"the bare client ended with exit code {process.returncode}")
    found: dict[str, float] = json.loads(printed)
    return found


def _body(world: World) -> str:
    """Return what the product's patch holds, without its preconditions."""
    value = world.issuer.issue()
    claims = world.issuer.verify(value)
    annotations = {
        NAMES.issued_at: format_utc(claims["iat"]),
        NAMES.expires_at: format_utc(claims["exp"]),
        NAMES.refreshed_at: format_utc_millis(EpochTime(time.time())),
        NAMES.refreshed_by: "bare client",
    }
    token = base64.b64encode(value.encode()).decode()
    return json.dumps({"metadata": {"annotations": annotations}, "data": {NAMES.secret_key: token}})
