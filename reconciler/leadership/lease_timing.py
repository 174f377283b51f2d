"""How long a lease holds, and the margins by which a holder stops before its end (pure).

All instants are seconds on one replica's monotonic clock: CLOCK_BOOTTIME, see `clock.SystemClock`.
It never steps, but Linux runs it at the rate to which a time service sets the system's clock. While
chronyd corrects an offset that rate is off by up to a twelfth, and the kernel accepts a tenth and
500 ppm, so that two nodes may differ by a fifth for as long as the correction takes.

So no write leaves after `LeaseHold.expires_at`, which allows for `SLEW` on both nodes. The default
deadline of 10 s of 15 s allows for a fifth on each node and ends a hold before that, as long as the
elector runs. `LeaseHold.answers_until` allows only for `DRIFT`, as `SLEW` would leave less than the
time limit of a write between two renewals: while clocks are slewed, a write that left in time may
be applied up to 3 s after a successor's first one. Its preconditions refuse it then.

CLOCK_MONOTONIC_RAW is not slewed, and not used: it stops while the machine is suspended, in which
time a lease ends. No clock has both properties, and a difference of two is not read in one step.

Sources: chrony.conf(5), maxslewrate: 83333.333 ppm, on Linux at most 100000 ppm; adjtimex(2): tick
from 900000/HZ to 1100000/HZ, freq up to 500 ppm; clock_gettime(2).
"""

import msgspec

from reconciler.clock import Instant

SLEW = 0.102
"""Largest error of a clock's rate: the kernel's limit while a clock is slewed is 0.1005, and
adjtime(3) may add 500 ppm. A crystal is off by 100 ppm."""

DRIFT = 0.01
"""Largest error of the rate of a clock that is not slewed to correct an offset: ntpd corrects its
frequency by 500 ppm at most."""

MAX_LEASE_S = 150
"""No setting allows a longer lease: a longer duration was edited by hand, and the holder of such a
Lease renews it within seconds if it still runs."""

MAX_EDITED_FRACTION = 1 / 6
"""Longest wait for a duration that was edited by hand, as a fraction of a token's lifetime: the
longest lease that leaves time for several takeovers within the slack."""


class ElectionTiming(msgspec.Struct, frozen=True):
    """Seconds; `Settings` has defaults and reasons. Source of the three: client-go."""

    lease_s: int = 15
    deadline_s: float = 10.0
    retry_s: float = 2.0

    @property
    def margin_s(self) -> float:
        """Writes stop this long before the lease's end: a slow clock against a fast one."""
        return 2 * SLEW * self.lease_s

    @property
    def answer_margin_s(self) -> float:
        """Answers are no longer waited for from this long before the lease's end."""
        return 2 * DRIFT * self.lease_s

    @property
    def request_s(self) -> float:
        """Longest wait for one answer: two tries fit into the deadline. Source: client-go."""
        return self.deadline_s / 2


class LeaseHold(msgspec.Struct, frozen=True):
    """This replica holds the Lease.

    Args:
        renewed_at: When the last applied renewal was sent, read from the clock before sending.
        expires_at: No write may leave later.
        answers_until: No write may start whose time limit ends later.
    """

    transitions: int
    renewed_at: Instant
    expires_at: Instant
    answers_until: Instant


def hold_from(transitions: int, sent_at: Instant, timing: ElectionTiming) -> LeaseHold:
    """Return the hold that follows from an applied write that was sent at `sent_at`."""
    ends_at = sent_at + timing.lease_s
    return LeaseHold(
        transitions, sent_at, ends_at - timing.margin_s, ends_at - timing.answer_margin_s
    )


def expires_at(hold: LeaseHold, timing: ElectionTiming) -> Instant:
    """Return when a hold that is not renewed ends, even with a request in flight."""
    return min(hold.renewed_at + timing.deadline_s, hold.expires_at)
