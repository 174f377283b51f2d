"""The lease rules (pure): what to do next, from what was observed and when.

All instants are seconds on one replica's monotonic clock. Clocks of different replicas are never
compared. The rules rely on one fact: the rates of these clocks are off by no more than `SLEW`.

Why no two replicas may write at once: the holder counts its validity from before it sent the last
write that was applied. A standby counts the holder's own duration from when it observed that very
version, which is later, and its write fails unless that version is still the last. `margin_s` is
subtracted from the holder's validity to allow for clocks of different rates.
"""

import math

import msgspec
from msgspec.structs import replace

from reconciler.clock import LONG_AGO, NEVER, Instant
from reconciler.kube.api import has_reached
from reconciler.leadership.lease import Identity, LeaseRecord, is_same_write
from reconciler.leadership.lease_timing import (
    MAX_EDITED_FRACTION,
    MAX_LEASE_S,
    ElectionTiming,
    LeaseHold,
    expires_at,
)


class ObservedLease(msgspec.Struct, frozen=True):
    """The Lease as last observed.

    Args:
        record: None if there is no Lease.
        version: Resource version of what was observed.
        at: When the holder's write in this version was first observed; other clients' edits since
            then changed nothing of it.
        expires_at: Latest time at which the last holder's lease ends, as far as observed.
        transitions: The last count that was observed, -1 before any.
        first: Nothing was observed before.
        edited_until: When a lease with a duration that was edited by hand ends; `lease_end` limits
            how much of that counts. The holder's own lease ends at `expires_at`.
        edited_at: When that was observed.
    """

    record: LeaseRecord | None
    version: str
    at: Instant
    expires_at: Instant
    transitions: int
    first: bool
    edited_until: Instant = LONG_AGO
    edited_at: Instant = LONG_AGO


class Wait(msgspec.Struct, frozen=True):
    """Nothing to do before `until`, unless something else is observed."""

    until: Instant


class Acquire(msgspec.Struct, frozen=True):
    """Try to become the holder of this version, or of a new Lease, with `transitions` in it."""

    record: LeaseRecord | None
    transitions: int


class Renew(msgspec.Struct, frozen=True):
    """Write the same holder again."""

    record: LeaseRecord


class Lost(msgspec.Struct, frozen=True):
    """This replica no longer holds the Lease; `reason` in a few words."""

    reason: str


Decision = Wait | Acquire | Renew | Lost


def observe(
    old: ObservedLease | None,
    record: LeaseRecord | None,
    version: str,
    at: Instant,
    *,
    me: Identity,
    timing: ElectionTiming,
    authoritative: bool = False,
) -> ObservedLease:
    """Return the observation after a version of the Lease.

    Args:
        version: The record's, or that of the response without one.
        authoritative: From a list that was requested because versions conflicted. It counts even if
            its version is older, since a cluster that was restored from a backup has older
            versions.
    """
    is_older = old is not None and _older(version, old)
    if old is not None and (version == old.version or (is_older and not authoritative)):
        return old
    if old is not None and not is_older and is_same_write(old.record, record):
        return replace(old, record=record, version=version)
    earlier = old.expires_at if old is not None else at
    edited_at: Instant = LONG_AGO
    edited_until: Instant = LONG_AGO
    if record is None:
        until = earlier  # the last holder may not know yet that it is gone
    elif is_older:
        until = max(earlier, at + _lease_s(record, timing))  # the last holder's write was undone
    elif record.holder == str(me) or record.released:
        until = at
    elif record.holder or (old is None and record.duration_s):
        until = max(earlier, at + _lease_s(record, timing))
    else:
        until = earlier  # emptied by hand: the last holder may not have observed it
    if record is not None and record.holder not in ("", str(me)) and _is_edited(record, timing):
        edited_at, edited_until = at, at + _bounded_s(record)
    elif old is not None and (record is None or not (record.holder or record.released)):
        edited_at, edited_until = old.edited_at, old.edited_until  # no newer lease was written
    known = record.transitions if record is not None else old.transitions if old else -1
    return ObservedLease(
        record,
        version,
        at,
        until,
        known,
        first=old is None,
        edited_until=edited_until,
        edited_at=edited_at,
    )


