"""Traces of our own: names and instants of one piece of work, for logs, metrics and OTLP spans.

Recording costs a microsecond a span, and needs no OpenTelemetry. `otlp_spans` builds
OpenTelemetry's spans later, and only for the few traces that are kept.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from random import Random
from types import TracebackType
from typing import NamedTuple, Self

from reconciler.clock import Clock, Instant
from reconciler.errors import ReconcilerError

MAX_SPANS = 64
"""Most spans kept of one trace; a resync of a thousand projects would have thousands."""

HEADER = "traceparent"
"""Source: W3C Trace Context, 3.2."""

UNSET_AT = Instant(0)
"""Begin and end of a span before they are known; exporters need a finite number."""

_CURRENT: ContextVar["Span | None"] = ContextVar("reconciler_span", default=None)


def hex_id(trace_id: int) -> str:
    """Return a trace's ID in hexadecimal digits. Source: W3C Trace Context, 3.2.2.3."""
    return f"{trace_id:032x}"


class SpanId(NamedTuple):
    """The IDs by which another trace links to a span: 128 and 64 bits, neither of them zero."""

    trace_id: int
    span_id: int


class Span:
    """One part of a trace, open while its `with` block runs; spans begun inside are its children.

    Args:
        target: The object of the work; never holds a token.
        method: The HTTP method, where the work is one request; else "".

    `url` is the last address that the request was sent to, and `resends` how often it was sent
    again there; `status` is the HTTP status of the answer, 0 without one. `error` is the class of
    what ended the work, `message` its text.
    """

    __slots__ = (
        "_monotonic", "_span_id", "_token", "_trace", "began_at", "ended_at", "error", "message",
        "method", "name", "parent", "resends", "status", "target", "url",
    )  # fmt: skip

    def __init__(
        self,
        trace: "Trace | None",
        monotonic: Callable[[], Instant],
        name: str,
        target: str,
        parent: "Span | None",
        method: str = "",
    ) -> None:
        self._trace = trace
        self._monotonic = monotonic
        self.name = name
        self.target = target
        self.parent = parent
        self.method = method
        self.began_at = self.ended_at = UNSET_AT
        self.status = self.resends = self._span_id = 0
        self.url = self.error = self.message = ""
        self._token: Token[Span | None] | None = None

    def __enter__(self) -> Self:
        self._token = _CURRENT.set(self)
        self.began_at = self._monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ended_at = self._monotonic()
        if self._token is not None:
            _CURRENT.reset(self._token)
            self._token = None
        if error is not None:
            self.status = self.status or getattr(error, "status", 0)
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Record what ended the work."""
        self.error = type(error).__name__
        if isinstance(error, ReconcilerError):  # another error may quote a header
            self.message = str(error)

    def send_to(self, url: str) -> None:
        """Record that the request is sent to `url`; a second call records that it is sent again."""
        self.resends += bool(self.url)
        self.url = url

    @property
    def trace(self) -> "Trace":
        """The trace that this span belongs to."""
        assert self._trace is not None  # noqa: S101 - None only for the trace itself
        return self._trace

    @property
    def seconds(self) -> float:
        return self.ended_at - self.began_at

    @property
    def span_id(self) -> int:
        """The span's ID, made at the first use: most spans are never exported."""
        if not self._span_id:
            self._span_id = self.trace.tracer.new_id(64)
        return self._span_id

    def __repr__(self) -> str:
        failed = f" {self.error}" if self.error else ""
        return f"<{type(self).__name__} {self.name}{failed} {self.seconds * 1000:.1f} ms>"


