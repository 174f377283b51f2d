"""Names follow the conventions, ended series are removed, and the values of a label are bounded."""

import re
from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from reconciler.telemetry import metrics
from reconciler.telemetry.metrics import HistogramValue, Metric, Sample
from reconciler.telemetry.registry import MAX_SERIES, MetricsRegistry


def parsed(meters: MetricsRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(meters.render().decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("metric", metrics.ALL, ids=lambda metric: metric.name)
def test_every_name_follows_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"token_reconciler_[a-z_]+", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    stem = metric.name.removesuffix("_total")
    assert (metric.unit == "s") == stem.endswith("_seconds")
    assert metric.help.endswith(".")
    assert bool(metric.bounds) == (metric.kind == "histogram")
    assert list(metric.bounds) == sorted(metric.bounds)


def test_no_two_metrics_share_a_name() -> None:
    names = [metric.name for metric in metrics.ALL]
    assert len(names) == len(set(names))


def test_only_the_metric_that_is_asked_for_names_a_session() -> None:
    naming = {metric.name for metric in metrics.ALL if "session_id" in metric.labels}
    assert naming == {metrics.SESSION_REMAINING.name}


def test_what_is_looked_up_is_gone_when_its_source_is() -> None:
    now: list[Sample] = [Sample(metrics.SESSION_REMAINING, 5.0, ("team-a", "2Aa"))]

    def read() -> Iterable[Sample]:
        return now

    meters = MetricsRegistry()
    meters.register(read)
    series = (
        "token_reconciler_session_remaining_life_seconds",
        (("namespace", "team-a"), ("session_id", "2Aa")),
    )
    assert parsed(meters)[series] == 5.0
    now.clear()
    assert not any("session_remaining" in name for name, _ in parsed(meters))


def test_a_snapshot_is_a_histogram_of_now() -> None:
    counts = HistogramValue((0.0, 60.0), (1, 2, 3), 500.0)
    meters = MetricsRegistry()
    meters.register(lambda: [Sample(metrics.REMAINING, counts)])
    found = parsed(meters)
    name = metrics.REMAINING.name
    assert found[f"{name}_bucket", (("le", "0.0"),)] == 1
    assert found[f"{name}_bucket", (("le", "60.0"),)] == 3
    assert found[f"{name}_bucket", (("le", "+Inf"),)] == 6
    assert found[f"{name}_count", ()] == 6
    assert found[f"{name}_sum", ()] == 500.0


def test_what_happens_is_counted_by_its_labels() -> None:
    meters = MetricsRegistry()
    for _ in range(3):
        meters.count(metrics.REFRESHES, "success", "scheduled")
    meters.observe(metrics.TOKEN_REQUEST, 0.2, "success")
    found = parsed(meters)
    labels = (("reason", "scheduled"), ("result", "success"))
    assert found["token_reconciler_refreshes_total", labels] == 3
    assert (
        found["token_reconciler_token_request_duration_seconds_count", (("result", "success"),)]
        == 1
    )


@pytest.mark.parametrize(
    "metric",
    [metric for metric in metrics.ALL if metric.kind == "histogram"],
    ids=lambda metric: metric.name,
)
def test_a_histogram_reads_as_one_of_the_library(metric: Metric) -> None:
    meters, library = MetricsRegistry(), CollectorRegistry(auto_describe=False)
    peer = Histogram(
        metric.name, metric.help, metric.labels, buckets=metric.bounds, registry=library
    )
    labels = tuple(f"a {name}" for name in metric.labels)
    child = peer.labels(*labels) if labels else peer
    for value in (0.0, *metric.bounds, *(bound * 1.5 for bound in metric.bounds)):
        child.observe(value)
        meters.observe(metric, value, *labels)
    expected = generate_latest(library).decode()
    assert expected in meters.render().decode()


def test_a_label_without_bounds_ends_up_in_other() -> None:
    meters = MetricsRegistry()
    for number in range(2 * MAX_SERIES):
        meters.count(metrics.ERRORS, f"Error{number}")
        meters.count(metrics.ERRORS, f"Error{number}")
    found = {
        labels: value
        for (name, labels), value in parsed(meters).items()
        if name == metrics.ERRORS.name
    }
    assert len(found) == MAX_SERIES + 1
    assert found[(("error", "other"),)] == 2 * MAX_SERIES
    assert found[(("error", "Error0"),)] == 2
