"""The grid of scheduled refreshes: instants that every replica computes alike (pure).

`refresh_plan.py` decides by them, and by all else that makes a token due.

A session's refreshes are at instants congruent to its phase modulo `GRID` x TTL, counted from the
epoch in the issuer's time. The phase is derived from the pod's UID. So a new leader computes the
same instants, and a fleet of tokens that were issued at once spreads over the whole period.
"""

import hashlib
import math

from reconciler.clock import EpochTime

GRID = 0.4
"""The refresh period, as a fraction of the token's lifetime."""

EARLIEST = 0.2
"""Youngest age, as a fraction of its lifetime, at which a token is refreshed. The window [0.2, 0.6)
is exactly one period long, so that it contains exactly one scheduled instant."""

MIN_REMAINING = 0.8
"""A cached token with less than this fraction of its lifetime left is not written; a new one is
requested. A token is written at age 0.2 at the latest, and refreshed at 0.2 at the earliest."""


def phase(uid: str) -> float:
    """Return a number in [0, 1) that depends only on the UID."""
    digest = hashlib.blake2b(uid.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def refresh_at_s(issued_s: EpochTime, expires_s: EpochTime, uid: str) -> EpochTime:
    """Return when to refresh a token (epoch, issuer's time).

    The age is at least `EARLIEST` and less than `EARLIEST + GRID` of the token's lifetime.

    The period of a token of 900 s is 360 s. Two pods refresh at different instants of it:

    >>> round(refresh_at_s(EpochTime(0), EpochTime(900), "pod-1"))
    200
    >>> round(refresh_at_s(EpochTime(200), EpochTime(1100), "pod-1"))
    560
    >>> round(refresh_at_s(EpochTime(0), EpochTime(900), "pod-2"))
    413
    """
    ttl_s = expires_s - issued_s
    period_s = GRID * ttl_s
    first_s = EpochTime(phase(uid) * period_s)
    earliest_s = issued_s + EARLIEST * ttl_s
    return first_s + math.ceil((earliest_s - first_s) / period_s) * period_s


def allowance_s(ttl_s: float, propagation_s: float) -> float:
    """Return the remaining lifetime that a Secret needs so that its pod sees it in time.

    For tokens that are too short for the kubelet's sync period the pod is touched at each refresh,
    and only the window after the latest refresh counts: otherwise a token just written would be
    due at once.
    """
    return min(propagation_s, (1 - EARLIEST - GRID) * ttl_s)


def slack_s(ttl_s: float, propagation_s: float) -> float:
    """Return how long a fault may last before a runner is affected, without a standby token."""
    return (1 - EARLIEST - GRID) * ttl_s - propagation_s
