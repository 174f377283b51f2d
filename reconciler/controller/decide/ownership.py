"""The owner of the token in a Secret, from what the API server records of its writers (pure).

docs/design/evidence-for-writes.md, steps 1-5. Values are never read: `managedFields` and the
responses to our own writes are the only evidence.
"""

import enum
from typing import NamedTuple

from reconciler.clock import EpochTime, Instant
from reconciler.kube.api import ObjectMeta

CLOCK_TOLERANCE_S = 2.0
"""Times of `managedFields` that are closer than this have no known order: they are whole seconds,
and API servers have separate clocks, some tenths of a second apart."""


class Owner(enum.Enum):
    """The writer of the token in a Secret."""

    OURS = "ours"
    FOREIGN = "foreign"
    UNCLEAR = "unclear"
    """Another manager owns the key, and wrote at about the time of our own write: before it with an
    equal value, or after it."""
    UNOWNED = "nobody"
    """The key is absent, or `managedFields` are not kept for this object."""


class WriteResponse(NamedTuple):
    """The API server's response to our last write of a token.

    Args:
        field_managers: As in `ObjectMeta`, and `foreign_s` too.
        sent_at: When the write was sent, monotonic.
        first_seen_at: When a response to us first showed these same `field_managers` and
            `foreign_s`, monotonic; earlier than `sent_at` from the second such response on.
    """

    uid: str
    version: str
    field_managers: tuple[str, ...]
    foreign_s: EpochTime | None
    sent_at: Instant
    first_seen_at: Instant

    def shows_owners_of(self, secret: ObjectMeta) -> bool:
        """Return whether the owners, and their times, are the same as after our write."""
        return (self.field_managers, self.foreign_s) == (secret.field_managers, secret.foreign_s)


def response_of(
    secret: ObjectMeta, previous: WriteResponse | None, *, sent_at: Instant, now_at: Instant
) -> WriteResponse:
    """Return the evidence in the response `secret` to a write of ours.

    Args:
        previous: The response to our write before, or None.
    """
    is_same = (
        previous is not None and previous.uid == secret.uid and previous.shows_owners_of(secret)
    )
    since_at = previous.first_seen_at if is_same and previous is not None else now_at
    return WriteResponse(
        secret.uid, secret.version, secret.field_managers, secret.foreign_s, sent_at, since_at
    )


def owner_of(secret: ObjectMeta, manager: str, response: WriteResponse | None) -> Owner:
    """Return the owner of a Secret's token.

    Args:
        manager: Our field manager.
        response: The response to our last write of a token into this Secret; None if this process
            has made none.
    """
    if response is not None and response.uid != secret.uid:
        response = None
    # Any write makes another version.
    if response is not None and response.version == secret.version:
        return Owner.OURS
    # A manager that changes a value becomes its only owner.
    if manager in secret.field_managers:
        return Owner.OURS
    if not secret.field_managers:
        return Owner.UNOWNED
    if response is not None:
        # A write of an equal value leaves the other owner, with the time of its last write.
        if not response.shows_owners_of(secret):
            return Owner.FOREIGN
        is_settled = response.sent_at - response.first_seen_at >= CLOCK_TOLERANCE_S
        return Owner.OURS if is_settled else _compare_times(secret, else_foreign=Owner.UNCLEAR)
    return _compare_times(secret, else_foreign=Owner.FOREIGN)


def _compare_times(secret: ObjectMeta, *, else_foreign: Owner) -> Owner:
    """Compare the times of two writers; both are the API server's."""
    if secret.own_s is None or secret.foreign_s is None:
        return else_foreign
    lead_s = secret.own_s - secret.foreign_s
    if lead_s >= CLOCK_TOLERANCE_S:
        return Owner.OURS
    return Owner.UNCLEAR if lead_s > -CLOCK_TOLERANCE_S else else_foreign
