"""The I/O of `AdaptiveLimit`: the waiting tasks and the clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reconciler.clock import Clock
from reconciler.platform.adaptive_limit import AdaptiveLimit, RequestKind


class Turn:
    """The turn of one request; the caller sets `failed` if the request failed."""

    failed = False


class Limiter:
    """Lets requests run, as many at one time as the limit allows.

    Args:
        most: See `AdaptiveLimit`.
    """

    def __init__(self, clock: Clock, *, most: int) -> None:
        self._clock = clock
        self.limit: AdaptiveLimit[asyncio.Future[None]] = AdaptiveLimit(most)

    @asynccontextmanager
    async def turn(self, kind: RequestKind) -> AsyncIterator[Turn]:
        """Wait for a turn; it lasts to the end of the block.

        Cancel: the turn goes to the next waiter.
        """
        waiter = asyncio.get_running_loop().create_future()
        self.limit.ask(waiter, kind)
        self._admit()
        try:
            await waiter
        except asyncio.CancelledError:
            if not self.limit.drop(waiter):
                self.limit.given_up()
                self._admit()
            raise
        turn, began_at = Turn(), self._clock.monotonic()
        is_over = False
        try:
            yield turn
            is_over = True
        except Exception:
            turn.failed = is_over = True
            raise
        finally:
            if is_over:
                now_at = self._clock.monotonic()
                self.limit.ended(began_at=began_at, now_at=now_at, failed=turn.failed)
            else:  # cancelled
                self.limit.given_up()
            self._admit()

    def _admit(self) -> None:
        for waiter in self.limit.admit():
            if not waiter.done():
                waiter.set_result(None)
