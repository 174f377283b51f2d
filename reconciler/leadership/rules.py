"""The lease rules (pure): from what was seen, and when, to what is to be done.

All instants are seconds on one replica's monotonic clock. Clocks of different replicas are never
compared; what the rules rely on is that none of them runs faster or slower than the others by more
than `DRIFT`.

Why no two replicas may write at once: whoever holds the Lease counts its validity from before it
sent the last write that was applied; whoever waits counts the holder's own duration from when it
saw that very version, which is later, and its own write fails unless that version is still the
last. `margin_s` is what is taken off the holder's side for clocks of different rates.
"""

import math
from dataclasses import dataclass

from reconciler.kube.resource_version import has_reached
from reconciler.leadership.lease import Identity, LeaseRecord

DRIFT = 0.01
"""Largest error of a clock's rate that the rules bear; NTP slews by 0.05 % at most."""

LONGEST_CLAIM_S = 150
"""No setting allows a longer lease: a duration beyond it was edited by hand, and whoever wrote it
renews within seconds if it lives."""

CLAIM_TTL = 1 / 6
"""Longest wait for a duration that was edited by hand, in lives of a token: the longest lease that
leaves room for several takeovers in the slack."""


@dataclass(frozen=True, slots=True)
class ElectionTiming:
    """Seconds; `Settings` has defaults and reasons. Source of the three: client-go."""

    lease_s: int = 15
    deadline_s: float = 10.0
    retry_s: float = 2.0

    @property
    def margin_s(self) -> float:
        """What a holder's validity ends before its lease does: the slow clock against the fast."""
        return 2 * DRIFT * self.lease_s

    @property
    def request_s(self) -> float:
        """Longest wait for one answer: two tries fit into the deadline. Source: client-go."""
        return self.deadline_s / 2


