"""Spans of requests and resources have the names of OpenTelemetry's semantic conventions."""

from random import Random
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from reconciler import __version__
from reconciler.clock import ClockOffset
from reconciler.telemetry.otlp import resource_of
from reconciler.telemetry.otlp_spans import SampledTrace, spans_of
from reconciler.telemetry.trace import Span, Tracer, request_span, span
from tests.support import ManualClock

POD = {"NAMESPACE": "ambient-code", "RECONCILER_POD_UID": "11111111-2222"}


def of_request(*, url: str = "", **found: Any) -> ReadableSpan:
    """Return the exported span of one GET with these attributes of `Span`."""
    trace = Tracer(ManualClock(), Random(1)).begin("reconcile")
    with trace, span("GET", method="GET") as one:
        assert isinstance(one, Span)
        if url:
            one.send_to(url)
        for name, value in found.items():
            setattr(one, name, value)
    [_, built] = spans_of(SampledTrace(trace, ClockOffset(0.0)), Resource.get_empty())
    return built


def test_a_request_has_the_required_attributes_of_an_http_client_span() -> None:
    built = of_request(url="https://host.example/path?a=b", status=200)
    assert (built.name, built.kind, built.status.is_unset) == ("GET", SpanKind.CLIENT, True)
    assert built.attributes == {
        "http.request.method": "GET",
        "url.full": "https://host.example/path?a=b",
        "server.address": "host.example",
        "server.port": 443,
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
    }


@pytest.mark.parametrize(
    ("url", "port"), [("http://[::1]:8080/", 8080), ("http://10.0.0.1/", 80), ("https://h:1/", 1)]
)
def test_the_port_is_that_of_the_url_or_of_its_scheme(url: str, port: int) -> None:
    assert (of_request(url=url).attributes or {})["server.port"] == port


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://user:obviously-fake@host:8443/path", "https://host:8443/path"),
        ("https://host/proxy/obviously-fake/api/v1/pods?a=b", "https://host/api/v1/pods?a=b"),
    ],
)
def test_credentials_in_a_url_are_not_sent(url: str, sent: str) -> None:
    built = of_request(url=url)
    assert (built.attributes or {})["url.full"] == sent
    assert "obviously-fake" not in built.to_json()


def test_an_answer_that_is_an_error_is_the_type_of_the_error() -> None:
    built = of_request(url="https://host/", status=503)
    assert not built.status.is_ok
    assert (built.attributes or {})["error.type"] == "503"
    assert built.events == ()


def test_a_request_that_was_sent_again_counts_how_often() -> None:
    trace = Tracer(ManualClock(), Random(1)).begin("reconcile")
    with trace, span("patch", "a", "PATCH"):
        for _ in range(2):
            one = request_span()
            assert one is not None
            one.send_to("https://host/")
    [_, built] = spans_of(SampledTrace(trace, ClockOffset(0.0)), Resource.get_empty())
    assert (built.attributes or {})["http.request.resend_count"] == 1


def test_work_that_is_no_request_takes_no_url() -> None:
    with Tracer(ManualClock(), Random(1)).begin("reconcile"), span("token_request"):
        assert request_span() is None
    assert request_span() is None


def test_a_pod_is_named_by_what_its_manifest_sets() -> None:
    assert {
        "service.name": "token-reconciler",
        "service.namespace": "ambient-code",
        "service.version": __version__,
        "service.instance.id": "pod-1",
        "k8s.namespace.name": "ambient-code",
        "k8s.pod.name": "pod-1",
        "k8s.pod.uid": "11111111-2222",
    }.items() <= resource_of("pod-1", POD).attributes.items()
    outside = resource_of("host", {"NAMESPACE": "ambient-code"}).attributes
    assert not [name for name in outside if name.startswith("k8s.")]


def test_the_variables_of_opentelemetry_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=east,service.namespace=agents")
    found = resource_of("pod-1", POD).attributes
    assert [found[name] for name in ("service.name", "service.namespace", "k8s.cluster.name")] == [
        "mine",
        "agents",
        "east",
    ]
    assert found["k8s.namespace.name"] == "ambient-code"
