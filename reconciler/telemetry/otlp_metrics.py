"""Prometheus' families as OpenTelemetry's metrics data, so that one registry serves both."""

import time
from collections.abc import Iterable, Mapping

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.core import Metric as Family
from prometheus_client.core import Sample

from reconciler import __version__
from reconciler.telemetry import metrics

_SCOPE = InstrumentationScope("reconciler", __version__)
_CUMULATIVE = AggregationTemporality.CUMULATIVE
_UNITS = {metric.name.removesuffix("_total"): metric.unit for metric in metrics.ALL}


def metrics_data(families: Iterable[Family], resource: Resource, *, since_ns: int) -> MetricsData:
    """Convert one reading.

    Args:
        since_ns: When the process began to count, epoch nanoseconds.
    """
    now_ns = time.time_ns()
    found = [_metric(family, since_ns, now_ns) for family in families if family.samples]
    return MetricsData(
        resource_metrics=[
            ResourceMetrics(
                resource=resource,
                scope_metrics=[ScopeMetrics(scope=_SCOPE, metrics=found, schema_url="")],
                schema_url="",
            )
        ]
    )


def _metric(family: Family, since_ns: int, now_ns: int) -> Metric:
    data: Sum | Gauge | Histogram
    if family.type == "histogram":
        data = Histogram(_distributions(family, since_ns, now_ns), _CUMULATIVE)
    else:
        points = [
            NumberDataPoint(dict(sample.labels), since_ns, now_ns, sample.value)
            for sample in family.samples
        ]
        data = Sum(points, _CUMULATIVE, True) if family.type == "counter" else Gauge(points)
    unit = _UNITS.get(family.name, "")
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return Metric(name, family.documentation, unit, data)


def _distributions(family: Family, since_ns: int, now_ns: int) -> list[HistogramDataPoint]:
    by_labels: dict[frozenset[tuple[str, str]], list[Sample]] = {}
    for sample in family.samples:
        labels = frozenset((name, v) for name, v in sample.labels.items() if name != "le")
        by_labels.setdefault(labels, []).append(sample)
    return [
        _distribution(family.name, dict(labels), samples, since_ns, now_ns)
        for labels, samples in by_labels.items()
    ]


def _distribution(
    name: str, labels: Mapping[str, str], samples: list[Sample], since_ns: int, now_ns: int
) -> HistogramDataPoint:
    bounds: list[float] = []
    counts: list[int] = []
    below = 0
    total = 0.0
    for sample in samples:
        if sample.name == f"{name}_bucket":
            bounds.append(float(sample.labels["le"]))
            counts.append(int(sample.value) - below)
            below = int(sample.value)
        elif sample.name == f"{name}_sum":
            total = sample.value
    return HistogramDataPoint(
        attributes=dict(labels),
        start_time_unix_nano=since_ns,
        time_unix_nano=now_ns,
        count=below,
        sum=total,
        bucket_counts=counts,
        explicit_bounds=bounds[:-1],
        min=None,  # type: ignore[arg-type]  # optional on the wire; nobody kept them
        max=None,  # type: ignore[arg-type]  # the same
    )
