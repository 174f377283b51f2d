"""How late the event loop runs its timers: the watchdog of the main loop."""

import asyncio
import time
from collections.abc import Callable

from reconciler.telemetry import metrics
from reconciler.telemetry.registry import MetricsRegistry

INTERVAL_S = 0.02
"""Time between two timers of a busy loop: a callback that blocks it for L seconds is seen as L less
this at the least."""

IDLE_INTERVAL_S = 0.25
"""The same of an idle loop: to wake it fifty times a second took half of the CPU of a leader with
nothing to do."""

BUSY_S = 0.002
"""CPU of the loop between two timers from which on it is busy: a tenth of `INTERVAL_S`."""


class LoopLag:
    """Measures, from `start` to `close`, how much later than due a timer of the loop runs.

    While the loop is blocked no timer runs: one stall is one observation.

    Args:
        cpu_s: Returns the CPU seconds that the loop's thread has used.
    """

    def __init__(
        self, registry: MetricsRegistry, *, cpu_s: Callable[[], float] = time.thread_time
    ) -> None:
        self._registry = registry
        self._cpu_s = cpu_s
        self._used_s = 0.0
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
        before_s, self._used_s = self._used_s, self._cpu_s()
        wait_s = INTERVAL_S if self._used_s - before_s >= BUSY_S else IDLE_INTERVAL_S
        self._timer = loop.call_later(wait_s, self._measure, loop, now_at + wait_s)
