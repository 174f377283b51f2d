"""The annotations of a Secret and its pod, read and written; tenants can forge them (pure).

Read, they show the Secret's token, and which token its pod may still read. Written, they are part
of the bodies of our requests.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from reconciler.clock import LONG_AGO, NEVER, EpochTime, format_utc, format_utc_millis, parse_utc
from reconciler.controller.decide.evidence import Owner
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names, SessionKey
from reconciler.tokens.token import Token

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
    then: None if it is not annotated, -inf if it was unknown. `touched_s` is when the pod was
    touched last, None if it never was.
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
    touched_s: EpochTime | None = None

    def remaining_s(self, now_s: EpochTime) -> float | None:
        return None if self.expires_s is None else self.expires_s - now_s


def parse_annotations(
    secret: ObjectMeta,
    names: Names,
    *,
    owner: Owner,
    now_s: EpochTime,
    longest_ttl_s: float,
    static: bool,
    pod: ObjectMeta | None = None,
    lenient: bool = False,
) -> TokenAnnotations:
    """Parse the annotations of a Secret and its pod.

    Args:
        owner: Of the token; see `owner_of`.
        longest_ttl_s: No token lives longer, so that no expiry is further ahead than this.
        static: Tokens have no expiry, so that a missing one is not a fault.
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
    touched = pod.annotations.touched_at if pod is not None else None
    touched_s = parse_utc(touched) if touched else None
    if refreshed_s is not None and refreshed_s > now_s + TOLERANCE_S:
        refreshed_s = None
    ours, writers = names.field_manager, secret.field_managers
    others = () if writers == (ours,) else [writer for writer in writers if writer != ours]
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
        touched_s,
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
    is_asked = secret.annotations.requested_at or (pod and pod.annotations.requested_at)
    if not is_asked:  # nearly always, and each plan comes here
        return ()
    found = requests(secret, pod)
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


class ClockStep(NamedTuple):
    """A step forward of the estimate of the issuer's time.

    Args:
        before_s: The time before the step (epoch): no later instant was written until then.
        seconds: Its size.
    """

    before_s: EpochTime
    seconds: float


def readable_token(
    annotations: TokenAnnotations,
    pod: ObjectMeta | None,
    *,
    propagation_s: float,
    now_s: EpochTime,
    steps: Sequence[ClockStep] = (),
) -> ReadableToken:
    """Return the token that the pod may read; from the objects alone, so after a crash, too.

    That is the Secret's token, or the previous one if the kubelet may not have synced since. The
    kubelet syncs within `propagation_s`, at once after a touch, and when it mounts.

    Args:
        steps: Of the estimate of the issuer's time, the oldest first. Without them, a write from
            before a step looks older than it is, and synced.
    """
    own_s, previous_s = _expires_s(annotations), annotations.previous_expires_s
    if previous_s is None or annotations.refreshed_s is None:
        return ReadableToken(own_s, needs_touch=False)
    written_s, touched_s = _after_steps(annotations.refreshed_s, steps), annotations.touched_s
    if touched_s is not None:
        touched_s = _after_steps(touched_s, steps)
    if not _may_be_stale(written_s, touched_s, pod, propagation_s, now_s):
        return ReadableToken(own_s, needs_touch=False)
    return ReadableToken(min(own_s, previous_s), needs_touch=previous_s < written_s + propagation_s)


def _after_steps(at_s: EpochTime, steps: Sequence[ClockStep]) -> EpochTime:
    """Return an instant that we wrote as the present estimate of the issuer's time shows it."""
    for step in steps:
        if at_s <= step.before_s:
            at_s += step.seconds
    return at_s


def _expires_s(annotations: TokenAnnotations) -> EpochTime:
    if not annotations.is_ours or annotations.problem:
        return UNKNOWN_S
    return NEVER if annotations.expires_s is None else annotations.expires_s


