"""The standard OTEL_* variables: what is sent, and which of them cannot be served (pure).

No value of them stops the start: telemetry never stops a refresh. A variable that cannot be served
is named once, and counts as unset; without a usable endpoint nothing is sent.
Source: OpenTelemetry specification, "Environment Variable Specification" and "OTLP Exporter
Configuration".
"""

import re
from collections.abc import Mapping

import msgspec

from reconciler.net.urls import url_problem
from reconciler.telemetry.trace import Trace

SLOW_S = 0.5
"""A run that takes longer is kept; where most runs take longer, one that is slower than their
p95."""

RATIO = 0.05
"""Share of ordinary traces that are kept unless OTEL_TRACES_SAMPLER says otherwise: one in twenty
shows what is normal; to keep all would add a tenth to the CPU of the refreshes.
Source: `python -m tests.traces.compare_processors`, `make bench`."""

_MASK = (1 << 64) - 1


class Sampler:
    """Decides which traces are kept, when they have ended: failures and slow ones are kept always.

    Args:
        ratio: Share of the ordinary traces that is kept, 0..1. The trace ID alone decides, so that
            other services with the same rule keep the same traces; within a resync's trace the
            span ID decides.
            Source: OpenTelemetry specification, TraceIdRatioBased.
    """

    def __init__(self, ratio: float) -> None:
        self._bound = round(ratio * (_MASK + 1))

    def keeps(self, trace: Trace) -> bool:
        if trace.failed or trace.named or trace.seconds > max(SLOW_S, trace.p95_s):
            return True
        drawn = trace.trace_id & _MASK if trace.parent is None else trace.span_id
        return drawn < self._bound


EXPORT_TIMEOUT_S = 10.0
"""Longest time of one export, retries included: the specification's default. A longer setting is
not used. The specification counts OTEL_EXPORTER_OTLP_TIMEOUT in milliseconds and the library in
seconds, so that 10000 would be close to three hours."""

_PREFIX = "OTEL_EXPORTER_OTLP_"
_TRACES_PREFIX = "OTEL_EXPORTER_OTLP_TRACES_"
_PROTOCOL = "http/protobuf"
_RATIOS = {"always_on": 1.0, "always_off": 0.0}
_COMPRESSIONS = ("", "none", "gzip", "deflate")
_COUNT = re.compile(r"[0-9]*")


class Unserved(msgspec.Struct, frozen=True):
    """A variable that is set and cannot be served.

    Args:
        reason: What is wrong with it and what is done instead; no URL and no header is quoted.
    """

    variable: str
    reason: str


class OtlpSettings(msgspec.Struct, frozen=True):
    """What the environment asks for.

    Args:
        traces: Whether traces are sent.
        ratio: Share of ordinary traces that is kept, 0..1.
        unserved: Variables without effect, each once.
    """

    traces: bool
    ratio: float = RATIO
    unserved: tuple[Unserved, ...] = ()


