"""A real Prometheus on loopback that scrapes replicas each second and judges the shipped rules."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from reconciler.lab.cluster import exec_child
from reconciler.lab.cluster.ports import free_port
from tests.alerts.rules import program, write_rules

FASTER = 60.0
"""What takes a minute in the shipped rules takes a second here."""

POLL_S = 0.2
Alert = dict[str, Any]


@dataclass(frozen=True)
class Prometheus:
    """One that runs; asked over its HTTP API."""

    url: str
    http: aiohttp.ClientSession

    async def ask(self, path: str, **query: str) -> Any:
        async with self.http.get(f"{self.url}/api/v1/{path}", params=query) as answer:
            found = await answer.json()
        assert found["status"] == "success", found
        return found["data"]

    async def value(self, expression: str) -> float | None:
        """Return the value of an expression that yields one sample, None if it yields none."""
        found = (await self.ask("query", query=expression))["result"]
        return float(found[0]["value"][1]) if found else None

    async def firing(self) -> dict[str, Alert]:
        """Return the alerts that fire now, by name."""
        found = (await self.ask("alerts"))["alerts"]
        return {
            alert["labels"]["alertname"]: alert for alert in found if alert["state"] == "firing"
        }

    async def wait_fires(self, name: str) -> Alert:
        """Return an alert once it fires; the test's time limit ends the wait."""
        while True:
            found = await self.firing()
            if name in found:
                return found[name]
            await asyncio.sleep(POLL_S)

    async def wait_quiet(self) -> None:
        """Return once no alert fires."""
        while await self.firing():
            await asyncio.sleep(POLL_S)

    async def wait_value(self, expression: str) -> None:
        """Return once an expression yields anything."""
        while await self.value(expression) is None:
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def scraping(ports: Sequence[int], folder: Path) -> AsyncIterator[Prometheus]:
    """Scrape controllers at these loopback ports; ready when entered, gone with the context."""
    write_rules(folder / "rules.yml", faster=FASTER)
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(_config(ports)))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", exec_child.__file__, str(os.getpid()),
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as http:
            found = Prometheus(f"http://127.0.0.1:{port}", http)
            await _ready(found, process)
            yield found
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def _ready(found: Prometheus, process: asyncio.subprocess.Process) -> None:
    while process.returncode is None:
        with suppress(aiohttp.ClientConnectionError):
            async with found.http.get(f"{found.url}/-/ready") as answer:
                if answer.status == 200:
                    return
        await asyncio.sleep(POLL_S)
    raise AssertionError(f"prometheus ended by itself: {process.returncode}")


def _config(ports: Sequence[int]) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {
                "job_name": "token-reconciler",
                "static_configs": [
                    {
                        "targets": [f"127.0.0.1:{port}" for port in ports],
                        "labels": {"namespace": "ambient-code"},
                    }
                ],
            }
        ],
    }
