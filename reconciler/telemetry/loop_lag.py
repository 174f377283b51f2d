"""How late the event loop runs its timers: the watchdog of the main loop."""

import asyncio

from reconciler.telemetry import metrics
from reconciler.telemetry.registry import MetricsRegistry

INTERVAL_S = 0.02
"""Time between two timers: a callback that blocks the loop for L seconds is seen as L less this at
the least. Fifty timers a second take 0.1 % of a core."""


class LoopLag:
    """Measures, from `start` to `close`, how much later than due a timer of the loop runs.

    While the loop is blocked no timer runs: one stall is one observation.
    """

    def __init__(self, registry: MetricsRegistry) -> None:
        self._registry = registry
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Measure the running loop."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(INTERVAL_S, self._measure, loop, loop.time() + INTERVAL_S)

    def close(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _measure(self, loop: asyncio.AbstractEventLoop, due_at: float) -> None:
        now_at = loop.time()
        self._registry.observe(metrics.LOOP_LAG, max(0.0, now_at - due_at))
        self._timer = loop.call_later(INTERVAL_S, self._measure, loop, now_at + INTERVAL_S)
