"""Which token a pod may still read, and whether it must be made to look at its Secret (pure).

A Secret says when its token was written and when the one before it ends; a pod says when it was
touched last. So a touch that is owed outlives whoever wrote the token.
"""

import math

from reconciler.clock import parse_utc
from reconciler.controller.decide.annotations import TokenAnnotations
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names

MOUNT_S = 5.0
"""How much older than the pod a write may be and still miss its mount: creation times are whole
seconds of another clock, and a kubelet mounts from a cache."""

UNKNOWN_S = -math.inf
"""End of a token of which nothing is known: taken for dead."""


def readable_until_s(
    facts: TokenAnnotations,
    pod: ObjectMeta | None,
    names: Names,
    *,
    propagation_s: float,
    now_s: float,
) -> float:
    """Return when the worst token that the pod may read now ends (epoch); infinite for never.

    That is the Secret's own one, or the one that it replaced if the kubelet may not have looked
    since: it looks by itself within `propagation_s`, at once when touched, and when it mounts.
    """
    own_s = _end_s(facts)
    if (
        not _may_be_stale(facts, pod, names, propagation_s, now_s)
        or facts.previous_expires_s is None
    ):
        return own_s
    return min(own_s, facts.previous_expires_s)


def needs_touch(
    facts: TokenAnnotations,
    pod: ObjectMeta | None,
    names: Names,
    *,
    propagation_s: float,
    now_s: float,
) -> bool:
    """Tell whether what the pod may read ends before the kubelet looks by itself."""
    if facts.previous_expires_s is None or facts.refreshed_s is None:
        return False
    return (
        _may_be_stale(facts, pod, names, propagation_s, now_s)
        and facts.previous_expires_s < facts.refreshed_s + propagation_s
    )


def _end_s(facts: TokenAnnotations) -> float:
    if not facts.ours or facts.problem:
        return UNKNOWN_S
    return math.inf if facts.expires_s is None else facts.expires_s


def _may_be_stale(
    facts: TokenAnnotations,
    pod: ObjectMeta | None,
    names: Names,
    propagation_s: float,
    now_s: float,
) -> bool:
    """Tell whether the pod may read what was there before the last write."""
    written_s = facts.refreshed_s
    # A kubelet brings nothing to a pod that is on its way out.
    if pod is None or pod.is_deleting or written_s is None:
        return False
    if now_s >= written_s + propagation_s or pod.created_s > written_s + MOUNT_S:
        return False
    touched_s = parse_utc(pod.annotations.get(names.touched_at, ""))
    return touched_s is None or touched_s < written_s
