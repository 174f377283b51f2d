"""The share of telemetry in the cost of a refresh: a recorded run against one on real sockets.

The denominator is a refresh without any of it: CPU of the controller's process for the startup
resync of a fleet, over real sockets, less that of a small fleet, less what telemetry adds.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from reconciler.clock import ClockOffset, Instant, SystemClock
from reconciler.controller.events.recorder import EventRecorder
from reconciler.controller.reconcile.run import ReconcileRun
from reconciler.controller.status.exposure import EstimatedExposure
from reconciler.controller.status.history import RunHistory
from reconciler.controller.status.run_traces import RunTraces
from reconciler.controller.status.status_metrics import RunMetrics
from reconciler.lab.cluster.cluster import LabCluster
from reconciler.leadership.api import AlwaysOpenFence
from reconciler.naming import Names, SessionKey
from reconciler.telemetry.otlp_settings import RATIO, Sampler
from reconciler.telemetry.otlp_spans import SampledTrace, spans_of
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.telemetry.trace import Trace, Tracer, span
from reconciler.workqueue.items import Priority, WorkItem
from tests.bench.figures import Value, ratio
from tests.bench.procfs import cpu_s
from tests.controller import Controller, running

RUNS = 20_000


def cost_of_a_refresh(*, exported: bool, ratio: float = RATIO) -> float:
    """Return the CPU seconds a refresh of all observers and of the record.

    Args:
        exported: Whether traces are kept at `ratio` and made into spans and bytes as they are sent.
    """
    clock = SystemClock()
    tracer = Tracer(clock, Random(1))
    witnesses: list[Callable[[ReconcileRun], None]] = [
        RunHistory(clock).observe,
        EstimatedExposure(90.0).observe,
        _events(clock).observe,
        RunMetrics(MetricsRegistry()).observe,
    ]
    if exported:
        witnesses.append(RunTraces(tracer, Sampler(ratio).keeps, _sender()).observe)
    began_s = time.process_time()
    for number in range(RUNS):
        now_at = clock.monotonic()
        key = SessionKey("team-a", f"2Ab{number % 5000}")
        work = WorkItem(key, ("scheduled",), Priority.ROUTINE, now_at, now_at, 1, now_at)
        attempt = ReconcileRun(work, tracer.begin("reconcile", queued_at=now_at), Instant(0))
        with attempt.trace:
            with span("token_request"):
                pass
            with span("patch", "session-2ab-creds"):
                pass
        attempt.outcome, attempt.reason = "refreshed", "scheduled"
        attempt.wrote, attempt.written_s = True, clock.wall()
        for witness in witnesses:
            witness(attempt)
        attempt.trace.release()
    return (time.process_time() - began_s) / RUNS


async def measure(*, sessions: int = 1000) -> list[Value]:
    """Return the shares; costs are CPU of the controller's process, in microseconds a refresh."""
    few = sessions // 20
    costs = [await _restart_cpu_s(count) for count in (few, sessions)]
    refresh_s = (costs[1] - costs[0]) / (sessions - few)
    plain_s, otlp_s = cost_of_a_refresh(exported=False), cost_of_a_refresh(exported=True)
    bare_s = refresh_s - plain_s
    return [
        Value("refresh_cpu_us", refresh_s * 1e6),
        Value("telemetry_cpu_us", plain_s * 1e6),
        Value("telemetry_otlp_cpu_us", otlp_s * 1e6),
        Value("telemetry_vs_refresh", ratio(plain_s, bare_s)),
        Value("telemetry_otlp_vs_refresh", ratio(otlp_s, bare_s)),
    ]


async def _restart_cpu_s(sessions: int) -> float:
    """Return the CPU of a restart over a fleet that a former run had taken over: refreshes alone,
    and the start that many and few sessions have in common."""
    async with LabCluster(ttl_s=900.0, seed=1) as box:
        box.populate(sessions)
        async with _settled(box.environment()):
            pass
        async with _settled(box.environment()) as controller:
            return cpu_s(controller.process.pid)


@asynccontextmanager
async def _settled(environment: dict[str, str]) -> AsyncIterator[Controller]:
    async with running(environment) as controller:
        await controller.wait_for_event("startup_resync_finished", limit_s=120)
        yield controller
        await controller.terminate()


def _events(clock: SystemClock) -> Any:
    from reconciler.controller.runtime import ControllerConfig, LogDedup, Runtime
    from reconciler.net.circuit_breaker import CircuitBreaker

    return EventRecorder(
        kube=None,  # type: ignore[arg-type]  # a normal refresh reports no event
        fence=AlwaysOpenFence("bench"),
        breaker=CircuitBreaker("kube", clock, Random(1)),
        runtime=Runtime(
            ControllerConfig(Names()), clock, Random(1), LogDedup(clock), Tracer(clock, Random(1))
        ),
    )


def _sender() -> Callable[[Trace], None]:
    """Return the work of the exporter's thread for a kept trace, without the socket."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.resources import Resource

    resource = Resource.get_empty()

    def keep(trace: Trace) -> None:
        encode_spans(
            list(spans_of(SampledTrace(trace, ClockOffset(1e9)), resource))
        ).SerializeToString()

    return keep
