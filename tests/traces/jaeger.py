"""A real Jaeger on free loopback ports: OTLP in, its query API out, everything in memory."""

import json
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode

from reconciler.lab.cluster.ports import free_port
from tests.cluster.process import Server

READY_LIMIT_S = 40.0
ASK_LIMIT_S = 5.0
POLL_S = 0.1

Json = dict[str, Any]


class Jaeger:
    """One Jaeger process while entered.

    Args:
        binary: As `tests.assets.find` returns it.
        folder: For its configuration and its log.
    """

    def __init__(self, binary: Path, folder: Path) -> None:
        self.otlp_url = f"http://127.0.0.1:{free_port()}"
        self.query_url = f"http://127.0.0.1:{free_port()}"
        config = folder / "jaeger.json"
        config.write_text(json.dumps(self._config()))
        self._server = Server(
            "jaeger", [str(binary), f"--config=file:{config}"], log=folder / "jaeger.log"
        )

    def __enter__(self) -> Self:
        self._server.start()
        deadline_at = time.monotonic() + READY_LIMIT_S
        while not self._is_ready():
            if not self._server.alive or time.monotonic() > deadline_at:
                failure = self._server.failed("is not ready")
                self._server.kill()
                raise failure
            time.sleep(POLL_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.kill()

    def traces(self, service: str, **query: str) -> list[Json]:
        """Return the traces of a service, as the query API shows them."""
        asked = urlencode({"service": service, "limit": "1000", "lookback": "1h"} | query)
        return list(self._ask(f"/api/traces?{asked}")["data"] or [])

    def trace(self, trace_id: str) -> list[Json]:
        """Return one trace by its number, 32 hex digits; none while it is unknown."""
        try:
            return list(self._ask(f"/api/traces/{trace_id}")["data"])
        except HTTPError as error:
            if error.code != 404:
                raise
            return []

    def _is_ready(self) -> bool:
        try:
            self._ask("/api/services")
            with urllib.request.urlopen(  # noqa: S310 - our own loopback URL
                urllib.request.Request(  # noqa: S310
                    f"{self.otlp_url}/v1/traces",
                    data=b"{}",
                    headers={"Content-Type": "application/json"},
                ),
                timeout=ASK_LIMIT_S,
            ):
                return True
        except (URLError, ConnectionError, TimeoutError):
            return False

    def _ask(self, path: str) -> Json:
        with urllib.request.urlopen(self.query_url + path, timeout=ASK_LIMIT_S) as answer:  # noqa: S310 - our own loopback URL
            return dict(json.load(answer))

    def _config(self) -> Json:
        return {
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}
                },
                "telemetry": {"metrics": {"level": "none"}},
            },
            "extensions": {
                "jaeger_query": {
                    "storage": {"traces": "memory"},
                    "http": {"endpoint": self.query_url.removeprefix("http://")},
                    "grpc": {"endpoint": f"127.0.0.1:{free_port()}"},
                },
                "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 10_000}}}},
            },
            "receivers": {
                "otlp": {"protocols": {"http": {"endpoint": self.otlp_url.removeprefix("http://")}}}
            },
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
        }