def _may_be_stale(
    written_s: EpochTime,
    touched_s: EpochTime | None,
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
    return touched_s is None or touched_s < written_s


def secret_patch(
    secret: ObjectMeta,
    token: Token | None,
    names: Names,
    *,
    now_s: EpochTime,
    written_by: str,
    confirmation: str,
    handled_requests: tuple[str, ...],
    readable_until_s: EpochTime = NEVER,
) -> dict[str, Any]:
    """Return the merge patch that writes a token, and its annotations, into a Secret.

    The UID and resourceVersion are preconditions: another object of the same name answers 422,
    another version 409.

    Args:
        token: None to keep the value and write only the annotations.
        handled_requests: Digests of all refresh requests on the Secret and its pod.
        readable_until_s: Expiry of the worst token that the pod may read now (epoch): infinite for
            none, negative infinite for unknown. Written only with a token.
    """
    annotations: dict[str, str | None] = {names.confirmation: confirmation}
    if handled_requests:
        annotations[names.handled_requests] = ",".join(handled_requests)
    body: dict[str, Any] = {
        "metadata": {
            "uid": secret.uid,
            "resourceVersion": secret.version,
            "annotations": annotations,
        }
    }
    if token is not None:
        annotations |= _token_annotations(
            token, names, now_s=now_s, written_by=written_by, readable_until_s=readable_until_s
        )
        body["data"] = _data(token, names)
    return body


def revocation_patch(secret: ObjectMeta, names: Names) -> dict[str, Any]:
    """Return the merge patch that removes the confirmation from a Secret.

    The preconditions are those of `secret_patch`.
    """
    return {
        "metadata": {
            "uid": secret.uid,
            "resourceVersion": secret.version,
            "annotations": {names.confirmation: None},
        }
    }


def new_secret(
    key: SessionKey,
    pod: ObjectMeta,
    token: Token,
    names: Names,
    *,
    now_s: EpochTime,
    written_by: str,
) -> dict[str, Any]:
    """Return a new Secret with the platform's labels, owned by its pod.

    With this owner the garbage collector removes it if the pod ends while this program does not
    run. It has no confirmation yet, since its UID is not known.
    """
    annotations = _token_annotations(
        token, names, now_s=now_s, written_by=written_by, readable_until_s=LONG_AGO
    )
    labels = {
        names.session_id: key.session_id,
        names.project_id: pod.project_id,
        names.managed: "true",
        names.managed_by_label: names.managed_by,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": names.secret_name(key.session_id),
            "namespace": key.namespace,
            "labels": {name: value for name, value in labels.items() if value},
            "annotations": {name: value for name, value in annotations.items() if value},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
            ],
        },
        "data": _data(token, names),
    }


def touch_patch(pod: ObjectMeta, names: Names, *, now_s: EpochTime) -> dict[str, Any]:
    """Return the merge patch that makes the kubelet sync a pod now.

    The UID is the only precondition: the kubelet's own status writes would make versions conflict.
    """
    annotations = {names.touched_at: format_utc_millis(now_s)}
    return {"metadata": {"uid": pod.uid, "annotations": annotations}}


def _token_annotations(
    token: Token, names: Names, *, now_s: EpochTime, written_by: str, readable_until_s: EpochTime
) -> dict[str, str | None]:
    return {
        names.expires_at: token.expires_text,
        names.issued_at: token.issued_text,
        names.previous_expires_at: _format_expiry(readable_until_s),
        names.refreshed_at: format_utc_millis(now_s),
        names.refreshed_by: written_by,
    }


def _format_expiry(instant_s: EpochTime) -> str | None:
    """Return another token's expiry as text; None removes the annotation: it has no expiry."""
    if math.isinf(instant_s):
        return None if instant_s == NEVER else UNKNOWN
    return format_utc(instant_s)


def _data(token: Token, names: Names) -> dict[str, str]:
    return {names.secret_key: base64.b64encode(token.reveal().encode()).decode()}
