"""/metrics over HTTP: from the first moment, with the probes, during the start."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from reconciler.app.telemetry import MetricsEndpoint, Telemetry
from reconciler.clock import Clock, EpochTime, Instant, SystemClock
from reconciler.controller.events.recorder import EventStats
from reconciler.telemetry.http_server import serve_health
from reconciler.telemetry.otlp_settings import OtlpSettings
from tests.controller import running

OFF = OtlpSettings(traces=False)


class NoSessions:
    """The status collector of a controller that has taken no snapshot yet."""

    latest = None

    async def update(self, *, max_age_s: float) -> None:
        pass


def _endpoint(clock: Clock) -> MetricsEndpoint:
    collector: Any = NoSessions()
    registry = Telemetry(clock, OFF).metrics_registry
    return MetricsEndpoint(registry, collector, EventStats(), clock)


async def test_metrics_stand_beside_the_probes_and_are_text_of_the_agreed_version() -> None:
    telemetry, port = _endpoint(SystemClock()), _free_port()
    url = f"http://127.0.0.1:{port}"
    async with (
        serve_health(
            f"127.0.0.1:{port}", live=lambda: "", ready=lambda: "no", scrape=telemetry.scrape
        ),
        aiohttp.ClientSession() as http,
    ):
        async with http.get(f"{url}/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            text = await answer.text()
        async with http.get(f"{url}/readyz") as answer:
            assert answer.status == 503
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"token_reconciler_build_info", "process_cpu_seconds"} <= names


async def test_a_start_that_waits_for_its_cluster_is_scraped_all_the_while(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    nowhere = f"http://127.0.0.1:{_free_port()}"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: c,"
        " contexts: [{name: c, context: {cluster: c, user: u}}],"
        f" clusters: [{{name: c, cluster: {{server: '{nowhere}'}}}}],"
        " users: [{name: u, user: {}}]}"
    )
    port = _free_port()
    environment = {
        "KUBECONFIG": str(kubeconfig),
        "OIDC_TOKEN_URL": nowhere,
        "AMBIENT_API_SERVER_URL": nowhere,
        "OIDC_CLIENT_ID": "fake-id",
        "OIDC_CLIENT_SECRET": "obviously-fake-secret",
        "RECONCILER_LISTEN": f"127.0.0.1:{port}",
        "RECONCILER_LOG_FORMAT": "json",
    }
    async with running(environment) as controller, aiohttp.ClientSession() as http:
        await controller.wait_for_event("list_failed", count=2)

        async def scrape() -> str:
            async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                assert answer.status == 200
                return await answer.text()

        texts = await asyncio.gather(*(scrape() for _ in range(20)))
        assert await controller.terminate() == 0
    for text in texts:
        assert 'token_reconciler_watch_synced{namespace="",resource="pods"} 0.0' in text
        assert "obviously-fake-secret" not in text


class Steps:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now_at = 100.0

    def monotonic(self) -> Instant:
        return Instant(self.now_at)

    def wall(self) -> EpochTime:
        return EpochTime(1.7e9 + self.now_at)


class Renderings:
    """Wraps an endpoint's rendering: counts the calls, and delays them until released."""

    def __init__(self, endpoint: MetricsEndpoint) -> None:
        self.count = self.under_way = self.most_at_once = 0
        self.may_go_on = threading.Event()
        self.error: Exception | None = None
        self._render = endpoint._registry.render
        endpoint._registry.render = self  # type: ignore[method-assign]

    def __call__(self) -> bytes:
        self.count += 1
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        assert self.may_go_on.wait(30)
        self.under_way -= 1
        if self.error is not None:
            raise self.error
        return self._render()


@asynccontextmanager
async def scraped() -> AsyncIterator[tuple[str, Steps, Renderings, aiohttp.ClientSession]]:
    clock, port = Steps(), _free_port()
    endpoint = _endpoint(clock)
    renderings = Renderings(endpoint)
    listen = f"127.0.0.1:{port}"
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        serve_health(listen, live=lambda: "", ready=lambda: "", scrape=endpoint.scrape),
        aiohttp.ClientSession(connector=connector) as http,
    ):
        try:
            yield f"http://{listen}/metrics", clock, renderings, http
        finally:
            renderings.may_go_on.set()
            endpoint.close()


async def _body(http: aiohttp.ClientSession, url: str) -> bytes:
    async with http.get(url) as answer:
        assert answer.status == 200
        return await answer.read()


async def test_a_hundred_scrapers_at_once_cost_one_rendering() -> None:
    async with scraped() as (url, clock, renderings, http):
        asking = [asyncio.create_task(_body(http, url)) for _ in range(100)]
        while not renderings.count:
            await asyncio.sleep(0)
        asking[0].cancel()
        leaver = await asyncio.gather(asking[0], return_exceptions=True)
        assert isinstance(leaver[0], asyncio.CancelledError)
        renderings.may_go_on.set()
        bodies = await asyncio.gather(*asking[1:])
        assert set(bodies) == {bodies[0]}
        assert b"token_reconciler_build_info" in bodies[0]
        clock.now_at += 0.9
        assert await _body(http, url) == bodies[0]
        assert renderings.count == 1
        clock.now_at += 0.2
        await asyncio.gather(*(_body(http, url) for _ in range(100)))
        assert (renderings.count, renderings.most_at_once) == (2, 1)


async def test_a_rendering_that_fails_is_made_again_for_the_next_scraper() -> None:
    async with scraped() as (url, _, renderings, http):
        renderings.may_go_on.set()
        renderings.error = RuntimeError("a defect of ours")
        async with http.get(url) as answer:
            assert answer.status == 500
        renderings.error = None
        assert b"token_reconciler_build_info" in await _body(http, url)


def _free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])
