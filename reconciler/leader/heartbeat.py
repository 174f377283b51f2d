"""A sign of life from one event loop that another thread can read."""

import asyncio

from reconciler.clock import Clock

BEAT_S = 0.5


class Heartbeat:
    """Beats while the loop that runs it turns; written there, read anywhere."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._beat_at = clock.monotonic()

    async def run(self) -> None:
        while True:
            self._beat_at = self._clock.monotonic()
            await asyncio.sleep(BEAT_S)

    def age_s(self) -> float:
        """Return the seconds since the last beat."""
        return self._clock.monotonic() - self._beat_at
