"""The write fence: open while this replica holds the Lease for long enough; any thread may ask."""

from reconciler.clock import LONG_AGO, NEVER, Clock, Instant
from reconciler.errors import NotLeaderError


class LeaseFence:
    """Implements `leadership.api.WriteFence`; `holder`, `transitions` and `ends_at`, the end of the
    observed Lease, are the elector's latest.

    The elector's thread opens, extends and closes the fence, the main loop asks it. Each side reads
    or writes one reference, which is atomic. The answer depends on the clock alone, so that the
    fence closes on time even if its elector hangs.
    """

    def __init__(self, clock: Clock, replica: str) -> None:
        self.term = replica
        self.holder = ""
        self.transitions = 0
        self.fenced_total = 0
        self.ends_at: Instant = NEVER
        self._clock = clock
        # Until when writes may leave, and until when their answers may be waited for.
        self._limits: tuple[Instant, Instant] = (LONG_AGO, LONG_AGO)

    @property
    def is_open(self) -> bool:
        return self._clock.monotonic() < self._limits[0]

    @property
    def has_lapsed(self) -> bool:
        return not self.is_open and self._clock.monotonic() >= self.ends_at

    def open(self, term: str, valid_until: Instant, answers_until: Instant) -> None:
        """Allow writes that leave before `valid_until` and end before `answers_until`.

        Args:
            term: The writer's name.
        """
        self.term = term
        self._limits = valid_until, answers_until

    def close(self) -> None:
        """Allow no write from now on."""
        self._limits = (LONG_AGO, LONG_AGO)

    def may_write(self, need_s: float) -> bool:
        """Return whether a write that may take `need_s` may start; a refusal is counted."""
        now_at, (valid_until, answers_until) = self._clock.monotonic(), self._limits
        if now_at < valid_until and now_at + need_s < answers_until:
            return True
        self.fenced_total += 1
        return False

    def check(self) -> None:
        """Raise `NotLeaderError`, and count it, unless the Lease is valid at this moment."""
        if not self.is_open:
            self.fenced_total += 1
            raise NotLeaderError("this replica's lease has ended")
