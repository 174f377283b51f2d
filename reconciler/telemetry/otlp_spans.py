"""Our traces as OpenTelemetry's spans, with the names of its semantic conventions.

Spans are built in the exporter's thread, and only for traces that are kept: to build, encode and
send those of one refresh takes 0.1 ms of CPU. Source: `python -m tests.traces.compare_processors`.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from reconciler import __version__
from reconciler.clock import ClockOffset, Instant
from reconciler.telemetry.trace import UNSET_AT, Span, SpanId, Trace

_SCOPE = InstrumentationScope("reconciler", __version__)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class _Request(NamedTuple):
    """A span for one request to the API server; `target_attribute` names its target."""

    method: str
    template: str
    status: int
    target_attribute: str


_REQUESTS = {
    "patch": _Request(
        "PATCH",
        "/api/v1/namespaces/{namespace}/secrets/{name}",
        200,
        "token_reconciler.secret.name",
    ),
    "create": _Request(
        "POST", "/api/v1/namespaces/{namespace}/secrets", 201, "token_reconciler.secret.name"
    ),
    "refetch": _Request(
        "GET", "/api/v1/namespaces/{namespace}/secrets", 200, "token_reconciler.secret.name"
    ),
    "touch": _Request("PATCH", "/api/v1/namespaces/{namespace}/pods/{name}", 200, "k8s.pod.name"),
}
_METHODS = frozenset({"GET", "POST"})
"""Spans with these names are requests to the issuer or the platform; their target is the URL."""


class SampledTrace(NamedTuple):
    """A trace to export; a monotonic instant plus `offset_s` is seconds since the epoch."""

    trace: Trace
    offset_s: ClockOffset


def spans_of(sampled: SampledTrace, resource: Resource) -> Iterator[ReadableSpan]:
    """Yield the spans of one trace, the root first."""
    trace = sampled.trace
    began_at = trace.began_at if trace.queued_at is None else trace.queued_at
    yield ReadableSpan(
        trace.name,
        context=_context(trace.id),
        resource=resource,
        attributes=_root_attributes(trace),
        links=[
            Link(_context(cause), {"token_reconciler.reason": reason})
            for reason, cause in trace.links
        ],
        status=_status(trace.error or ("failed" if trace.failed else "")),
        start_time=_ns(began_at, sampled),
        end_time=_ns(trace.ended_at, sampled),
        instrumentation_scope=_SCOPE,
    )
    if trace.queued_at is not None:
        yield ReadableSpan(
            "queue",
            context=_context(SpanId(trace.trace_id, trace.tracer.new_id(64))),
            parent=_context(trace.id),
            resource=resource,
            attributes={},
            start_time=_ns(trace.queued_at, sampled),
            end_time=_ns(trace.began_at, sampled),
            instrumentation_scope=_SCOPE,
        )
    for span in trace.spans:
        yield _span_of(span, sampled, resource)


def _span_of(span: Span, sampled: SampledTrace, resource: Resource) -> ReadableSpan:
    trace = span.trace
    parent = span.parent or trace
    return ReadableSpan(
        span.name,
        context=_context(SpanId(trace.trace_id, span.span_id)),
        parent=_context(SpanId(trace.trace_id, parent.span_id)),
        resource=resource,
        attributes=_span_attributes(span, trace.attributes),
        kind=_kind(span),
        status=_status(span.error),
        start_time=_ns(span.began_at, sampled),
        # A span that a cancelled run left open ends with its trace.
        end_time=_ns(trace.ended_at if span.ended_at == UNSET_AT else span.ended_at, sampled),
        instrumentation_scope=_SCOPE,
    )


def _root_attributes(trace: Trace) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = dict(trace.attributes)
    if trace.error:
        attributes.setdefault("error.type", trace.error)
    if trace.dropped_spans:
        attributes["token_reconciler.dropped_steps"] = trace.dropped_spans
    return attributes


def _span_attributes(
    span: Span, trace_attributes: Mapping[str, AttributeValue]
) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    request = _REQUESTS.get(span.name)
    if request is not None:
        attributes["http.request.method"] = request.method
        attributes["url.template"] = request.template
        attributes[request.target_attribute] = span.target
        attributes["http.response.status_code"] = span.status or (
            0 if span.error else request.status
        )
        if namespace := trace_attributes.get("k8s.namespace.name"):
            attributes["k8s.namespace.name"] = namespace
    elif span.name in _METHODS:
        parts = urlsplit(span.target)
        attributes["http.request.method"] = span.name
        attributes["url.full"] = span.target
        attributes["server.address"] = parts.hostname or ""
        attributes["http.response.status_code"] = span.status
    elif span.target:
        attributes["token_reconciler.target"] = span.target
    if attributes.get("http.response.status_code") == 0:
        del attributes["http.response.status_code"]  # no answer at all
    if span.error:
        attributes["error.type"] = span.error
    return attributes


def _kind(span: Span) -> SpanKind:
    is_request = span.name in _REQUESTS or span.name in _METHODS
    return SpanKind.CLIENT if is_request else SpanKind.INTERNAL


def _context(span: SpanId) -> SpanContext:
    return SpanContext(span.trace_id, span.span_id, is_remote=False, trace_flags=_SAMPLED)


def _status(error: str) -> Status:
    return Status(StatusCode.ERROR, error) if error else Status(StatusCode.UNSET)


def _ns(at: Instant, sampled: SampledTrace) -> int:
    return round(float(at + sampled.offset_s) * 1e9)
