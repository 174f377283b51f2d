"""Our traces as OpenTelemetry's spans, with the names of its semantic conventions.

Spans are built in the exporter's thread, and only for traces that are kept: to build, encode and
send those of one refresh takes 0.1 ms of CPU. Source: `python -m tests.traces.compare_processors`.
"""

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from reconciler import __version__
from reconciler.clock import ClockOffset, Instant
from reconciler.telemetry.log_setup import bounded
from reconciler.telemetry.trace import UNSET_AT, Span, SpanId, Trace

_SCOPE = InstrumentationScope("reconciler", __version__)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


_BY_OBJECT = "token_reconciler.secret.name"
_REQUESTS = {
    "patch": ("/api/v1/namespaces/{namespace}/secrets/{name}", _BY_OBJECT),
    "create": ("/api/v1/namespaces/{namespace}/secrets", _BY_OBJECT),
    "refetch_secrets": ("/api/v1/namespaces/{namespace}/secrets", _BY_OBJECT),
    "refetch_pods": ("/api/v1/namespaces/{namespace}/pods", "k8s.pod.name"),
    "touch": ("/api/v1/namespaces/{namespace}/pods/{name}", "k8s.pod.name"),
}
"""`url.template` of the requests to the API server, and the attribute that names their object."""

_PORTS = {"http": 80, "https": 443}


class SampledTrace(NamedTuple):
    """A trace to export; a monotonic instant plus `offset_s` is seconds since the epoch."""

    trace: Trace
    offset_s: ClockOffset


def spans_of(sampled: SampledTrace, resource: Resource) -> Iterator[ReadableSpan]:
    """Yield the spans of one trace, the root first."""
    trace = sampled.trace
    began_at = trace.began_at if trace.queued_at is None else trace.queued_at
    end_ns = _ns(trace.ended_at, sampled)
    attributes: dict[str, AttributeValue] = dict(trace.attributes)
    if trace.error:
        attributes["error.type"] = trace.error
    if trace.dropped_spans:
        attributes["token_reconciler.dropped_steps"] = trace.dropped_spans
    yield ReadableSpan(
        trace.name,
        context=_context(trace.id),
        parent=(
            None if trace.parent is None else _context(SpanId(trace.trace_id, trace.parent.span_id))
        ),
        resource=resource,
        attributes=attributes,
        events=_events(trace, end_ns),
        links=[
            Link(_context(cause), {"token_reconciler.reason": reason})
            for reason, cause in trace.links
        ],
        status=_status(trace.error or ("failed" if trace.failed else ""), trace.message),
        start_time=_ns(began_at, sampled),
        end_time=end_ns,
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
    template, named_by = _REQUESTS.get(span.name, ("", "token_reconciler.target"))
    attributes: dict[str, AttributeValue] = _request_attributes(span) if span.method else {}
    if template:
        attributes["url.template"] = template
        attributes["k8s.namespace.name"] = trace.attributes.get("k8s.namespace.name", "")
    if span.target:
        attributes[named_by] = span.target
    if error := _error_type(span):
        attributes["error.type"] = error
    # A span that a cancelled run left open ends with its trace.
    end_ns = _ns(trace.ended_at if span.ended_at == UNSET_AT else span.ended_at, sampled)
    return ReadableSpan(
        f"{span.method} {template}".strip() if span.method else span.name,
        context=_context(SpanId(trace.trace_id, span.span_id)),
        parent=_context(SpanId(trace.trace_id, parent.span_id)),
        resource=resource,
        attributes=attributes,
        events=_events(span, end_ns),
        kind=SpanKind.CLIENT if span.method else SpanKind.INTERNAL,
        status=_status(error, span.message),
        start_time=_ns(span.began_at, sampled),
        end_time=end_ns,
        instrumentation_scope=_SCOPE,
    )


def _request_attributes(span: Span) -> dict[str, AttributeValue]:
    """Return the attributes of an HTTP client span; no URL shows credentials.

    Source: OpenTelemetry semantic conventions, "HTTP client span" (stable).
    """
    attributes: dict[str, AttributeValue] = {"http.request.method": span.method}
    if span.url:  # else the request was not sent
        url = urlsplit(span.url)
        host = url.netloc.rpartition("@")[2]
        path = url.path[max(0, url.path.find("/api/")) :]  # a proxy's prefix may be a credential
        attributes["url.full"] = url._replace(netloc=host, path=path).geturl()
        attributes["server.address"] = url.hostname or ""
        attributes["server.port"] = url.port or _PORTS.get(url.scheme, 0)
        attributes["network.protocol.version"] = "1.1"
    if span.status:
        attributes["http.response.status_code"] = span.status
    if span.resends:
        attributes["http.request.resend_count"] = span.resends
    return attributes


def _error_type(span: Span) -> str:
    """Return the class of the error, or the status of an answer that is an error; "" for none."""
    return span.error or (str(span.status) if span.status >= 400 else "")


def _events(span: Span, at_ns: int) -> list[Event]:
    if not span.error:
        return []
    words = {"exception.type": span.error, "exception.message": bounded(span.message)}
    return [Event("exception", words, at_ns)]


def _context(span: SpanId) -> SpanContext:
    return SpanContext(span.trace_id, span.span_id, is_remote=False, trace_flags=_SAMPLED)


def _status(error: str, message: str) -> Status:
    return Status(StatusCode.ERROR, bounded(message) or error) if error else Status()


def _ns(at: Instant, sampled: SampledTrace) -> int:
    return round(float(at + sampled.offset_s) * 1e9)
