"""Metrics and traces of the controller: counted, sampled, served and exported."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, TypeVar

import structlog
from msgspec.structs import asdict

from reconciler import __version__
from reconciler.clock import LONG_AGO, Clock, Instant
from reconciler.controller.decide.write_errors import ISSUER
from reconciler.controller.events.recorder import EventStats
from reconciler.controller.reconcile.run import Observer
from reconciler.controller.status.collector import StatusCollector
from reconciler.controller.status.run_traces import RunTraces
from reconciler.controller.status.status_metrics import RunMetrics, samples
from reconciler.errors import RemoteError
from reconciler.telemetry import metrics
from reconciler.telemetry.batch_exporter import BatchExporter
from reconciler.telemetry.loop_lag import LoopLag
from reconciler.telemetry.metrics import Sample
from reconciler.telemetry.otlp import span_sender
from reconciler.telemetry.otlp_settings import OtlpSettings, Sampler, read_otlp
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.telemetry.trace import Trace, Tracer, current

if TYPE_CHECKING:
    from reconciler.telemetry.otlp_spans import SampledTrace

T = TypeVar("T")

log = structlog.get_logger()

SCRAPE_AGE_S = 5.0
"""A scrape uses a snapshot up to this age: two Prometheus servers cost one snapshot."""

RENDER_S = 1.0
"""A text of /metrics is served for this long: one is rendered a second, for all scrapers."""

CLOSE_S = 1.0
"""Longest wait, at the end, for traces that were not sent yet: a pod's grace period is for writes
of tokens."""


class Telemetry:
    """What the controller counts and traces with; it is made before the controller.

    Attributes:
        observers: Called by the controller with each run.
    """

    def __init__(self, clock: Clock, otlp: OtlpSettings, *, replica: str = "") -> None:
        self._clock = clock
        self._otlp = otlp
        self._exporter: BatchExporter[SampledTrace] | None = None
        self._run_traces: RunTraces | None = None
        self.metrics_registry = MetricsRegistry()
        self.metrics_registry.register(self._read)
        self.tracer = Tracer(clock, Random())
        self.observers: tuple[Observer, ...] = (RunMetrics(self.metrics_registry).observe,)
        if otlp.traces:
            try:
                self._send_traces(replica)
            except Exception as error:
                # A fault of the library, or of a variable it reads, must not stop refreshes.
                log.warning("telemetry_off", signal="traces", reason=type(error).__name__)

    def measure_token_request(self, ask: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        """Return `ask`, measured; a request outside of a run becomes a separate trace."""

        async def measured() -> T:
            began_at, result = self._clock.monotonic(), "success"
            try:
                return await self._within_trace(ask)
            except BaseException as error:
                result = type(error).__name__
                raise
            finally:
                self.metrics_registry.observe(
                    metrics.TOKEN_REQUEST, self._clock.monotonic() - began_at, result
                )

        return measured

    async def close(self) -> None:
        """Send what is queued, for `CLOSE_S` at most."""
        if self._run_traces is not None:
            self._run_traces.close()
        if self._exporter is not None:
            await asyncio.to_thread(self._exporter.close, CLOSE_S)

    async def _within_trace(self, ask: Callable[[], Awaitable[T]]) -> T:
        if (span := current()) is not None:
            try:
                return await ask()
            except RemoteError:
                # Other runs that wait for this request fail, too; theirs refer to this trace.
                span.trace.failed_at = ISSUER
                raise
        trace = self.tracer.begin("standby_token_request")
        try:
            with trace:
                return await ask()
        finally:
            self.tracer.end(trace)

    def _send_traces(self, replica: str) -> None:
        exporter = BatchExporter("traces", span_sender(replica, os.environ, self._clock))
        from reconciler.telemetry.otlp_spans import (
            SampledTrace,  # after the library's own logging is off
        )

        def keep(trace: Trace) -> None:
            exporter.enqueue(SampledTrace(trace, self._clock.wall() - self._clock.monotonic()))

        self._run_traces = RunTraces(self.tracer, Sampler(self._otlp.ratio).keeps, keep)
        self._exporter = exporter
        self.observers += (self._run_traces.observe,)

    def _read(self) -> Iterator[Sample]:
        yield Sample(metrics.BUILD, 1, (__version__,))
        if self._exporter is not None:
            stats = self._exporter.stats()
            for result in ("sent", "failed", "dropped"):
                labels = (self._exporter.signal, result)
                yield Sample(metrics.TELEMETRY, getattr(stats, result), labels)


class MetricsEndpoint:
    """The text of /metrics; in its gauges it shows the newest snapshot of the controller.

    Args:
        per_session: Export a series for each session.
        log_lines_dropped: Returns how many lines of the log were dropped since the start.
    """

    def __init__(
        self,
        registry: MetricsRegistry,
        status_collector: StatusCollector,
        events: EventStats,
        clock: Clock,
        *,
        per_session: bool = False,
        log_lines_dropped: Callable[[], int] = lambda: 0,
    ) -> None:
        self._registry = registry
        self._status_collector = status_collector
        self._events = events
        self._clock = clock
        self._per_session = per_session
        self._log_lines_dropped = log_lines_dropped
        self._text = b""
        self._text_at: Instant = LONG_AGO
        self._rendering: asyncio.Task[bytes] | None = None
        registry.register(self._read)

    async def scrape(self) -> bytes:
        """Return all metrics in Prometheus' text format, also before the controller runs.

        The text is rendered in a thread, once for all scrapes within `RENDER_S`: each rendering
        takes interpreter time from the refreshes.
        Cancel: The rendering continues for the other callers that wait for it.
        """
        if self._clock.monotonic() - self._text_at < RENDER_S:
            return self._text
        if self._rendering is None:
            self._rendering = asyncio.create_task(self._render(), name="render_metrics")
        return await asyncio.shield(self._rendering)

    def close(self) -> None:
        """Cancel a rendering."""
        if self._rendering is not None:
            self._rendering.cancel()

    async def _render(self) -> bytes:
        try:
            await self._status_collector.update(max_age_s=SCRAPE_AGE_S)
            self._text = await asyncio.to_thread(self._registry.render)
            self._text_at = self._clock.monotonic()
            return self._text
        finally:
            self._rendering = None

    def _read(self) -> Iterator[Sample]:
        yield Sample(metrics.LOG_DROPPED, self._log_lines_dropped())
        if (latest := self._status_collector.latest) is not None:
            yield from samples(latest, per_session=self._per_session)
        for result, count in asdict(self._events).items():
            yield Sample(metrics.EVENTS, count, (result,))


@asynccontextmanager
async def open_telemetry(clock: Clock, *, replica: str) -> AsyncIterator[Telemetry]:
    """Make it from the OTEL_* variables; those that are not supported are logged."""
    otlp = read_otlp(os.environ)
    for each in otlp.unserved:
        log.warning("telemetry_variable_ignored", variable=each.variable, reason=each.reason)
    telemetry = Telemetry(clock, otlp, replica=replica)
    lag = LoopLag(telemetry.metrics_registry)
    lag.start()
    try:
        yield telemetry
    finally:
        lag.close()
        await telemetry.close()
