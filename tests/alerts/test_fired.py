"""The shipped alerts fire for real: controllers in the box, a Prometheus beside them, a fault.

Rules wait a sixtieth of their time; what they ask for is as shipped.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.lab.cluster.cluster import LabCluster
from reconciler.lab.cluster.replicas import Replica, Replicas
from tests.alerts.dashboard import panels, queries
from tests.alerts.prometheus import Alert, Prometheus, scraping
from tests.lab.leaks import find_leaks

SESSIONS = 6
TTL_S = 20.0

LEADS = "sum(token_reconciler_leader) == 1"
ALL_LIVE = f'max(sum by (instance) (token_reconciler_sessions{{state=~"ok|due"}})) == {SESSIONS}'

pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True)
class Scene:
    lab: LabCluster
    replicas: list[Replica]
    prometheus: Prometheus


@asynccontextmanager
async def scene(
    folder: Path, *, replicas: int = 1, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Scene]:
    """Have a fleet whose tokens are all alive, and a Prometheus that knows it; nothing fires."""
    async with LabCluster(ttl_s=TTL_S, projection_delay=(0.2, 0.6)) as lab:
        lab.populate(SESSIONS)
        controllers = Replicas(replicas, lab.environment() | dict(settings or {}), lambda _: None)
        running = asyncio.create_task(controllers.run())
        try:
            ports = [replica.port for replica in controllers.all]
            async with scraping(ports, folder) as prometheus:
                await prometheus.wait_value(LEADS)
                await prometheus.wait_value(ALL_LIVE)
                await prometheus.wait_value(f"count(up == 1) == {replicas}")
                await prometheus.wait_quiet()
                yield Scene(lab, controllers.all, prometheus)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_long_outage_of_the_issuer_fires_one_alert_after_the_other(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        on.lab.issuer.faults.unreachable = True
        down = await on.prometheus.wait_fires("TokenReconcilerEndpointDown")
        assert down["labels"]["endpoint"] == "issuer"
        assert_readable(down, "The endpoint issuer is unreachable", on.lab)
        low = await on.prometheus.wait_fires("TokenReconcilerFleetSurvivalLow")
        assert "TokenReconcilerExposureGrowing" not in await on.prometheus.firing()
        assert_readable(low, "0.4 of a token's life", on.lab)
        ends = await on.prometheus.wait_fires("TokenReconcilerTokensExpiring")
        assert_readable(ends, "A runner's token expires", on.lab)
        growing = await on.prometheus.wait_fires("TokenReconcilerExposureGrowing")
        assert_readable(growing, "Runners hold expired tokens", on.lab)
        assert growing["labels"]["severity"] == "critical"
        assert on.lab.fleet.report().expired_token_seconds > 0

        on.lab.issuer.faults.unreachable = False
        await on.prometheus.wait_value(ALL_LIVE)
        await on.prometheus.wait_quiet()


async def test_a_killed_leader_without_a_follower_fires_until_its_successor_leads(
    tmp_path: Path,
) -> None:
    lease = {
        "RECONCILER_LEASE_DURATION_S": "15",
        "RECONCILER_RENEW_DEADLINE_S": "10",
        "RECONCILER_RETRY_PERIOD_S": "2",
        "RECONCILER_REQUEST_LIMIT_S": "5",
    }
    async with scene(tmp_path, settings=lease) as on:
        [replica] = on.replicas
        replica.kill(with_pod=True)
        no_leader = await on.prometheus.wait_fires("TokenReconcilerNoLeader")
        assert_readable(no_leader, "No replica leads", on.lab)
        assert no_leader["labels"]["severity"] == "critical"
        await on.prometheus.wait_value(LEADS)
        await on.prometheus.wait_quiet()


async def test_frozen_replicas_fire_one_by_one_then_all_are_absent(tmp_path: Path) -> None:
    async with scene(tmp_path, replicas=2) as on:
        first, second = on.replicas
        first.freeze()
        down = await on.prometheus.wait_fires("TokenReconcilerReplicaDown")
        assert down["labels"]["instance"] == f"127.0.0.1:{first.port}"
        await on.prometheus.wait_value(LEADS)
        assert "TokenReconcilerAbsent" not in await on.prometheus.firing()
        second.freeze()
        absent = await on.prometheus.wait_fires("TokenReconcilerAbsent")
        assert_readable(absent, "No replica can be scraped", on.lab)
        first.thaw()
        second.thaw()
        await on.prometheus.wait_value(LEADS)
        await on.prometheus.wait_quiet()


async def test_every_panel_of_the_dashboard_shows_a_healthy_fleet(tmp_path: Path) -> None:
    async with scene(tmp_path) as on:
        for panel in panels():
            query, *more = queries(panel, window="10s")
            await on.prometheus.wait_value(query)
            for each in more:
                await on.prometheus.ask("query", query=each)


def assert_readable(alert: Alert, says: str, lab: LabCluster) -> None:
    """Hold an alert's text to what it should say: filled in, and without any secret."""
    notes = alert["annotations"]
    assert says in notes["summary"]
    text = " ".join(notes.values())
    assert "<error" not in text
    assert "<no value>" not in text
    assert find_leaks({"alert": text}, lab.secret_values()) == []
