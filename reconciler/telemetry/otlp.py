"""Traces by OTLP over HTTP, as the standard OTEL_* variables ask for them.

Without an endpoint OpenTelemetry is not imported. OpenTelemetry's exporter reads headers and
compression itself. This module reads the certificates, and reads them again when they change.
Metrics are not sent: a collector scrapes /metrics.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler import __version__
from reconciler.clock import Clock
from reconciler.net.client_session import Peer, Trust
from reconciler.telemetry.otlp_settings import export_timeout_s, otlp_value

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from reconciler.telemetry.otlp_adapter import BoundedAdapter
    from reconciler.telemetry.otlp_spans import SampledTrace

SERVICE = "token-reconciler"


class TraceSender:
    """Sends batches of traces; it is called and closed in the exporter's thread.

    Args:
        export: Sends one batch by the library's exporter and returns whether it arrived.
    """

    def __init__(
        self, adapter: "BoundedAdapter", export: Callable[[list["SampledTrace"]], bool]
    ) -> None:
        self._adapter = adapter
        self._export = export

    def __call__(self, batch: list["SampledTrace"]) -> bool:
        """Send a batch within the export time-out; return whether all of it arrived."""
        self._adapter.begin()
        return self._export(batch)

    @property
    def problem(self) -> str:
        """The reason why the last batch did not arrive; "" = the library gives none."""
        return self._adapter.problem

    def close(self) -> None:
        self._adapter.close()


def span_sender(replica: str, environ: Mapping[str, str], clock: Clock) -> TraceSender:
    """Return the sender of traces for the collector that the environment names."""
    _silence_libraries()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    from reconciler.telemetry.otlp_spans import spans_of

    resource = resource_of(replica, environ)
    adapter, exporter = _exporter(OTLPSpanExporter, environ, clock)

    def export(batch: list["SampledTrace"]) -> bool:
        spans = [span for kept in batch for span in spans_of(kept, resource)]
        return bool(exporter.export(spans) is SpanExportResult.SUCCESS)

    return TraceSender(adapter, export)


def _exporter(
    make: Callable[..., Any], environ: Mapping[str, str], clock: Clock
) -> "tuple[BoundedAdapter, Any]":
    """Make the library's exporter of the class `make`, and the HTTP adapter that it uses."""
    import requests

    from reconciler.telemetry.otlp_adapter import BoundedAdapter

    timeout_s = export_timeout_s(environ)
    adapter = BoundedAdapter(
        Peer(otlp_value(environ, "ENDPOINT"), clock, _trust(environ)), timeout_s
    )
    session = requests.Session()
    session.trust_env = False  # the adapter reads the proxies; netrc has credentials of other peers
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return adapter, make(session=session, timeout=timeout_s)


def _trust(environ: Mapping[str, str]) -> Trust:
    def path(name: str) -> Path | None:
        value = otlp_value(environ, name)
        return Path(value) if value else None

    return Trust(path("CERTIFICATE"), path("CLIENT_CERTIFICATE"), path("CLIENT_KEY"))


def resource_of(replica: str, environ: Mapping[str, str]) -> "Resource":
    """Return who sends the traces; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.

    The manifests set NAMESPACE, RECONCILER_REPLICA and RECONCILER_POD_UID by the downward API.
    Source: OpenTelemetry semantic conventions, "Resource attributes in K8s".
    """
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    ours = {
        "service.name": SERVICE,
        "service.version": __version__,
        "service.instance.id": replica,
    }
    if namespace := environ.get("NAMESPACE"):
        ours["service.namespace"] = namespace
        if uid := environ.get("RECONCILER_POD_UID"):
            ours |= {
                "k8s.namespace.name": namespace, "k8s.pod.name": replica, "k8s.pod.uid": uid,
            }  # fmt: skip
    return Resource.create().merge(Resource(ours)).merge(OTELResourceDetector().detect())


def _silence_libraries() -> None:
    """Stop the libraries' own log lines: `BatchExporter` logs failed exports, once a streak."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
