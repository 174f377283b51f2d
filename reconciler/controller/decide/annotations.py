"""What a Secret's annotations say of its token, believed only as far as tenants can be (pure)."""

import hashlib
import math
from dataclasses import dataclass

from reconciler.clock import parse_utc
from reconciler.controller.decide.ownership import Owner, WriteResponse, owner_of
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names

TOLERANCE_S = 60.0
"""Issue times may lie this far ahead of our idea of the issuer's time before they are unreadable:
before the issuer's first answer that idea is the machine's clock."""

UNKNOWN = "unknown"
"""What stands for the end of a token of which nothing is known."""


@dataclass(frozen=True, slots=True)
class TokenAnnotations:
    """One Secret's token, epoch seconds in the issuer's time.

    `issued_s` and `expires_s` are both None where they cannot be believed, and `why` says why;
    `expires_s` None with `why` "" is a token without an expiry. `ours` is False when another
    manager wrote the value, or may have, as `owner` tells; `refreshed_by` is the replica and term
    that wrote last, at `refreshed_s` (None where that is unreadable or in the future). `former_s`
    is when the worst token ends that a pod may have read until then; None where nobody said,
    infinitely long ago where nobody knew.
    """

    issued_s: float | None
    expires_s: float | None
    refreshed_by: str
    refreshed_s: float | None
    ours: bool
    writer: str
    problem: str
    previous_expires_s: float | None = None
    owner: Owner = Owner.OURS

    def remaining_s(self, now_s: float) -> float | None:
        return None if self.expires_s is None else self.expires_s - now_s


def parse_annotations(
    secret: ObjectMeta,
    names: Names,
    *,
    now_s: float,
    longest_ttl_s: float,
    static: bool,
    answer: WriteResponse | None = None,
    lenient: bool = False,
) -> TokenAnnotations:
    """Read a Secret's annotations.

    Args:
        longest_ttl_s: No token lives longer, so no expiry lies further ahead than this.
        static: Tokens have no expiry, so that a missing one is not a fault.
        answer: What was answered to our last write into it; see `owner_of`.
        lenient: A token of which it is unclear whose it is counts as ours: for those who only look.
            Who writes makes it clear.
    """
    annotations = secret.annotations
    refreshed_by = annotations.get(names.refreshed_by, "")
    refreshed_s = parse_utc(annotations.get(names.refreshed_at, ""))
    if refreshed_s is not None and refreshed_s > now_s + TOLERANCE_S:
        refreshed_s = None
    others = [writer for writer in secret.field_managers if writer != names.field_manager]
    owner = owner_of(secret, names.field_manager, answer)
    ours = owner is Owner.OURS or (lenient and owner is Owner.UNCLEAR)
    issued_s = parse_utc(annotations.get(names.issued_at, ""))
    expires_s = parse_utc(annotations.get(names.expires_at, ""))
    why = _validate(issued_s, expires_s, now_s, longest_ttl_s)
    if static and names.expires_at not in annotations and refreshed_by:
        why = ""
    if why or not ours:
        issued_s = expires_s = None
    former = annotations.get(names.previous_expires_at, "")
    former_s = -math.inf if former == UNKNOWN else parse_utc(former)
    return TokenAnnotations(
        issued_s,
        expires_s,
        refreshed_by,
        refreshed_s,
        ours,
        ", ".join(others),
        why,
        former_s,
        owner,
    )


def _validate(
    issued_s: float | None, expires_s: float | None, now_s: float, longest_ttl_s: float
) -> str:
    if issued_s is None or expires_s is None:
        return "expiry_unknown"
    if expires_s <= issued_s or issued_s > now_s + TOLERANCE_S:
        return "expiry_impossible"
    if expires_s - issued_s > longest_ttl_s:  # the issue time's bound makes it one of the expiry
        return "expiry_too_far"
    return ""


def pending_requests(names: Names, secret: ObjectMeta, pod: ObjectMeta | None) -> tuple[str, ...]:
    """Return the digests of refresh requests that were not honoured yet, the Secret's first.

    A digest stands for the value, which a human wrote and may be of any length.
    """
    done = secret.annotations.get(names.handled_requests, "").split(",")
    return tuple(digest for digest in requests(names, secret, pod) if digest not in done)


def requests(names: Names, secret: ObjectMeta, pod: ObjectMeta | None) -> tuple[str, ...]:
    """Return the digests of every request that stands on the Secret or its pod."""
    found = []
    for source, meta in (("s", secret), ("p", pod)):
        value = meta.annotations.get(names.requested_at) if meta is not None else None
        if value:
            digest = hashlib.blake2b(value.encode(), digest_size=6).hexdigest()
            found.append(f"{source}:{digest}")
    return tuple(found)


def is_paused(names: Names, *objects: ObjectMeta | None) -> bool:
    return any(
        meta is not None and meta.annotations.get(names.paused) == "true" for meta in objects
    )
