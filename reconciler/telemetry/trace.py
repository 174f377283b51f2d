"""What happened during one piece of work, as instants: logs, metrics and spans are made of it.

Recording costs a microsecond a step; nothing here knows of OpenTelemetry. Spans are built
afterwards, elsewhere, and only for the few traces that are kept.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from random import Random
from types import TracebackType
from typing import NamedTuple, Self

from reconciler.clock import Clock

MAX_STEPS = 64
"""Steps kept of one trace; a resync of a thousand projects has thousands, and nobody reads them."""

HEADER = "traceparent"
"""Source: W3C Trace Context, 3.2."""

_CURRENT: ContextVar["Span | None"] = ContextVar("reconciler_step", default=None)


class SpanId(NamedTuple):
    """What another trace may link to: 128 and 64 bits, neither of them zero."""

    trace_id: int
    span_id: int


class Span:
    """One part of a trace, open while its `with` block runs; what is begun inside is its child.

    Args:
        target: The object or address that it was about; never holds a token.

    `status` is the HTTP status of an answer, 0 without one; `error` the class of what ended it.
    """

    __slots__ = (
        "_span_id", "_token", "_trace", "began_at", "ended_at", "error", "name", "parent", "status",
        "target",
    )  # fmt: skip

    def __init__(
        self, trace: "Trace | None", name: str, target: str, parent: "Span | None"
    ) -> None:
        self._trace = trace
        self.name = name
        self.target = target
        self.parent = parent
        self.began_at = self.ended_at = 0.0
        self.status = 0
        self.error = ""
        self._span_id = 0
        self._token: Token[Span | None] | None = None

    def __enter__(self) -> Self:
        self._token = _CURRENT.set(self)
        self.began_at = self.trace.tracer.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ended_at = self.trace.tracer.monotonic()
        if self._token is not None:
            _CURRENT.reset(self._token)
            self._token = None
        if kind is not None:
            self.error = kind.__name__
            self.status = self.status or getattr(error, "status", 0)

    @property
    def trace(self) -> "Trace":
        """The whole that this is a part of."""
        assert self._trace is not None  # noqa: S101 - None only for the whole itself
        return self._trace

    @property
    def seconds(self) -> float:
        return self.ended_at - self.began_at

    @property
    def span_id(self) -> int:
        """Its number, drawn when somebody first asks for it: most steps are never told of."""
        if not self._span_id:
            self._span_id = self.trace.tracer.new_id(64)
        return self._span_id

    def __repr__(self) -> str:
        failed = f" {self.error}" if self.error else ""
        return f"<{type(self).__name__} {self.name}{failed} {self.seconds * 1000:.1f} ms>"


class Trace(Span):
    """The outermost step; the tracer's listeners get it when its block ends.

    `queued_at` is when it could have begun (monotonic), `usual_s` what such work takes as a rule
    (0.0 = unknown); `facts` are attributes of the whole, `links` what caused it.
    """

    __slots__ = (
        "dropped_steps",
        "facts",
        "failed",
        "kept",
        "links",
        "queued_at",
        "steps",
        "trace_id",
        "tracer",
        "usual_s",
    )  # fmt: skip

    def __init__(self, tracer: "Tracer", name: str, queued_at: float | None) -> None:
        super().__init__(None, name, "", None)
        self.tracer = tracer
        self.trace_id = tracer.new_id(128)
        self.queued_at = queued_at
        self.usual_s = 0.0
        self.failed = False
        self.kept = False
        self.steps: list[Span] = []
        self.dropped_steps = 0
        self.facts: dict[str, str | int | float | bool] = {}
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
        """Let go of the steps, which point back here, unless somebody keeps the trace.

        Otherwise each run would be left to the collector of cycles, which runs seldom and stalls.
        """
        if not self.kept:
            self.steps = []

    @property
    def id(self) -> SpanId:
        return SpanId(self.trace_id, self.span_id)

    @property
    def hex_id(self) -> str:
        """The trace's number as logs and Jaeger show it."""
        return f"{self.trace_id:032x}"

    def add(self, name: str, target: str, parent: Span) -> Span | None:
        """Return a new step, or None where there are too many already."""
        if len(self.steps) >= MAX_STEPS:
            self.dropped_steps += 1
            return None
        step = Span(self, name, target, parent)
        self.steps.append(step)
        return step


class Tracer:
    """Begins traces and hands the ended ones on.

    Args:
        random: Of numbers only; apart from the generator that decides anything, so that looking
            on changes nothing.

    `listeners` are called with each trace that ends through `end`; `is_recorded` says whether any
    of them may keep it, which is what a `traceparent` tells the peers.
    """

    def __init__(self, clock: Clock, random: Random) -> None:
        self.monotonic = clock.monotonic
        self.wall = clock.wall
        self.is_recorded = False
        self.listeners: list[Callable[[Trace], None]] = []
        self._random = random

    def begin(self, name: str, *, queued_at: float | None = None) -> Trace:
        """Return a trace to be entered with `with` and given to `end` after it."""
        return Trace(self, name, queued_at)

    def end(self, trace: Trace) -> None:
        """Tell the listeners of a trace whose block has ended."""
        for listener in self.listeners:
            listener(trace)

    def new_id(self, bits: int) -> int:
        """Return a random number of so many bits that is not zero."""
        return self._random.getrandbits(bits) or 1


def step(name: str, target: str = "") -> AbstractContextManager[Span | None]:
    """Begin a step of whatever is traced here; where nothing is, do nothing."""
    parent = _CURRENT.get()
    if parent is None:
        return nullcontext()
    return parent.trace.add(name, target, parent) or nullcontext()


def current() -> Span | None:
    """Return the innermost open step of this task, or None."""
    return _CURRENT.get()


def traceparent() -> dict[str, str]:
    """Return the header that lets a peer join its own spans to ours; empty outside of a trace."""
    step = _CURRENT.get()
    if step is None:
        return {}
    flags = int(step.trace.tracer.is_recorded)
    return {HEADER: f"00-{step.trace.trace_id:032x}-{step.span_id:016x}-{flags:02x}"}
