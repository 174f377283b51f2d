"""Which token a pod may still read, and whether it must be touched (pure).

A Secret's annotations have the time of its write and the expiry of the previous token; a pod's
annotations have the time of its last touch. So a missing touch is known after a crash, too.
"""

from reconciler.clock import LONG_AGO, NEVER, EpochTime, parse_utc
from reconciler.controller.decide.annotations import TokenAnnotations
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names

MOUNT_S = 5.0
"""How much older than the pod a write may be and still miss its mount: creation times are whole
seconds of another clock, and a kubelet mounts from a cache."""

UNKNOWN_S: EpochTime = LONG_AGO
"""Expiry of an unknown token: it counts as expired."""


def readable_until_s(
    annotations: TokenAnnotations,
    pod: ObjectMeta | None,
    names: Names,
    *,
    propagation_s: float,
    now_s: EpochTime,
) -> EpochTime:
    """Return the expiry of the worst token that the pod may read now (epoch); infinite for none.

    That is the Secret's token, or the previous one if the kubelet may not have synced since. The
    kubelet syncs within `propagation_s`, at once after a touch, and when it mounts.
    """
    own_s = _expires_s(annotations)
    if (
        not _may_be_stale(annotations, pod, names, propagation_s, now_s)
        or annotations.previous_expires_s is None
    ):
        return own_s
    return min(own_s, annotations.previous_expires_s)


def needs_touch(
    annotations: TokenAnnotations,
    pod: ObjectMeta | None,
    names: Names,
    *,
    propagation_s: float,
    now_s: EpochTime,
) -> bool:
    """Return whether the token that the pod may read expires before the kubelet's next sync."""
    if annotations.previous_expires_s is None or annotations.refreshed_s is None:
        return False
    return (
        _may_be_stale(annotations, pod, names, propagation_s, now_s)
        and annotations.previous_expires_s < annotations.refreshed_s + propagation_s
    )


def _expires_s(annotations: TokenAnnotations) -> EpochTime:
    if not annotations.is_ours or annotations.problem:
        return UNKNOWN_S
    return NEVER if annotations.expires_s is None else annotations.expires_s


def _may_be_stale(
    annotations: TokenAnnotations,
    pod: ObjectMeta | None,
    names: Names,
    propagation_s: float,
    now_s: EpochTime,
) -> bool:
    """Return whether the pod may read the value before the last write."""
    written_s = annotations.refreshed_s
    # A kubelet does not update a terminating pod.
    if pod is None or pod.is_deleting or written_s is None:
        return False
    if now_s >= written_s + propagation_s or pod.created_s > written_s + MOUNT_S:
        return False
    touched_s = parse_utc(pod.annotations.get(names.touched_at, ""))
    return touched_s is None or touched_s < written_s
