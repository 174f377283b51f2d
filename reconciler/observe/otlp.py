"""OTLP over HTTP as the standard OTEL_* variables ask for it; with no endpoint nothing is loaded.

Headers, compression and time limits are read by the exporters themselves; certificates by us, again
when they change.
Source: OpenTelemetry specification, "Environment Variables" and "OTLP Exporter Configuration".
"""

import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from reconciler import __version__
from reconciler.clock import Clock
from reconciler.errors import SettingsError
from reconciler.http import Trust
from reconciler.observe.sampling import RATIO
from reconciler.rotation import Rotation

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from prometheus_client.core import Metric as Family

    from reconciler.observe.spans import Kept

log = structlog.get_logger()

SERVICE = "token-reconciler"

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_RATIOS = {"always_on": 1.0, "always_off": 0.0}


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """What the environment asks for.

    Args:
        traces: Whether traces are sent, and `metrics` whether metrics are.
        ratio: Share of ordinary traces that is kept, 0..1.
        interval_s: Between two readings of the metrics, in seconds.
    """

    traces: bool
    metrics: bool
    ratio: float = RATIO
    interval_s: float = 60.0


def read_otlp(environ: Mapping[str, str]) -> OtlpSettings:
    """Read the OTEL_* variables.

    Raises:
        SettingsError: One of them cannot be meant; the message names it.
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return OtlpSettings(traces=False, metrics=False)
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").removeprefix("parentbased_")
    return OtlpSettings(
        traces=_is_wanted(environ, "TRACES") and sampler != "always_off",
        metrics=_is_wanted(environ, "METRICS"),
        ratio=_ratio(environ, sampler),
        interval_s=_number(environ, "OTEL_METRIC_EXPORT_INTERVAL", 60_000.0) / 1000,
    )


def span_sender(
    replica: str, environ: Mapping[str, str], clock: Clock
) -> Callable[[list["Kept"]], bool]:
    """Return what sends traces; called in the exporter's thread."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    from reconciler.observe.spans import spans_of

    _silence_libraries()
    resource = _resource(replica, environ)
    rotated = Rotated(OTLPSpanExporter, "TRACES", environ, clock)

    def send(batch: list["Kept"]) -> bool:
        spans = [span for kept in batch for span in spans_of(kept, resource)]
        return bool(rotated.exporter().export(spans) is SpanExportResult.SUCCESS)

    return send


def metric_sender(
    replica: str, environ: Mapping[str, str], clock: Clock
) -> Callable[[list[list["Family"]]], bool]:
    """Return what sends readings of the metrics; called in the exporter's thread."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import MetricExportResult

    from reconciler.observe.otlp_metrics import metrics_data

    _silence_libraries()
    resource = _resource(replica, environ)
    rotated = Rotated(OTLPMetricExporter, "METRICS", environ, clock)
    since_ns = time.time_ns()

    def send(batch: list[list["Family"]]) -> bool:
        exporter = rotated.exporter()
        results = [
            exporter.export(metrics_data(families, resource, since_ns=since_ns))
            for families in batch
        ]
        return all(result is MetricExportResult.SUCCESS for result in results)

    return send


def _is_wanted(environ: Mapping[str, str], signal: str) -> bool:
    own = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
    variable = own if environ.get(own) else _ENDPOINT
    url = environ.get(variable, "")
    if not url or environ.get(f"OTEL_{signal}_EXPORTER", "otlp").lower() == "none":
        return False
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"{variable} must be a URL that begins with http:// or https://")
    specific = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
    name = specific if environ.get(specific) else "OTEL_EXPORTER_OTLP_PROTOCOL"
    if (protocol := environ.get(name, "")) not in ("", "http/protobuf"):
        raise SettingsError(f"{name} must be http/protobuf (is {protocol!r})")
    return True


def _ratio(environ: Mapping[str, str], sampler: str) -> float:
    if sampler in _RATIOS:
        return _RATIOS[sampler]
    if sampler not in ("", "traceidratio"):
        known = "always_on, always_off, traceidratio"
        raise SettingsError(f"OTEL_TRACES_SAMPLER must be one of {known} (is {sampler!r})")
    ratio = _number(environ, "OTEL_TRACES_SAMPLER_ARG", RATIO)
    if ratio > 1:
        raise SettingsError(f"OTEL_TRACES_SAMPLER_ARG must be between 0 and 1 (is {ratio:g})")
    return ratio


def _number(environ: Mapping[str, str], variable: str, default: float) -> float:
    text = environ.get(variable, "")
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise SettingsError(f"{variable} must be a number, 0 or more (is {text!r})")
    return number


class Rotated:
    """An exporter of the library's, made again when the certificates behind it have changed.

    Args:
        make: The exporter's class.
        signal: TRACES or METRICS.
    Raises:
        SettingsError: The first one cannot be made of the environment.
    """

    def __init__(
        self, make: Callable[..., Any], signal: str, environ: Mapping[str, str], clock: Clock
    ) -> None:
        self._make = make
        self._signal = signal
        self._trust = _trust(signal, environ)
        self._files = Rotation(self._trust.paths, clock)
        self._version = self._files.version()
        self._unusable = ""
        self._exporter = self._first()

    def exporter(self) -> Any:
        """Return the exporter of this moment; called in its thread.

        Files that cannot be used keep the last one, which is said once.
        """
        version = self._files.version()
        if version in (self._version, self._unusable):
            return self._exporter
        try:
            made = self._made(self._trust.context())
        except SettingsError as error:
            self._unusable = version
            log.warning("rotated_file_kept", peer="otlp", why=str(error))
            return self._exporter
        self._exporter.shutdown()
        self._exporter, self._version = made, version
        log.info("rotated_file_read", peer="otlp")
        return made

    def _first(self) -> Any:
        """Return one that believes nobody where the files cannot be used: they may come yet."""
        try:
            tls = self._trust.context(lenient=True)
        except SettingsError as error:
            log.warning("ca_bundle_unusable", peer="otlp", why=str(error))
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return self._made(tls)

    def _made(self, tls: ssl.SSLContext) -> Any:
        """Make one; the library's own reading of the environment may fail, too."""
        session = session_of(tls)
        try:
            return self._make(session=session)
        except (ValueError, OSError) as error:
            raise SettingsError(f"OTEL_EXPORTER_OTLP_{self._signal}_*: {error}") from None


def session_of(tls: ssl.SSLContext) -> Any:
    """Return a session of requests that verifies by `tls` and by nothing else."""
    import requests
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options, ssl_context=tls)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            return super().proxy_manager_for(proxy, **options, ssl_context=tls)

        def cert_verify(self, *_: Any, **__: Any) -> None:
            """Leave verification to the context; the library would add CAs of its own."""

    session = requests.Session()
    session.mount("https://", Adapter())
    return session


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
