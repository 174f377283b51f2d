"""One shared view of whether an endpoint is there, and one shared probe while it is not."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from reconciler.clock import Clock
from reconciler.errors import RemoteError

PROBE_S = 2.0
"""Longest wait between probes: an outage's end must be noticed in seconds, not at the end of the
back-off that thousands of callers would otherwise each run."""

THRESHOLD = 3
"""Failures without a success between them that count as an outage; one reset is none."""


@dataclass(frozen=True, slots=True)
class BreakerStats:
    """`down_for_s` is 0.0 while the endpoint is up; `outages_total` counts up to down."""

    name: str
    down: bool
    down_for_s: float
    outages_total: int
    last_error: str


class Breaker:
    """Counts an endpoint's failures; while it is down callers wait here instead of asking it.

    Any success, a probe's or a caller's, closes it at once and wakes all who wait.
    """

    def __init__(self, name: str, clock: Clock, random: Random) -> None:
        self.name = name
        self._clock = clock
        self._random = random
        self._failures = 0
        self._down_at: float | None = None
        self._outages = 0
        self._last_error = ""
        self._up = asyncio.Event()
        self._up.set()
        self._down = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def is_down(self) -> bool:
        return self._down_at is not None

    def on_recovery(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called, on the loop, each time the endpoint comes back.

        Returns: What ends it; to be called once.
        """
        self._listeners.append(callback)
        return partial(self._listeners.remove, callback)

    def succeeded(self) -> None:
        """Record an answer of any kind that shows the endpoint alive."""
        self._failures = 0
        if self._down_at is None:
            return
        self._down_at = None
        self._down.clear()
        self._up.set()
        for callback in tuple(self._listeners):
            callback()

    def failed(self, error: RemoteError) -> None:
        """Record that the endpoint was away or failing; `THRESHOLD` in a row open the breaker."""
        self._failures += 1
        self._last_error = str(error)
        if self._down_at is None and self._failures >= THRESHOLD:
            self._down_at = self._clock.monotonic()
            self._outages += 1
            self._up.clear()
            self._down.set()

    async def wait_up(self) -> None:
        """Return at once while the endpoint is up, else when it is back."""
        await self._up.wait()

    async def probe_while_down(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Run for ever: while down, ask `probe` every `PROBE_S` at most; its success closes.

        Cancel: nothing is left behind; the state stays as it was.
        """
        while True:
            await self._down.wait()
            await asyncio.sleep(PROBE_S * self._random.uniform(0.5, 1.0))
            if not self.is_down:
                continue
            try:
                await probe()
            except RemoteError as error:
                if error.transient:
                    self._last_error = str(error)
                    continue
            self.succeeded()

    def stats(self) -> BreakerStats:
        down_for_s = 0.0 if self._down_at is None else self._clock.monotonic() - self._down_at
        return BreakerStats(self.name, self.is_down, down_for_s, self._outages, self._last_error)

    def __repr__(self) -> str:
        return f"<Breaker {self.name} {'down' if self.is_down else 'up'}>"
