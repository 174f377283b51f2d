"""Parses and validates a Secret's annotations, which tenants can forge (pure)."""

import hashlib

import msgspec

from reconciler.clock import LONG_AGO, EpochTime, parse_utc
from reconciler.controller.decide.ownership import Owner, WriteResponse, owner_of
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names

TOLERANCE_S = 60.0
"""Issue times may be this far ahead of the estimated issuer's time and still count: before the
issuer's first response the estimate is the machine's clock."""

UNKNOWN = "unknown"
"""Annotation value for an unknown expiry."""


class TokenAnnotations(msgspec.Struct, frozen=True):
    """One Secret's token, epoch seconds in the issuer's time.

    `issued_s` and `expires_s` are both None if they are invalid; then `problem` is the reason.
    `expires_s` None with `problem` "" is a token without an expiry. `is_ours` is False if another
    manager wrote the value, or may have written it; `owner` says which. `refreshed_by` is the
    replica and term that wrote last, at `refreshed_s` (None if that is unreadable or in the
    future). `previous_expires_s` is the expiry of the worst token that a pod may have read until
    then: None if it is not annotated, -inf if it was unknown.
    """

    issued_s: EpochTime | None
    expires_s: EpochTime | None
    refreshed_by: str
    refreshed_s: EpochTime | None
    is_ours: bool
    writer: str
    problem: str
    previous_expires_s: EpochTime | None = None
    owner: Owner = Owner.OURS

    def remaining_s(self, now_s: EpochTime) -> float | None:
        return None if self.expires_s is None else self.expires_s - now_s


def parse_annotations(
    secret: ObjectMeta,
    names: Names,
    *,
    now_s: EpochTime,
    longest_ttl_s: float,
    static: bool,
    response: WriteResponse | None = None,
    lenient: bool = False,
) -> TokenAnnotations:
    """Parse a Secret's annotations.

    Args:
        longest_ttl_s: No token lives longer, so that no expiry is further ahead than this.
        static: Tokens have no expiry, so that a missing one is not a fault.
        response: The API server's response to our last write of it; see `owner_of`.
        lenient: A token with an unclear owner counts as ours: for callers that only display. A
            caller that writes resolves it by its write.
    """
    annotations = secret.annotations
    refreshed_by = annotations.refreshed_by or ""
    refreshed_s = parse_utc(annotations.refreshed_at or "")
    issued_s = parse_utc(annotations.issued_at or "")
    expires_s = parse_utc(annotations.expires_at or "")
    previous = annotations.previous_expires_at or ""
    previous_s = LONG_AGO if previous == UNKNOWN else parse_utc(previous)
    if refreshed_s is not None and refreshed_s > now_s + TOLERANCE_S:
        refreshed_s = None
    others = [writer for writer in secret.field_managers if writer != names.field_manager]
    owner = owner_of(secret, names.field_manager, response)
    is_ours = owner is Owner.OURS or (lenient and owner is Owner.UNCLEAR)
    problem = _validate(issued_s, expires_s, now_s, longest_ttl_s)
    if static and annotations.expires_at is None and refreshed_by:
        problem = ""
    if problem or not is_ours:
        issued_s = expires_s = None
    return TokenAnnotations(
        issued_s,
        expires_s,
        refreshed_by,
        refreshed_s,
        is_ours,
        ", ".join(others),
        problem,
        previous_s,
        owner,
    )


def _validate(
    issued_s: EpochTime | None, expires_s: EpochTime | None, now_s: EpochTime, longest_ttl_s: float
) -> str:
    if issued_s is None or expires_s is None:
        return "expiry_unknown"
    if expires_s <= issued_s or issued_s > now_s + TOLERANCE_S:
        return "expiry_impossible"
    # With the limit of the issue time this limits the expiry, too.
    if expires_s - issued_s > longest_ttl_s:
        return "expiry_too_far"
    return ""


def pending_requests(secret: ObjectMeta, pod: ObjectMeta | None) -> tuple[str, ...]:
    """Return the digests of refresh requests that are not handled yet, the Secret's first.

    A digest represents the value, which a person wrote and which may have any length.
    """
    found = requests(secret, pod)
    if not found:
        return found
    done = (secret.annotations.handled_requests or "").split(",")
    return tuple(digest for digest in found if digest not in done)


def requests(secret: ObjectMeta, pod: ObjectMeta | None) -> tuple[str, ...]:
    """Return the digests of every refresh request on the Secret or its pod."""
    digests = []
    for source, meta in (("s", secret), ("p", pod)):
        value = meta.annotations.requested_at if meta is not None else None
        if value:
            digest = hashlib.blake2b(value.encode(), digest_size=6).hexdigest()
            digests.append(f"{source}:{digest}")
    return tuple(digests)


def is_paused(pod: ObjectMeta | None, secret: ObjectMeta | None = None) -> bool:
    """Return whether a person has stopped the writes, on the pod or on the Secret."""
    return (pod is not None and pod.annotations.paused == "true") or (
        secret is not None and secret.annotations.paused == "true"
    )
