"""The observer of the reconcile runs that exports traces, as parts of resyncs and outages."""

import asyncio
import heapq
from collections.abc import Callable

from reconciler.controller.decide.write_errors import ISSUER
from reconciler.controller.reconcile.run import ReconcileRun
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey
from reconciler.telemetry.trace import Trace, Tracer

CHANGES = {"pod": "pod_changed", "secret": "secret_changed", "touch": "secret_seen"}
"""Reasons that mean a watch event, and the name of the span of that event."""

SLOWEST = 10
"""Runs of a resync that are exported because no other run of it took longer."""

MAX_RUNS = 1000
"""Ordinary runs in the trace of one resync: Jaeger draws some thousand spans."""

OUTAGE_S = 60.0
"""Failures at one endpoint are one trace for this long."""

MAX_FAILURES = 50
"""Sessions, and token requests, that the trace of an outage shows; it counts all of them."""

IsSampled = Callable[[Trace], bool]
"""Returns whether a trace that has ended is exported."""


class RunTraces:
    """Observer that exports the sampled traces, with links to what caused them.

    - A run that began while its resync was open is part of the resync's trace, which has the
      slowest runs whatever the sampler says; a later one links to it.
    - What fails at an endpoint is part of one trace a minute, `endpoint_failures`: an outage fails
      thousands of runs, most of them without a request.
    - A watch event has a span only if the run that it queued is exported: there are ten times as
      many events as runs worth a look.

    Args:
        export: Takes one trace; called on the loop.
    """

    def __init__(self, tracer: Tracer, is_sampled: IsSampled, export: Callable[[Trace], None]):
        self._tracer = tracer
        self._is_sampled = is_sampled
        self._export = export
        self._outages: dict[str, Outage] = {}
        self._resyncs: dict[int, ResyncRuns] = {}
        tracer.on_end(self._ended)

    def observe(self, run: ReconcileRun) -> None:
        trace = run.trace
        if run.error is not None:
            trace.fail(run.error)
        if endpoint := run.blocked_on or trace.failed_at:
            is_kept = self._outage(endpoint, trace).add(trace, run.key)
        else:
            is_kept = self._is_sampled(trace)
        if isinstance(trace.parent, Trace) and trace.parent.is_resync:
            runs = self._resyncs.setdefault(trace.trace_id, ResyncRuns())
            is_kept = is_kept and runs.has_room(trace)
            if not (is_kept or trace.failed) and runs.is_slow(trace):
                self._describe(run)
                runs.add(trace)
        if is_kept:
            self._describe(run)
            self._export(trace)

    def close(self) -> None:
        """Export the traces of the outages so far."""
        for endpoint in list(self._outages):
            self._end_outage(endpoint)

    def _describe(self, run: ReconcileRun) -> None:
        trace = run.trace
        trace.sampled = True
        trace.attributes = attributes_of(run)
        for reason in run.work.reasons:
            if (cause := self._tracer.causes.get(reason)) is not None:
                if cause.trace_id != trace.trace_id:
                    trace.links.append((reason, cause))
            elif (name := CHANGES.get(reason)) is not None:
                trace.links.append((reason, self._event(name, run).id))

    def _ended(self, trace: Trace) -> None:
        """Export a trace that is no run: a resync always, a token request if it is sampled."""
        if trace.is_resync:
            for slow in self._resyncs.pop(trace.trace_id, ResyncRuns()).slowest():
                self._export(slow)
            self._export(trace)
        elif self._outage(ISSUER, trace).add(trace) if trace.failed else self._is_sampled(trace):
            self._export(trace)

    def _outage(self, endpoint: str, trace: Trace) -> "Outage":
        """Return the outage that a failed trace is part of; the first one begins it."""
        if endpoint not in self._outages:
            self._outages[endpoint] = Outage(self._tracer, endpoint, trace)
            asyncio.get_running_loop().call_later(OUTAGE_S, self._end_outage, endpoint)
        return self._outages[endpoint]

    def _end_outage(self, endpoint: str) -> None:
        if (outage := self._outages.pop(endpoint, None)) is not None:
            self._export(outage.trace())

    def _event(self, name: str, run: ReconcileRun) -> Trace:
        event = self._tracer.begin(name)
        event.began_at = event.ended_at = run.work.ready_at
        event.attributes = _subject(run.key.namespace, run.pod)
        self._export(event)
        return event


