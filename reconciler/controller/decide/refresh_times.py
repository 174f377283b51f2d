"""When a token is renewed: arithmetic on a grid that every replica computes alike (pure).

A session's renewals fall on instants congruent to its phase modulo `GRID` x TTL, counted from the
epoch in the issuer's time. The phase comes from the pod's UID, so a new leader finds the same
instants, and a fleet whose tokens were all issued at once spreads over the whole period.
"""

import hashlib
import math

GRID = 0.4
"""The renewal period, as a fraction of the token's life."""

EARLIEST = 0.2
"""Youngest age, as a fraction of its life, at which a token is renewed. The window [0.2, 0.6) is
exactly one period long, so it holds exactly one instant of the grid."""

MIN_REMAINING = 0.8
"""A cached token with less than this fraction of its life left is not written; a new one is asked
for. A token can be written at age 0.2 at the latest, and is renewed at 0.2 at the earliest."""


def phase(uid: str) -> float:
    """Return a number in [0, 1) that depends on nothing but the UID."""
    digest = hashlib.blake2b(uid.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def refresh_at_s(issued_s: float, expires_s: float, uid: str) -> float:
    """Return the instant at which a token is to be renewed (epoch, issuer's time).

    It lies at an age of at least `EARLIEST` and less than `EARLIEST + GRID` of the token's life.
    """
    ttl_s = expires_s - issued_s
    period_s = GRID * ttl_s
    offset_s = phase(uid) * period_s
    earliest_s = issued_s + EARLIEST * ttl_s
    return offset_s + math.ceil((earliest_s - offset_s) / period_s) * period_s


def allowance_s(ttl_s: float, propagation_s: float) -> float:
    """Return how much life must be left in a Secret for its pod to see it in time.

    With tokens so short that the kubelet's own pace cannot serve them, the pod is touched at each
    renewal instead, and only the window after the latest renewal counts: otherwise a token just
    written would be due at once.
    """
    return min(propagation_s, (1 - EARLIEST - GRID) * ttl_s)


def slack_s(ttl_s: float, propagation_s: float) -> float:
    """Return how long a fault may last before anybody notices, without a spare token."""
    return (1 - EARLIEST - GRID) * ttl_s - propagation_s
