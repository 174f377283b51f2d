"""/metrics over HTTP: from the first moment, beside the probes, while the start is under way."""

import asyncio
import socket
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from reconciler.clock import SystemClock
from reconciler.observe.health import serve_health
from reconciler.observe.otlp_settings import OtlpSettings
from reconciler.telemetry import Telemetry
from tests.controller import running

OFF = OtlpSettings(traces=False, metrics=False)


async def test_metrics_stand_beside_the_probes_and_are_text_of_the_agreed_version() -> None:
    telemetry = Telemetry(SystemClock(), OFF)
    port = _free_port()
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


def _free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])
