"""Whose the token in a Secret is, by what the API server says of its writers (pure).

docs/design/evidence-for-writes.md, steps 1-5. No value is ever read, so
`managedFields` and the answers to our own writes are all the evidence there is.
"""

import enum
from typing import NamedTuple

from reconciler.kube.api import ObjectMeta

CLOCKS_S = 2.0
"""Times of `managedFields` that are closer than this say nothing of order: they are whole seconds,
and several API servers have clocks of their own, some tenths of a second apart."""


class Owner(enum.Enum):
    """Who wrote the token that a Secret holds."""

    OURS = "ours"
    FOREIGN = "foreign"
    UNCLEAR = "unclear"
    """Another owns the key, and wrote at about the time of our own write: before it with an equal
    value, or after it."""
    UNOWNED = "nobody"
    """The key is not there, or `managedFields` are not kept for this object."""


class WriteResponse(NamedTuple):
    """What the API server answered to our last write of a token.

    Args:
        writers: As of `ObjectMeta`, and `foreign_s` too.
        sent_at: When the write was sent, monotonic.
        since_at: When an answer to us first showed these very `writers` and `foreign_s`, monotonic;
            earlier than `sent_at` from the second such answer on.
    """

    uid: str
    version: str
    writers: tuple[str, ...]
    foreign_s: float | None
    sent_at: float
    since_at: float

    def shows_owners_of(self, secret: ObjectMeta) -> bool:
        """Tell whether the same owners are there as when we wrote, with the same time."""
        return (self.writers, self.foreign_s) == (secret.field_managers, secret.foreign_s)


def response_of(
    secret: ObjectMeta, before: WriteResponse | None, *, sent_at: float, now_at: float
) -> WriteResponse:
    """Return what the answer `secret` to a write of ours shows.

    Args:
        before: The answer to our write before, or None.
    """
    known = before is not None and before.uid == secret.uid and before.shows_owners_of(secret)
    since_at = before.since_at if known and before is not None else now_at
    return WriteResponse(
        secret.uid, secret.version, secret.field_managers, secret.foreign_s, sent_at, since_at
    )


def owner_of(secret: ObjectMeta, manager: str, answer: WriteResponse | None) -> Owner:
    """Return whose token a Secret holds.

    Args:
        manager: Our field manager.
        answer: What was answered to our last write of a token into this Secret, or None where this
            process made none.
    """
    if answer is not None and answer.uid != secret.uid:
        answer = None
    # A write of anybody makes another version.
    if answer is not None and answer.version == secret.version:
        return Owner.OURS
    # Who changes a value takes the key from all other owners.
    if manager in secret.field_managers:
        return Owner.OURS
    if not secret.field_managers:
        return Owner.UNOWNED
    if answer is not None:
        # An equal value leaves the owner in place, with the time of its own last write.
        if not answer.shows_owners_of(secret):
            return Owner.FOREIGN
        settled = answer.sent_at - answer.since_at >= CLOCKS_S
        return Owner.OURS if settled else _later(secret, else_foreign=Owner.UNCLEAR)
    return _later(secret, else_foreign=Owner.FOREIGN)


def _later(secret: ObjectMeta, *, else_foreign: Owner) -> Owner:
    """Compare the times of two writers; both are the API server's."""
    if secret.own_s is None or secret.foreign_s is None:
        return else_foreign
    lead_s = secret.own_s - secret.foreign_s
    if lead_s >= CLOCKS_S:
        return Owner.OURS
    return Owner.UNCLEAR if lead_s > -CLOCKS_S else else_foreign
