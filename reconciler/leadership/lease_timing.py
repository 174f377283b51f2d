"""How long a lease holds, and the margin by which a holder stops before its end (pure).

All instants are seconds on one replica's monotonic clock.
"""

from dataclasses import dataclass

from reconciler.clock import Instant

DRIFT = 0.01
"""Largest error of a clock's rate that the rules tolerate; NTP slews by 0.05 % at most."""

MAX_LEASE_S = 150
"""No setting allows a longer lease: a longer duration was edited by hand, and the holder of such a
Lease renews it within seconds if it still runs."""

MAX_EDITED_FRACTION = 1 / 6
"""Longest wait for a duration that was edited by hand, as a fraction of a token's lifetime: the
longest lease that leaves time for several takeovers within the slack."""


@dataclass(frozen=True, slots=True)
class ElectionTiming:
    """Seconds; `Settings` has defaults and reasons. Source of the three: client-go."""

    lease_s: int = 15
    deadline_s: float = 10.0
    retry_s: float = 2.0

    @property
    def margin_s(self) -> float:
        """Validity ends this long before the lease: a slow clock against a fast one."""
        return 2 * DRIFT * self.lease_s

    @property
    def request_s(self) -> float:
        """Longest wait for one answer: two tries fit into the deadline. Source: client-go."""
        return self.deadline_s / 2


@dataclass(frozen=True, slots=True)
class LeaseHold:
    """This replica holds the Lease.

    Args:
        renewed_at: When the last applied renewal was sent, read from the clock before sending.
        expires_at: No write may start later.
    """

    transitions: int
    renewed_at: Instant
    expires_at: Instant


def hold_from(transitions: int, sent_at: Instant, timing: ElectionTiming) -> LeaseHold:
    """Return the hold that follows from an applied write that was sent at `sent_at`."""
    valid_until = sent_at + timing.lease_s - timing.margin_s
    return LeaseHold(transitions, sent_at, valid_until)


def expires_at(hold: LeaseHold, timing: ElectionTiming) -> Instant:
    """Return when a hold that is not renewed ends, even with a request in flight."""
    return min(hold.renewed_at + timing.deadline_s, hold.expires_at)