@dataclass(frozen=True, slots=True)
class ObservedLease:
    """What is known of the Lease.

    Args:
        record: None: there is none.
        version: Resource version of what was seen.
        at: When this version was first seen.
        claim_until: When the last holder's claim ends at the latest, as far as we saw it.
        transitions: The last count that was seen, -1 before any.
        first: Nothing was seen before.
        edited_until: When a claim ends whose duration was edited by hand, as far as that is
            believed: see `claim_end`. The holder's own claim is `claim_until`.
        edited_at: When that was seen.
    """

    record: LeaseRecord | None
    version: str
    at: float
    claim_until: float
    transitions: int
    first: bool
    edited_until: float = -math.inf
    edited_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class LeaseHold:
    """The Lease is ours.

    Args:
        renewed_at: Before the last renewal that was applied was sent.
        valid_until: No write may start later.
    """

    transitions: int
    renewed_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`, unless something else is seen."""

    until: float


@dataclass(frozen=True, slots=True)
class Acquire:
    """Try to become the holder of this version, or of a new Lease, with `transitions` in it."""

    record: LeaseRecord | None
    transitions: int


@dataclass(frozen=True, slots=True)
class Renew:
    """Write the same holder again."""

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class Lost:
    """Ours no more, from now on; `why` in a few words."""

    reason: str


Decision = Wait | Acquire | Renew | Lost


def observe(
    old: ObservedLease | None,
    record: LeaseRecord | None,
    version: str,
    at: float,
    *,
    me: Identity,
    timing: ElectionTiming,
    settled: bool = False,
) -> ObservedLease:
    """Take a version of the Lease into account.

    Args:
        version: The record's, or that of the answer that showed none.
        settled: From a list that was asked for because versions disagreed: true whatever its
            version, since a cluster restored from a backup counts from an older one.
    """
    is_older = old is not None and _older(version, old)
    if old is not None and (version == old.version or (is_older and not settled)):
        return old
    standing = old.claim_until if old is not None else at
    edited_at, edited_until = -math.inf, -math.inf
    if record is None:
        until = standing  # whoever held it may not know yet that it is gone
    elif is_older:
        until = max(standing, at + _claim_s(record, timing))  # the last holder's write is undone
    elif record.holder == str(me) or record.released:
        until = at
    elif record.holder or (old is None and record.duration_s):
        until = max(standing, at + _claim_s(record, timing))
    else:
        until = standing  # emptied by somebody else: the last holder may not have seen that yet
    if record is not None and record.holder not in ("", str(me)) and _is_edited(record, timing):
        edited_at, edited_until = at, at + _longest_s(record)
    elif old is not None and (record is None or not (record.holder or record.released)):
        edited_at, edited_until = old.edited_at, old.edited_until  # nothing newer is claimed
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


def claim_end(sight: ObservedLease, *, token_life_s: float) -> float:
    """Return when the claim ends that stands in the Lease.

    A duration that was edited by hand is believed up to `LONGEST_CLAIM_S` and `CLAIM_TTL` of a
    token's life: nobody renews before it ends, and every token may expire meanwhile.

    Args:
        token_life_s: Whole life of a token; inf where none is known.
    """
    if math.isinf(sight.edited_at):
        return sight.claim_until
    believed_until = sight.edited_at + CLAIM_TTL * token_life_s
    return max(sight.claim_until, min(sight.edited_until, believed_until))


def decide(
    sight: ObservedLease | None,
    tenure: LeaseHold | None,
    now: float,
    *,
    me: Identity,
    timing: ElectionTiming,
    try_at: float = -math.inf,
    spread_s: float = 0.0,
    token_life_s: float = math.inf,
) -> Decision:
    """Say what is to be done now.

    Args:
        try_at: No write before this instant: the next renewal, or the pause after a failure.
        spread_s: What to wait beyond the end of another's claim, so that not all try at once.
        token_life_s: Whole life of a token, which limits a claim that was edited by hand.
    """
    if tenure is not None:
        return _keep(sight, tenure, now, me=me, timing=timing, try_at=try_at)
    if sight is None:
        return Wait(math.inf)
    free_at = _free_at(sight, me, spread_s, token_life_s)
    if now < max(free_at, try_at):
        return Wait(max(free_at, try_at))
    record = sight.record
    if record is None:
        return Acquire(None, sight.transitions + 1)
    ours = record.holder == str(me)
    return Acquire(record, record.transitions if ours else record.transitions + 1)


def _keep(
    sight: ObservedLease | None,
    tenure: LeaseHold,
    now: float,
    *,
    me: Identity,
    timing: ElectionTiming,
    try_at: float,
) -> Decision:
    record = sight.record if sight is not None else None
    if record is None or record.holder != str(me):
        return Lost(why_lost(record))
    until = expires_at(tenure, timing)
    if now >= until:
        return Lost(f"not renewed for {now - tenure.renewed_at:.1f} s")
    if now >= try_at:
        return Renew(record)
    return Wait(min(try_at, until))


def why_lost(record: LeaseRecord | None) -> str:
    """Say why the Lease in this state is not ours."""
    if record is None:
        return "the Lease was deleted"
    return f"held by {record.holder}" if record.holder else "its holder was emptied"


def hold_from(transitions: int, sent_at: float, timing: ElectionTiming) -> LeaseHold:
    """Return the tenure that a write gives which was sent at `sent_at` and applied."""
    valid_until = sent_at + timing.lease_s - timing.margin_s
    return LeaseHold(transitions, sent_at, valid_until)


def expires_at(tenure: LeaseHold, timing: ElectionTiming) -> float:
    """Return when a tenure that is not renewed ends, whatever is under way then."""
    return min(tenure.renewed_at + timing.deadline_s, tenure.expires_at)


def _free_at(sight: ObservedLease, me: Identity, spread_s: float, token_life_s: float) -> float:
    record, claimed_until = sight.record, claim_end(sight, token_life_s=token_life_s)
    if record is not None and sight.first and me.is_predecessor(record.holder):
        return sight.at
    if record is not None and (record.holder == str(me) or record.released):
        return claimed_until
    return claimed_until + spread_s


def _claim_s(record: LeaseRecord, timing: ElectionTiming) -> float:
    """Return the length of the holder's own claim; ours where its word is not known any more."""
    if not record.duration_s or _is_edited(record, timing):
        return timing.lease_s
    return record.duration_s


def _longest_s(record: LeaseRecord) -> float:
    return min(record.duration_s, LONGEST_CLAIM_S)


def _is_edited(record: LeaseRecord, timing: ElectionTiming) -> bool:
    """Tell a duration that is not the holder's own word, nor what it would be by our settings."""
    if record.duration_s == timing.lease_s:
        return False
    return record.edited or record.duration_s > LONGEST_CLAIM_S


def _older(version: str, old: ObservedLease) -> bool:
    return has_reached(old.version, version)
