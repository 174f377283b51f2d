"""One startup resync of an operator, each in a process of its own: the product or a peer."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.fleet import (
    BARE,
    CONNECTIONS,
    KOPF,
    LAG,
    PEER_LABEL,
    TOUCHES,
    Fleet,
    finished_resync,
    longest_s,
    metrics_text,
    samples,
)
from tests.bench.procfs import cpu_s, peak_mb, rss_mb
from tests.controller import COMMAND, running

KOPF_INTERVAL_S = 600
"""Longer than any run of it here: each Secret is written once."""


@dataclass(frozen=True)
class Operator:
    """A program that logs JSON lines: `synced`, the first write, the end of its resync."""

    command: Sequence[str | Path]
    environment: Mapping[str, str]
    synced: str = "synced"


@dataclass(frozen=True)
class Resync:
    """Figures of one startup resync; times from the start of the process."""

    rate: float
    cpu_ms: float
    synced_s: float
    first_s: float
    rss_synced_mb: float
    rss_mb: float
    rss_peak_mb: float
    lag_s: float = math.nan


def product(fleet: Fleet) -> Operator:
    return Operator((COMMAND, "run"), fleet.environment(), "stores_synced")


def go_peer(fleet: Fleet, program: Path) -> Operator:
    """Return the controller-runtime operator, with the account and the issuer of the product."""
    more = {
        "PEER_PREFIX": f"{BARE}-",
        "PEER_LABEL": f"{PEER_LABEL}={BARE}",
        "PEER_WORKERS": f"{CONNECTIONS}",
    }
    return Operator((program,), fleet.environment() | more)


def kopf_peer(fleet: Fleet) -> Operator:
    """Return the kopf operator, as an administrator: it asks for rights that the account lacks."""
    kubeconfig = fleet.world.control_plane.kubeconfig(fleet.folder / "kopf-kubeconfig")
    more = {
        "KUBECONFIG": str(kubeconfig),
        "PEER_LABEL": f"{PEER_LABEL}={KOPF}",
        "PEER_SESSIONS": f"{fleet.sessions}",
        "PEER_INTERVAL_S": f"{max(KOPF_INTERVAL_S, fleet.sessions)}",
    }
    command = (sys.executable, "-m", "tests.bench.peers.kopf.operator")
    return Operator(command, fleet.environment() | more)


async def measured(fleet: Fleet, operator: Operator) -> Resync:
    """Run an operator until it has written every session's token."""
    started_s = time.time()
    async with running(operator.environment, command=operator.command) as process:
        pid = process.process.pid
        await process.wait_for_event(operator.synced, limit_s=fleet.limit_s)
        used_s, synced_mb = cpu_s(pid), rss_mb(pid)
        finished = await finished_resync(process, fleet)
        used_s = cpu_s(pid) - used_s
        found = Resync(
            rate=fleet.sessions / finished["seconds"],
            cpu_ms=used_s / fleet.sessions * 1e3,
            synced_s=process.seconds_to(operator.synced, started_s),
            first_s=process.seconds_to("runner_token_refreshed", started_s),
            rss_synced_mb=synced_mb,
            rss_mb=rss_mb(pid),
            rss_peak_mb=peak_mb(pid),
        )
        if operator.synced == "stores_synced":
            reasons = {line["reason"] for line in process.events("runner_token_refreshed")}
            text = await metrics_text(operator.environment)
            touched = samples(text).get(TOUCHES, 0.0)
            found = replace(found, lag_s=longest_s(text, LAG))
            if reasons != {"startup_resync"} or touched:
                raise AssertionError(f"not the resync alone: {reasons}, {touched:g} pod touches")
    return found