def lease_end(observed: ObservedLease, *, token_life_s: float) -> Instant:
    """Return when the observed lease ends.

    A duration that was edited by hand counts up to `MAX_LEASE_S` and up to `MAX_EDITED_FRACTION` of
    a token's lifetime: no replica renews before it ends, and every token may expire in that time.

    Args:
        token_life_s: Whole lifetime of a token; inf where it is unknown.
    """
    if math.isinf(observed.edited_at):
        return observed.expires_at
    limit_at = observed.edited_at + MAX_EDITED_FRACTION * token_life_s
    return max(observed.expires_at, min(observed.edited_until, limit_at))


def decide(
    observed: ObservedLease | None,
    hold: LeaseHold | None,
    now: Instant,
    *,
    me: Identity,
    timing: ElectionTiming,
    try_at: Instant = LONG_AGO,
    jitter_s: float = 0.0,
    token_life_s: float = math.inf,
) -> Decision:
    """Return what to do now.

    Args:
        try_at: No write before this instant: the next renewal, or the end of a pause after an
            error.
        jitter_s: Extra wait after the end of another's lease, so that not all try at once.
        token_life_s: Whole lifetime of a token, which limits a duration that was edited by hand.

    A standby waits until 15 s after it observed the holder's last write:

    >>> me, timing = Identity("replica-2", "", "n2"), ElectionTiming()
    >>> record = LeaseRecord("uid-1", "7", "replica-1_n1", 15, acquired="", transitions=3)
    >>> lease = observe(None, record, "7", 100.0, me=me, timing=timing)
    >>> decide(lease, None, 101.0, me=me, timing=timing)
    Wait(until=115.0)
    >>> decide(lease, None, 115.0, me=me, timing=timing) == Acquire(record, transitions=4)
    True
    """
    if hold is not None:
        return _decide_as_holder(observed, hold, now, me=me, timing=timing, try_at=try_at)
    if observed is None:
        return Wait(NEVER)
    free_at = _free_at(observed, me, jitter_s, token_life_s)
    if now < max(free_at, try_at):
        return Wait(max(free_at, try_at))
    record = observed.record
    if record is None:
        return Acquire(None, observed.transitions + 1)
    ours = record.holder == str(me)
    return Acquire(record, record.transitions if ours else record.transitions + 1)


def _decide_as_holder(
    observed: ObservedLease | None,
    hold: LeaseHold,
    now: Instant,
    *,
    me: Identity,
    timing: ElectionTiming,
    try_at: Instant,
) -> Decision:
    record = observed.record if observed is not None else None
    if record is None or record.holder != str(me):
        return Lost(loss_reason(record))
    until = expires_at(hold, timing)
    if now >= until:
        return Lost(f"not renewed for {now - hold.renewed_at:.1f} s")
    if now >= try_at:
        return Renew(record)
    return Wait(min(try_at, until))


def loss_reason(record: LeaseRecord | None) -> str:
    """Return why this replica does not hold the Lease in this state."""
    if record is None:
        return "the Lease was deleted"
    return f"held by {record.holder}" if record.holder else "its holder was emptied"


def _free_at(
    observed: ObservedLease, me: Identity, jitter_s: float, token_life_s: float
) -> Instant:
    record, end_at = observed.record, lease_end(observed, token_life_s=token_life_s)
    if record is not None and observed.first and me.is_predecessor(record.holder):
        return observed.at
    if record is not None and (record.holder == str(me) or record.released):
        return end_at
    return end_at + jitter_s


def _lease_s(record: LeaseRecord, timing: ElectionTiming) -> float:
    """Return the length of the holder's own lease; ours where it is not known any more."""
    if not record.duration_s or _is_edited(record, timing):
        return timing.lease_s
    return record.duration_s


def _bounded_s(record: LeaseRecord) -> float:
    return min(record.duration_s, MAX_LEASE_S)


def _is_edited(record: LeaseRecord, timing: ElectionTiming) -> bool:
    """Return whether the duration differs from the holder's own and from our settings."""
    if record.duration_s == timing.lease_s:
        return False
    return record.edited or record.duration_s > MAX_LEASE_S


def _older(version: str, old: ObservedLease) -> bool:
    return has_reached(old.version, version)
