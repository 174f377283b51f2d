"""Which traces are kept: every failure, every slow one, and a share of the rest (pure)."""

from reconciler.trace import Trace

SLOW_S = 0.5
"""What takes so long is worth a look; where most runs do, what is slower than their p95."""

RATIO = 0.05
"""Share of healthy traces that are kept unless OTEL_TRACES_SAMPLER says otherwise: one in twenty
shows what is normal, and all of them would cost a third of what they show."""

_MASK = (1 << 64) - 1


class Sampler:
    """Decides when a trace has ended, which is when its worth is known.

    Args:
        ratio: Share of the ordinary ones that is kept, 0..1, chosen by the trace's number alone, so
            that other services that follow the same rule keep the same ones.
            Source: OpenTelemetry specification, TraceIdRatioBased.
    """

    def __init__(self, ratio: float) -> None:
        self._bound = round(ratio * (_MASK + 1))

    def keeps(self, trace: Trace) -> bool:
        if trace.failed or trace.seconds > max(SLOW_S, trace.usual_s):
            return True
        return trace.trace_id & _MASK < self._bound
