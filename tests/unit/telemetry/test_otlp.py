"""The standard variables mean what they mean elsewhere; a wrong one is named, and stops nothing."""

import subprocess
import sys

import pytest
from msgspec.structs import replace

from reconciler.telemetry.otlp_settings import OtlpSettings, export_timeout_s, read_otlp

URL = "http://127.0.0.1:4318"
OFF = OtlpSettings(traces=False)
ON = OtlpSettings(traces=True)


@pytest.mark.parametrize(
    ("environ", "settings"),
    [
        ({}, OFF),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, OFF),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, ON),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "true"}, OFF),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{URL}/v1/traces"}, ON),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_METRICS_EXPORTER": "none"}, ON),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_EXPORTER": "none"}, OFF),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_SAMPLER": "always_off"},
            OtlpSettings(traces=False, ratio=0.0),
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_SAMPLER": "parentbased_always_on"},
            OtlpSettings(traces=True, ratio=1.0),
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": URL,
                "OTEL_TRACES_SAMPLER": "traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0.25",
                "OTEL_METRIC_EXPORT_INTERVAL": "15000",
                "OTEL_EXPORTER_OTLP_HEADERS": "a=b, c=d=,",
                "OTEL_RESOURCE_ATTRIBUTES": "team=x",
                "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "64",
            },
            OtlpSettings(traces=True, ratio=0.25),
        ),
    ],
)
def test_the_variables_are_read(environ: dict[str, str], settings: OtlpSettings) -> None:
    assert read_otlp(environ) == settings


SERVED = {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}


@pytest.mark.parametrize(
    ("environ", "variable", "sends"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT", OFF),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"}, "OTEL_EXPORTER_OTLP_ENDPOINT", OFF),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:99999"}, "OTEL_EXPORTER_OTLP_ENDPOINT", OFF),
        (SERVED | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL", OFF),
        (
            SERVED | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            OFF,
        ),
        (
            SERVED | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            ON,
        ),
        (SERVED | {"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER", ON),
        (SERVED | {"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "OTEL_TRACES_SAMPLER", ON),
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "OTEL_TRACES_SAMPLER", OFF),
        (SERVED | {"OTEL_TRACES_SAMPLER_ARG": "a lot"}, "OTEL_TRACES_SAMPLER_ARG", ON),
        (SERVED | {"OTEL_TRACES_SAMPLER_ARG": "2"}, "OTEL_TRACES_SAMPLER_ARG", ON),
        (
            SERVED | {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{URL}/v1/metrics"},
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            ON,
        ),
        (
            {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{URL}/v1/metrics"},
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            OFF,
        ),
        (SERVED | {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "OTEL_EXPORTER_OTLP_TIMEOUT", ON),
        (
            SERVED | {"OTEL_EXPORTER_OTLP_COMPRESSION": "zstd"},
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            ON,
        ),
        (SERVED | {"OTEL_RESOURCE_ATTRIBUTES": "a=b,c"}, "OTEL_RESOURCE_ATTRIBUTES", ON),
        (
            SERVED | {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "abc"},
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
            OFF,
        ),
        (
            SERVED | {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "unset"},
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
            OFF,
        ),
        (SERVED | {"OTEL_EXPORTER_OTLP_HEADERS": "no pair"}, "OTEL_EXPORTER_OTLP_HEADERS", ON),
    ],
)
def test_a_variable_that_cannot_be_served_is_named_once_and_ignored(
    environ: dict[str, str], variable: str, sends: OtlpSettings
) -> None:
    found = read_otlp(environ)
    assert [each.variable for each in found.unserved] == [variable]
    assert replace(found, unserved=()) == sends


def test_what_may_hold_a_secret_is_not_quoted() -> None:
    secret = "obviously-fake-secret"
    found = read_otlp(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"collector:{secret}@host",
            "OTEL_EXPORTER_OTLP_HEADERS": secret,
        }
    )
    assert len(found.unserved) == 2
    assert secret not in str(found.unserved)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 10.0), ("0.3", 0.3), ("10000", 10.0), ("inf", 10.0), ("-1", 10.0), ("0", 10.0)],
)
def test_one_export_has_ten_seconds_at_most(text: str, seconds: float) -> None:
    environ = {"OTEL_EXPORTER_OTLP_TIMEOUT": text}
    assert export_timeout_s(environ) == seconds


def test_opentelemetry_is_not_even_loaded_without_an_endpoint() -> None:
    program = (
        "import sys, reconciler.app;"
        "from reconciler.clock import SystemClock;"
        "from reconciler.telemetry.otlp_settings import read_otlp;"
        "from reconciler.app.telemetry import Telemetry;"
        "Telemetry(SystemClock(), read_otlp({}));"
        "print(sorted(m for m in sys.modules if m.startswith(('opentelemetry', 'google'))))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
