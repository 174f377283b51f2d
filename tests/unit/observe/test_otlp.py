"""The standard variables mean what they mean elsewhere; a wrong one is named."""

import subprocess
import sys

import pytest

from reconciler.errors import SettingsError
from reconciler.observe.otlp import OtlpSettings, read_otlp

URL = "http://127.0.0.1:4318"
OFF = OtlpSettings(traces=False, metrics=False)
BOTH = OtlpSettings(traces=True, metrics=True)


@pytest.mark.parametrize(
    ("environ", "settings"),
    [
        ({}, OFF),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, OFF),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, BOTH),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "true"}, OFF),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{URL}/v1/traces"},
            OtlpSettings(traces=True, metrics=False),
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_METRICS_EXPORTER": "none"},
            OtlpSettings(traces=True, metrics=False),
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_SAMPLER": "always_off"},
            OtlpSettings(traces=False, metrics=True, ratio=0.0),
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_SAMPLER": "parentbased_always_on"},
            OtlpSettings(traces=True, metrics=True, ratio=1.0),
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": URL,
                "OTEL_TRACES_SAMPLER": "traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "0.25",
                "OTEL_METRIC_EXPORT_INTERVAL": "15000",
            },
            OtlpSettings(traces=True, metrics=True, ratio=0.25, interval_s=15.0),
        ),
    ],
)
def test_the_variables_are_read(environ: dict[str, str], settings: OtlpSettings) -> None:
    assert read_otlp(environ) == settings


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ),
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "OTEL_TRACES_SAMPLER"),
        ({"OTEL_TRACES_SAMPLER_ARG": "a lot"}, "OTEL_TRACES_SAMPLER_ARG"),
        ({"OTEL_TRACES_SAMPLER_ARG": "2"}, "OTEL_TRACES_SAMPLER_ARG"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "nan"}, "OTEL_METRIC_EXPORT_INTERVAL"),
    ],
)
def test_a_variable_that_cannot_be_meant_is_named(environ: dict[str, str], variable: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        read_otlp(environ)


def test_opentelemetry_is_not_even_loaded_without_an_endpoint() -> None:
    program = (
        "import sys, reconciler.app;"
        "from reconciler.clock import SystemClock;"
        "from reconciler.observe.otlp import read_otlp;"
        "from reconciler.telemetry import Telemetry;"
        "Telemetry(SystemClock(), read_otlp({}));"
        "print(sorted(m for m in sys.modules if m.startswith(('opentelemetry', 'google'))))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