def read_otlp(environ: Mapping[str, str]) -> OtlpSettings:
    """Read the OTEL_* variables; never raises."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return OtlpSettings(traces=False)
    unserved: dict[str, str] = {}
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower().removeprefix("parentbased_")
    traces = _is_wanted(environ, unserved)
    ratio = _ratio(environ, sampler, unserved)
    _check_details(environ, unserved)
    name = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
    if environ.get(name):
        unserved[name] = "is not served: metrics are not sent, they are scraped at /metrics"
    name = "OTEL_RESOURCE_ATTRIBUTES"
    if not _is_pairs(environ.get(name, "")):
        unserved[name] = "holds a part that is not name=value: that part is not sent"
    is_loadable = _is_loadable(environ, unserved)
    return OtlpSettings(
        traces=traces and sampler != "always_off" and is_loadable,
        ratio=ratio,
        unserved=tuple(Unserved(variable, reason) for variable, reason in unserved.items()),
    )


def export_timeout_s(environ: Mapping[str, str]) -> float:
    """Return how long one export of traces may take, seconds."""
    found = _number(otlp_value(environ, "TIMEOUT"))
    return min(found or EXPORT_TIMEOUT_S, EXPORT_TIMEOUT_S)


def otlp_value(environ: Mapping[str, str], name: str) -> str:
    """Return the value of OTEL_EXPORTER_OTLP_[TRACES_]`name`, "" where it is not set."""
    return environ.get(_variable(environ, name), "")


def _variable(environ: Mapping[str, str], name: str) -> str:
    """Return the variable that decides: the one of traces before the one of all signals."""
    own = f"{_TRACES_PREFIX}{name}"
    return own if environ.get(own) else f"{_PREFIX}{name}"


def _is_wanted(environ: Mapping[str, str], unserved: dict[str, str]) -> bool:
    exporters = "OTEL_TRACES_EXPORTER"
    named = {part.strip().lower() for part in environ.get(exporters, "").split(",")} - {""}
    if others := named - {"otlp", "none"}:
        unserved[exporters] = f"names {_shown(min(others))}: only otlp and none are served"
    if "none" in named:
        return False
    endpoint = _variable(environ, "ENDPOINT")
    if not (url := environ.get(endpoint, "")):
        return False
    if problem := url_problem(url, user=True, query=True):
        unserved[endpoint] = f"{problem}: nothing is sent there"
        return False
    variable = _variable(environ, "PROTOCOL")
    protocol = environ.get(variable, "").strip().lower()
    if protocol == "grpc":
        # A gRPC port has no HTTP/1.1: each export would fail.
        unserved[variable] = f"'grpc' is not served, only {_PROTOCOL}: nothing is sent by it"
        return False
    if protocol not in ("", _PROTOCOL):
        unserved[variable] = f"{_shown(protocol)} is not served: {_PROTOCOL} is used"
    return True


def _check_details(environ: Mapping[str, str], unserved: dict[str, str]) -> None:
    """Check the variables that the exporter reads itself, and ignores silently where it cannot."""
    variable = _variable(environ, "TIMEOUT")
    if environ.get(variable) and not _number(environ[variable]):
        unserved[variable] = f"is no number above 0: {EXPORT_TIMEOUT_S:g} s is used"
    variable = _variable(environ, "COMPRESSION")
    compression = environ.get(variable, "").strip().lower()
    if compression not in _COMPRESSIONS:
        unserved[variable] = f"{_shown(compression)} is not served: nothing is compressed"
    variable = _variable(environ, "HEADERS")
    if not _is_pairs(environ.get(variable, "")):
        unserved[variable] = "holds a part that is not name=value: that part is not sent"


def _is_loadable(environ: Mapping[str, str], unserved: dict[str, str]) -> bool:
    """Return whether the library can be imported: a wrong value of this variable prevents it."""
    name = "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"
    if _COUNT.fullmatch(environ.get(name, "").strip().lower()):
        return True
    unserved[name] = "is no whole number, 0 or more: nothing is sent"
    return False


def _is_pairs(text: str) -> bool:
    """Return whether each part, separated by commas, is name=value; empty parts are ignored."""
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    return all(name.strip() and sign for name, sign, _ in parts)


def _ratio(environ: Mapping[str, str], sampler: str, unserved: dict[str, str]) -> float:
    if sampler in _RATIOS:
        return _RATIOS[sampler]
    used = f"failures, slow runs and {RATIO:g} of the others are kept"
    if sampler not in ("", "traceidratio"):
        unserved["OTEL_TRACES_SAMPLER"] = (
            f"{_shown(sampler)} is none of always_on, always_off, traceidratio: {used}"
        )
        return RATIO
    name = "OTEL_TRACES_SAMPLER_ARG"
    if not environ.get(name):
        return RATIO
    ratio = _number(environ[name])
    if ratio is None or ratio > 1:
        unserved[name] = f"is no number from 0 to 1: {used}"
        return RATIO
    return ratio


def _number(text: str) -> float | None:
    """Return a number that is 0 or more and finite, else None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _shown(text: str) -> str:
    return repr(text[:80])
