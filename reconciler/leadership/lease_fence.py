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
        self._valid_until: Instant = LONG_AGO

    @property
    def is_open(self) -> bool:
        return self._clock.monotonic() < self._valid_until

    @property
    def has_lapsed(self) -> bool:
        return not self.is_open and self._clock.monotonic() >= self.ends_at

    def open(self, term: str, valid_until: Instant) -> None:
        """Allow writes that end before `valid_until`, in the name of `term`."""
        self.term = term
        self._valid_until = valid_until

    def close(self) -> None:
        """Allow no write from now on."""
        self._valid_until = LONG_AGO

    def may_write(self, need_s: float) -> bool:
        """Return whether a write that may take `need_s` may start; a refusal is counted."""
        if self._clock.monotonic() + need_s < self._valid_until:
            return True
        self.fenced_total += 1
        return False

    def check(self) -> None:
        """Raise `NotLeaderError`, and count it, unless the Lease is valid at this moment."""
        if not self.is_open:
            self.fenced_total += 1
            raise NotLeaderError("this replica's lease has ended")
