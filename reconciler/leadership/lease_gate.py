"""The write fence: open while the Lease is ours for long enough; asked from any thread."""

import math

from reconciler.clock import Clock
from reconciler.errors import NotLeaderError


class LeaseFence:
    """Implements `control.fence.Gate`; `holder` and `transitions` are what the elector saw last.

    The elector's thread opens, extends and closes it, the main loop asks. Each side reads or writes
    one reference, which is atomic; the answer depends on the clock alone, so that a fence whose
    elector stands still closes by itself.
    """

    def __init__(self, clock: Clock, replica: str) -> None:
        self.term = replica
        self.holder = ""
        self.transitions = 0
        self.fenced_total = 0
        self._clock = clock
        self._valid_until = -math.inf

    @property
    def is_open(self) -> bool:
        return self._clock.monotonic() < self._valid_until

    def open(self, term: str, valid_until: float) -> None:
        """Let writes through that end before `valid_until`, in the name of `term`."""
        self.term = term
        self._valid_until = valid_until

    def close(self) -> None:
        """Let nothing through from now on."""
        self._valid_until = -math.inf

    def may_write(self, need_s: float) -> bool:
        """Tell whether a write that may take `need_s` may start; a refusal is counted."""
        if self._clock.monotonic() + need_s < self._valid_until:
            return True
        self.fenced_total += 1
        return False

    def check(self) -> None:
        """Raise `NotLeaderError`, and count it, unless the Lease is valid at this moment."""
        if not self.is_open:
            self.fenced_total += 1
            raise NotLeaderError("this replica's lease has ended")
