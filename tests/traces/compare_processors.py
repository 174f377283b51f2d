"""`python -m tests.traces.compare_processors`: our exporter next to OpenTelemetry's processor.

Both send the same traces by OpenTelemetry's OTLP exporter to one real Jaeger, in turn, and Jaeger
is asked for all of them. Its processor takes spans, so that the loop's thread builds them; ours
builds them in a thread of its own. A receiver that never answers then shows how long the end of
each takes, and what it reports as lost.
"""

import argparse
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from reconciler.app.telemetry import CLOSE_S
from reconciler.clock import SystemClock
from reconciler.telemetry.batch_exporter import BatchExporter
from reconciler.telemetry.otlp_settings import EXPORT_TIMEOUT_S
from reconciler.telemetry.otlp_spans import SampledTrace, spans_of
from reconciler.telemetry.trace import Tracer, span
from tests.assets import find
from tests.traces.jaeger import Jaeger

SPANS = 4
"""Spans of one refresh: the run, its time in the queue, the token request, the PATCH."""

CAPACITY = 2048
BATCH = 256
"""Traces, as in the product; the processor's are as many in spans."""

LIMIT_S = 60.0


class Counting(SpanExporter):
    """OpenTelemetry's exporter, and the number of spans that arrived."""

    def __init__(self, url: str) -> None:
        self._library = OTLPSpanExporter(endpoint=f"{url}/v1/traces", timeout=EXPORT_TIMEOUT_S)
        self.arrived = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._library.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.arrived += len(spans)
        return result

    def shutdown(self) -> None:
        self._library.shutdown()  # type: ignore[no-untyped-call]


class Building:
    """Sends batches of traces: the spans are built here, in the exporter's thread."""

    problem = ""

    def __init__(self, exporter: Counting, resource: Resource) -> None:
        self._exporter = exporter
        self._resource = resource

    def __call__(self, batch: list[SampledTrace]) -> bool:
        spans = [built for kept in batch for built in spans_of(kept, self._resource)]
        return self._exporter.export(spans) is SpanExportResult.SUCCESS

    def close(self) -> None:
        self._exporter.shutdown()


class Ours:
    """The product's exporter."""

    def __init__(self, url: str, resource: Resource) -> None:
        self.exporter = Counting(url)
        self._batches = BatchExporter(
            "traces", Building(self.exporter, resource), capacity=CAPACITY, batch=BATCH
        )

    def keep(self, sampled: SampledTrace) -> None:
        """Take a trace, in the thread of the event loop."""
        self._batches.enqueue(sampled)

    def close(self, limit_s: float = CLOSE_S) -> None:
        self._batches.close(limit_s)

    def lost(self) -> str:
        """Return what the public interface reports as lost."""
        stats = self._batches.stats()
        return f"{stats.dropped} dropped, {stats.failed} failed"


class Theirs:
    """OpenTelemetry's processor, with spans that the loop's thread builds."""

    def __init__(self, url: str, resource: Resource) -> None:
        self.exporter = Counting(url)
        self._resource = resource
        self._processor = BatchSpanProcessor(
            self.exporter,
            max_queue_size=CAPACITY * SPANS,
            max_export_batch_size=BATCH * SPANS,
            schedule_delay_millis=2000,
        )

    def keep(self, sampled: SampledTrace) -> None:
        for built in spans_of(sampled, self._resource):
            self._processor.on_end(built)

    def close(self, limit_s: float = CLOSE_S) -> None:
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # it takes no time limit

    def lost(self) -> str:
        return "no count"


SIDES = (Ours, Theirs)


def refreshes(tracer: Tracer, count: int) -> list[SampledTrace]:
    """Return the traces of as many refreshes."""
    kept = []
    for number in range(count):
        now_at = tracer.monotonic()
        trace = tracer.begin("reconcile", queued_at=now_at)
        with trace, span("token_request"), span("patch", "session-2ab-creds"):
            pass
        trace.attributes = {
            "k8s.namespace.name": "team-a",
            "k8s.pod.name": f"runner-{number}",
            "token_reconciler.session.id": f"2Ab{number}",
            "token_reconciler.outcome": "refreshed",
            "token_reconciler.reason": "scheduled",
        }
        kept.append(SampledTrace(trace, tracer.wall() - now_at))
    return kept


def cost(side: Ours | Theirs, traces: list[SampledTrace]) -> tuple[float, float]:
    """Return CPU in microseconds a trace: of this thread, and of the process until all arrived."""
    process_s, thread_s = time.process_time(), time.thread_time()
    for sampled in traces:
        side.keep(sampled)
    thread_s = time.thread_time() - thread_s
    side.close(LIMIT_S)
    if side.exporter.arrived != SPANS * len(traces):
        raise SystemExit(f"{side.exporter.arrived} spans of {len(traces)} traces arrived")
    process_s = time.process_time() - process_s
    return thread_s / len(traces) * 1e6, process_s / len(traces) * 1e6


def end_of(side: Ours | Theirs, traces: list[SampledTrace]) -> float:
    """Return how long the end takes after these traces, seconds."""
    for sampled in traces:
        side.keep(sampled)
    began_s = time.monotonic()
    side.close()
    return time.monotonic() - began_s


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.traces.compare_processors")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--traces", type=int, default=1000, help="a round, up to 2048")
    arguments = parser.parse_args()
    binary = find().get("jaeger")
    if binary is None:
        print("no jaeger: build it with: make assets")
        return 1
    tracer = Tracer(SystemClock(), Random(1))
    resources = {side: Resource({"service.name": side.__name__.lower()}) for side in SIDES}
    costs: dict[type, list[tuple[float, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder, Jaeger(binary, Path(folder)) as jaeger:
        for turn in range(2 * arguments.rounds):
            make = SIDES[turn % 2]
            traces = refreshes(tracer, arguments.traces)
            costs[make].append(cost(make(jaeger.otlp_url, resources[make]), traces))
        for side in SIDES:
            found = len(jaeger.traces(side.__name__.lower(), limit="5"))
            loop_us, process_us = (statistics.median(one) for one in zip(*costs[side], strict=True))
            print(
                f"{side.__name__.lower()}: {loop_us:.1f} us a trace in the loop's thread,"
                f" {process_us:.0f} us in the process; Jaeger shows {found} of 5"
            )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for side in SIDES:
            exporter = side(url, resources[side])
            took_s = end_of(exporter, refreshes(tracer, 2 * CAPACITY))
            print(
                f"{side.__name__.lower()}, a receiver that never answers, {2 * CAPACITY} traces:"
                f" {took_s:.1f} s to the end, lost: {exporter.lost()}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