class ResyncRuns:
    """The exported runs of one resync: ordinary ones by number, and the slowest of the others."""

    def __init__(self) -> None:
        self._ordinary = 0
        self._slowest: list[tuple[float, int, Trace]] = []

    def has_room(self, trace: Trace) -> bool:
        """Count a run that the sampler keeps; return False for an ordinary one above the limit."""
        self._ordinary += not trace.failed
        return trace.failed or self._ordinary <= MAX_RUNS

    def is_slow(self, trace: Trace) -> bool:
        return len(self._slowest) < SLOWEST or trace.seconds > self._slowest[0][0]

    def add(self, trace: Trace) -> None:
        """Take in a run that is one of the slowest so far, and release the one that is no more."""
        heapq.heappush(self._slowest, (trace.seconds, trace.span_id, trace))
        if len(self._slowest) > SLOWEST:
            _, _, released = heapq.heappop(self._slowest)
            released.sampled = False
            released.release()

    def slowest(self) -> list[Trace]:
        return [trace for _, _, trace in self._slowest]


class Outage:
    """The failures at one endpoint within a minute, as one trace.

    The first failed trace gives it the trace ID, so that the ID in the log leads to it.
    """

    def __init__(self, tracer: Tracer, endpoint: str, first: Trace) -> None:
        self._root = tracer.begin("endpoint_failures")
        if first.parent is None:
            self._root.trace_id = first.trace_id
        self._root.began_at = first.began_at
        self._root.failed = True
        self._endpoint = endpoint
        self._sessions: set[SessionKey] = set()
        self._runs = self._requests = 0

    def add(self, trace: Trace, key: SessionKey | None = None) -> bool:
        """Take in a failed run, or token request; return whether it is exported.

        A session is shown once: its retries fail in the same way.
        """
        root = self._root
        root.ended_at = trace.ended_at
        root.error, root.message = trace.error or root.error, trace.message or root.message
        if key is None:
            self._requests += 1
            is_shown = self._requests <= MAX_FAILURES
        else:
            self._runs += trace.failed
            is_shown = key not in self._sessions and len(self._sessions) < MAX_FAILURES
            self._sessions.add(key)
        if trace.parent is None and (trace.trace_id == root.trace_id or not trace.named):
            trace.trace_id, trace.parent = root.trace_id, root
        elif is_shown or trace.named:  # it has its place already: in its resync, or in the log
            trace.links.append((root.name, root.id))
            root.links.append(("failed", trace.id))
        return is_shown or trace.named

    def trace(self) -> Trace:
        """Return the trace's root, with what was counted."""
        self._root.attributes = {
            "token_reconciler.endpoint": self._endpoint,
            "token_reconciler.failed_runs": self._runs,
            "token_reconciler.failed_sessions": len(self._sessions),
            "token_reconciler.failed_requests": self._requests,
        }
        return self._root


def attributes_of(run: ReconcileRun) -> dict[str, str | int | float | bool]:
    """Return the root span's attributes; none holds a token."""
    work = run.work
    return _subject(run.key.namespace, run.pod) | {
        "token_reconciler.session.id": run.key.session_id,
        "token_reconciler.outcome": run.outcome,
        "token_reconciler.reason": run.reason,
        "token_reconciler.queued_for": ",".join(work.reasons),
        "token_reconciler.priority": work.priority.name.lower(),
        "token_reconciler.attempt": work.attempt,
        "token_reconciler.lateness_s": round(run.lateness_s, 3),
    }


def _subject(namespace: str, pod: ObjectMeta | None) -> dict[str, str | int | float | bool]:
    attributes: dict[str, str | int | float | bool] = {"k8s.namespace.name": namespace}
    if pod is not None:
        attributes |= {"k8s.pod.name": pod.name, "k8s.pod.uid": pod.uid}
    return attributes
