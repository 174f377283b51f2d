"""Counters and histograms that grow as events happen, and gauges that are read at a scrape.

The registry and the text format are prometheus-client's, not OpenTelemetry's: an observation costs
5 us there, and a refresh makes five of them.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from reconciler.telemetry import metrics
from reconciler.telemetry.metrics import HistogramValue, Metric, Sample

CONTENT_TYPE = CONTENT_TYPE_LATEST

MAX_SERIES = 200
"""Most series of one counter or histogram; further label values are counted as `other`."""

# `_created` would double the number of series, and no alert reads it.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library is typed but for this


class MetricsRegistry:
    """The process's metrics: `observe` and `count` run on the event loop, `render` anywhere."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._growing: dict[Metric, Counter | _Histograms] = {}
        self._children: dict[tuple[str, tuple[str, ...]], Counter | _Histogram] = {}
        self._series: dict[str, int] = {}
        ProcessCollector(registry=self.registry)

    def register(self, read: Callable[[], Iterable[Sample]]) -> None:
        """Also export, from now on, what `read` returns: gauges, and counters of other parts.

        Args:
            read: Called at each scrape, in the thread that renders; it must read immutable data.
        """
        self.registry.register(_Read(read))

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Add to a counter."""
        child = self._children.get((metric.name, labels)) or self._child(metric, labels)
        child.inc(by)  # type: ignore[union-attr]  # a counter's child is a counter

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Put a value into a histogram."""
        child = self._children.get((metric.name, labels)) or self._child(metric, labels)
        child.observe(value)  # type: ignore[union-attr]  # a histogram's child is a histogram

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _child(self, metric: Metric, labels: tuple[str, ...]) -> "Counter | _Histogram":
        count = self._series.get(metric.name, 0)
        if count >= MAX_SERIES:
            labels = tuple("other" for _ in labels)
        self._series[metric.name] = count + 1
        parent = self._growing.get(metric) or self._declare(metric)
        child: Counter | _Histogram
        if isinstance(parent, Counter):
            child = parent.labels(*labels) if metric.labels else parent
        else:
            child = parent.labels(*labels)
        if count < MAX_SERIES:
            self._children[metric.name, labels] = child
        return child

    def _declare(self, metric: Metric) -> "Counter | _Histograms":
        made: Counter | _Histograms
        if metric.kind == "histogram":
            made = _Histograms(metric)
            self.registry.register(made)
        else:
            made = Counter(metric.name, metric.help, metric.labels, registry=self.registry)
        self._growing[metric] = made
        return made


class _Histogram:
    """Counts by bucket, and a sum.

    A refresh observes four values. prometheus_client's `Histogram` makes six calls for each, with
    two locks: 3 us a refresh. Only the event loop writes here.
    """

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class _Histograms(Collector):
    """One metric's histograms, by the values of its labels."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._children: dict[tuple[str, ...], _Histogram] = {}

    def labels(self, *labels: str) -> _Histogram:
        if (child := self._children.get(labels)) is None:
            child = self._children[labels] = _Histogram(self._metric.bounds)
        return child

    def collect(self) -> Iterator[Family]:
        metric = self._metric
        values = [
            Sample(metric, HistogramValue(metric.bounds, tuple(child.counts), child.sum), labels)
            for labels, child in tuple(self._children.items())
        ]
        yield _histogram_family(metric, values)


class _Read(Collector):
    """The values that are read at a scrape, as families; a series that is not returned ends."""

    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Family]:
        by_metric: dict[Metric, list[Sample]] = {}
        for sample in self._read():
            by_metric.setdefault(sample.metric, []).append(sample)
        for metric in metrics.ALL:
            if found := by_metric.get(metric):
                yield _family(metric, found)


def _family(metric: Metric, samples: list[Sample]) -> Family:
    if metric.kind == "snapshot":
        return _histogram_family(metric, samples)
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(metric.name, metric.help, labels=metric.labels)
    for sample in samples:
        assert not isinstance(sample.value, HistogramValue)  # noqa: S101 - the value type of snapshots only
        family.add_metric(sample.labels, sample.value)
    return family


def _histogram_family(metric: Metric, samples: list[Sample]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for sample in samples:
        assert isinstance(sample.value, HistogramValue)  # noqa: S101 - the value type of histograms
        family.add_metric(sample.labels, _buckets(sample.value), sum_value=sample.value.sum)
    return family


def _buckets(distribution: HistogramValue) -> list[tuple[str, float]]:
    total, found = 0, []
    bounds = (*distribution.bounds, math.inf)
    for bound, count in zip(bounds, distribution.counts, strict=True):
        total += count
        shown = "+Inf" if math.isinf(bound) else repr(bound)
        found.append((shown, float(total)))
    return found
