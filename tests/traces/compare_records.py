"""`python -m tests.traces.compare_records`: what OpenTelemetry's API costs, and what ours costs.

Both record the same: one observation of a histogram, and the five spans of one refresh, in turn.
Each figure is the median of the rounds, in microseconds of CPU; nothing is exported.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from random import Random

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from reconciler.clock import SystemClock
from reconciler.telemetry import metrics
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.telemetry.trace import Tracer, span

STEPS = ("token_request", "POST", "patch", "touch")
"""The spans of one refresh below its root."""


def observations() -> dict[str, Callable[[], None]]:
    """Return what observes one value, by whose it is."""
    registry = MetricsRegistry()
    meter = MeterProvider(metric_readers=[InMemoryMetricReader()]).get_meter("bench")
    histogram = meter.create_histogram("write_duration_seconds")

    def observe_ours() -> None:
        registry.observe(metrics.WRITE, 0.01, "patch", "success")

    def observe_theirs() -> None:
        histogram.record(0.01, {"verb": "patch", "result": "success"})

    return {"observation, ours": observe_ours, "observation, OpenTelemetry": observe_theirs}


def spans() -> dict[str, Callable[[], None]]:
    """Return what records one refresh, by whose it is."""
    ours = Tracer(SystemClock(), Random(1))
    theirs = TracerProvider(shutdown_on_exit=False).get_tracer("bench")

    def record_ours() -> None:
        trace = ours.begin("reconcile")
        with trace:
            for name in STEPS:
                with span(name, "session-2ab-creds"):
                    pass
        trace.release()

    def record_theirs() -> None:
        with theirs.start_as_current_span("reconcile"):
            for name in STEPS:
                with theirs.start_as_current_span(name) as step:
                    step.set_attribute("token_reconciler.target", "session-2ab-creds")

    return {"five spans, ours": record_ours, "five spans, OpenTelemetry": record_theirs}


def cpu_us(work: Callable[[], None], times: int) -> float:
    began_s = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began_s) / times * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.traces.compare_records")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--times", type=int, default=2000, help="a round")
    arguments = parser.parse_args()
    works = observations() | spans()
    costs: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(arguments.rounds):
        for name, work in works.items():
            costs[name].append(cpu_us(work, arguments.times))
    for name, found in costs.items():
        print(f"{name}: {statistics.median(found):.1f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
