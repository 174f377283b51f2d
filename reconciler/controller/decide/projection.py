"""Which token a pod may still read, and whether it must be touched (pure).

A Secret's annotations have the time of its write and the expiry of the previous token; a pod's
annotations have the time of its last touch. So a missing touch is known after a crash, too.
"""

from typing import NamedTuple

from reconciler.clock import LONG_AGO, NEVER, EpochTime, parse_utc
from reconciler.controller.decide.annotations import TokenAnnotations
from reconciler.kube.api import ObjectMeta

MOUNT_S = 5.0
"""How much older than the pod a write may be and still miss its mount: creation times are whole
seconds of another clock, and a kubelet mounts from a cache."""

UNKNOWN_S: EpochTime = LONG_AGO
"""Expiry of an unknown token: it counts as expired."""


class ReadableToken(NamedTuple):
    """The worst token that a pod may read now.

    Args:
        until_s: Its expiry (epoch); infinite for none.
        needs_touch: It expires before the kubelet's next sync.
    """

    until_s: EpochTime
    needs_touch: bool


def readable_token(
    annotations: TokenAnnotations,
    pod: ObjectMeta | None,
    *,
    propagation_s: float,
    now_s: EpochTime,
) -> ReadableToken:
    """Return the token that the pod may read.

    That is the Secret's token, or the previous one if the kubelet may not have synced since. The
    kubelet syncs within `propagation_s`, at once after a touch, and when it mounts.
    """
    own_s, previous_s = _expires_s(annotations), annotations.previous_expires_s
    written_s = annotations.refreshed_s
    if previous_s is None or written_s is None:
        return ReadableToken(own_s, needs_touch=False)
    if not _may_be_stale(written_s, pod, propagation_s, now_s):
        return ReadableToken(own_s, needs_touch=False)
    return ReadableToken(min(own_s, previous_s), needs_touch=previous_s < written_s + propagation_s)


def _expires_s(annotations: TokenAnnotations) -> EpochTime:
    if not annotations.is_ours or annotations.problem:
        return UNKNOWN_S
    return NEVER if annotations.expires_s is None else annotations.expires_s


def _may_be_stale(
    written_s: EpochTime,
    pod: ObjectMeta | None,
    propagation_s: float,
    now_s: EpochTime,
) -> bool:
    """Return whether the pod may read the value before the last write."""
    # A kubelet does not update a terminating pod.
    if pod is None or pod.is_deleting:
        return False
    if now_s >= written_s + propagation_s or pod.created_s > written_s + MOUNT_S:
        return False
    touched_s = parse_utc(pod.annotations.touched_at or "")
    return touched_s is None or touched_s < written_s