class Trace(Span):
    """The outermost span; the tracer's listeners get it when its block ends.

    `queued_at` is when the work was due (monotonic), `p95_s` how long such work takes at the 95th
    percentile (0.0 = unknown); `attributes` are those of the trace, `links` the spans that caused
    it, each with the reason. `parent` is the resync, or the outage, whose trace it is part of.
    `failed_at` is the endpoint at which a request of it failed, "" for none; `named` whether a
    warning of the log names it.
    """

    __slots__ = (
        "attributes",
        "dropped_spans",
        "failed",
        "failed_at",
        "links",
        "named",
        "p95_s",
        "queued_at",
        "sampled",
        "spans",
        "trace_id",
        "tracer",
    )  # fmt: skip

    def __init__(
        self, tracer: "Tracer", name: str, queued_at: Instant | None, parent: "Trace | None" = None
    ) -> None:
        super().__init__(None, tracer.monotonic, name, "", parent)
        self.tracer = tracer
        self.trace_id: int = tracer.new_id(128) if parent is None else parent.trace_id
        self.queued_at = queued_at
        self.p95_s = 0.0
        self.failed = self.sampled = self.named = False
        self.failed_at = ""
        self.spans: list[Span] = []
        self.dropped_spans = 0
        self.attributes: dict[str, str | int | float | bool] = {}
        self.links: list[tuple[str, SpanId]] = []

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        self.failed = self.failed or kind is not None

    @property
    def trace(self) -> "Trace":
        return self

    def release(self) -> None:
        """Drop the spans, which refer back to the trace, unless the trace is kept.

        Otherwise each run would be garbage in a cycle; the cycle collector runs seldom and stalls
        the process.
        """
        if not self.sampled:
            self.spans = []

    @property
    def is_resync(self) -> bool:
        """Whether `Tracer.begin_resync` made it."""
        return self.name.endswith("resync")

    @property
    def id(self) -> SpanId:
        return SpanId(self.trace_id, self.span_id)

    @property
    def hex_id(self) -> str:
        """The trace ID as logs and Jaeger show it."""
        return hex_id(self.trace_id)

    def add(self, name: str, target: str, parent: Span, method: str = "") -> Span | None:
        """Return a new span, or None where the trace has `MAX_SPANS` already."""
        if len(self.spans) >= MAX_SPANS:
            self.dropped_spans += 1
            return None
        span = Span(self, self._monotonic, name, target, parent, method)
        self.spans.append(span)
        return span


class Tracer:
    """Begins traces and passes the ended ones to its listeners.

    Args:
        random: The generator of IDs. No decision uses it, so that tracing changes no behaviour.

    `causes` holds the latest resync of each kind, by the reason with which it queues runs. A run
    that begins while its resync is open is part of that trace; a later one links to it.
    """

    def __init__(self, clock: Clock, random: Random) -> None:
        self.monotonic = clock.monotonic
        self.wall = clock.wall
        self.causes: dict[str, SpanId] = {}
        self._resyncs: dict[str, Trace] = {}
        self._listeners: list[Callable[[Trace], None]] = []
        self._random = random

    @property
    def is_recorded(self) -> bool:
        """Whether a listener may keep a trace; the sampled flag of `traceparent` says so."""
        return bool(self._listeners)

    def on_end(self, callback: Callable[[Trace], None]) -> None:
        """Call `callback` with each trace that ends through `end`."""
        self._listeners.append(callback)

    def begin(
        self, name: str, *, queued_at: Instant | None = None, reasons: tuple[str, ...] = ()
    ) -> Trace:
        """Return a trace, to enter with `with` and to pass to `end` after that.

        Args:
            reasons: Why a run was queued.
        """
        parent = None
        if self._resyncs:
            for reason in reasons:
                if (parent := self._resyncs.get(reason)) is not None:
                    break
        return Trace(self, name, queued_at, parent)

    def begin_resync(self, name: str, *reasons: str) -> Trace:
        """Return the trace of a resync that queues runs with these reasons."""
        trace = Trace(self, name, None)
        for reason in reasons:
            self.causes[reason], self._resyncs[reason] = trace.id, trace
        return trace

    def end(self, trace: Trace) -> None:
        """Pass a trace to the listeners, after its block has ended."""
        self._resyncs = {key: one for key, one in self._resyncs.items() if one is not trace}
        for listener in self._listeners:
            listener(trace)

    def new_id(self, bits: int) -> int:
        """Return a random number of `bits` bits that is not zero."""
        return self._random.getrandbits(bits) or 1


def span(name: str, target: str = "", method: str = "") -> AbstractContextManager[Span | None]:
    """Return a new span of the current trace; without a trace a context that does nothing.

    Args: As of `Span`.
    """
    parent = _CURRENT.get()
    if parent is None:
        return nullcontext()
    return parent.trace.add(name, target, parent, method) or nullcontext()


def current() -> Span | None:
    """Return the innermost open span of this task, or None."""
    return _CURRENT.get()


def request_span() -> Span | None:
    """Return the innermost open span if its work is one request, else None."""
    innermost = _CURRENT.get()
    return innermost if innermost is not None and innermost.method else None


def traceparent() -> dict[str, str]:
    """Return the header by which a peer joins its spans to ours; empty outside of a trace."""
    innermost = _CURRENT.get()
    if innermost is None:
        return {}
    flags = int(innermost.trace.tracer.is_recorded)
    return {HEADER: f"00-{innermost.trace.trace_id:032x}-{innermost.span_id:016x}-{flags:02x}"}
