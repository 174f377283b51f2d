"""OTLP over HTTP as the standard OTEL_* variables ask for it; with no endpoint nothing is loaded.

Headers and compression are read by OpenTelemetry's exporters themselves; certificates by us, again
when they change.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from reconciler import __version__
from reconciler.clock import Clock
from reconciler.net.client_session import Peer, Trust
from reconciler.telemetry.otlp_settings import endpoint_of, limit_s

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from prometheus_client.core import Metric as Family

    from reconciler.telemetry.otlp_adapter import BoundedAdapter
    from reconciler.telemetry.otlp_spans import SampledTrace

T = TypeVar("T")

SERVICE = "token-reconciler"


class Sender(Generic[T]):
    """Sends one signal's batches; it is called and closed in the exporter's thread.

    Args:
        export: Sends one batch by the library's exporter and returns whether it arrived.
    """

    def __init__(self, adapter: "BoundedAdapter", export: Callable[[list[T]], bool]) -> None:
        self._adapter = adapter
        self._export = export

    def __call__(self, batch: list[T]) -> bool:
        """Return whether a whole batch arrived, in 10 s at most."""
        self._adapter.begin()
        return self._export(batch)

    @property
    def problem(self) -> str:
        """Why the last batch did not arrive, in our words; "" = the library does not say."""
        return self._adapter.problem

    def close(self) -> None:
        self._adapter.close()


def span_sender(replica: str, environ: Mapping[str, str], clock: Clock) -> "Sender[SampledTrace]":
    """Return what sends traces."""
    _silence_libraries()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    from reconciler.telemetry.otlp_spans import spans_of

    resource = _resource(replica, environ)
    adapter, exporter = _exporter(OTLPSpanExporter, "TRACES", environ, clock)

    def export(batch: list["SampledTrace"]) -> bool:
        spans = [span for kept in batch for span in spans_of(kept, resource)]
        return bool(exporter.export(spans) is SpanExportResult.SUCCESS)

    return Sender(adapter, export)


def metric_sender(replica: str, environ: Mapping[str, str], clock: Clock) -> "Sender[list[Family]]":
    """Return what sends readings of the metrics."""
    _silence_libraries()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import MetricExportResult

    from reconciler.telemetry.otlp_metrics import metrics_data

    resource = _resource(replica, environ)
    adapter, exporter = _exporter(OTLPMetricExporter, "METRICS", environ, clock)
    since_ns = time.time_ns()

    def export(batch: list[list["Family"]]) -> bool:
        results = [
            exporter.export(metrics_data(families, resource, since_ns=since_ns))
            for families in batch
        ]
        return all(result is MetricExportResult.SUCCESS for result in results)

    return Sender(adapter, export)


def _exporter(
    make: Callable[..., Any], signal: str, environ: Mapping[str, str], clock: Clock
) -> "tuple[BoundedAdapter, Any]":
    """Make the library's exporter, and the adapter by which it sends.

    Args:
        make: The exporter's class.
        signal: TRACES or METRICS.
    """
    import requests

    from reconciler.telemetry.otlp_adapter import BoundedAdapter

    limit = limit_s(environ, signal)
    adapter = BoundedAdapter(
        Peer(endpoint_of(environ, signal), clock, _trust(signal, environ)), limit
    )
    session = requests.Session()
    session.trust_env = False  # the adapter knows the proxies, and netrc holds other peers' words
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return adapter, make(session=session, timeout=limit)


def _trust(signal: str, environ: Mapping[str, str]) -> Trust:
    def named(name: str) -> Path | None:
        own = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_{name}")
        value = own or environ.get(f"OTEL_EXPORTER_OTLP_{name}")
        return Path(value) if value else None

    return Trust(named("CERTIFICATE"), named("CLIENT_CERTIFICATE"), named("CLIENT_KEY"))


def _resource(replica: str, environ: Mapping[str, str]) -> "Resource":
    """Say who we are; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES may say otherwise."""
    from opentelemetry.sdk.resources import Resource

    ours = {"service.version": __version__, "service.instance.id": replica}
    named = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in named:
        ours["service.name"] = SERVICE
    return Resource.create({k: v for k, v in ours.items() if f"{k}=" not in named})


def _silence_libraries() -> None:
    """Leave it to the exporter's thread to say that nothing arrives: once, and in our words."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
