"""Reasons and outcomes in words, for the status page and for people (pure)."""

from reconciler.controller.status.snapshot import SessionStatus

REASONS = {
    "renewal": "renewal, on the session's own grid",
    "startup_resync": "every token is written once after a start",
    "token_replaced": "the static token's file holds another one, or the signing key was rotated",
    "follow": "it was due when this replica began to lead",
    "resync": "the platform's list named it",
    "pod": "its pod changed",
    "secret": "its Secret changed",
    "touch": "its pod is asked to look at the Secret",
    "requested": "somebody asked for it by annotation",
    "expired": "its token has expired",
    "expiring": "its token ends before the kubelet would look again",
    "first_write": "the token that came with its Secret is replaced for the first time",
    "never_written": "no token of ours was ever written",
    "foreign_writer": "somebody else wrote the token",
    "writer_unclear": "another writer may have written the token",
    "secret_missing": "its Secret is missing",
    "expiry_unknown": "the token's end is not annotated",
    "expiry_impossible": "the annotated end cannot be",
    "expiry_too_far": "the annotated end is further than any token lives",
    "no_expiry": "its token has no end",
    "revoked": "the platform no longer has it: its confirmation is taken back",
    "seal_renewed": "the client secret has changed: the confirmation is signed again",
    "seal_missing": "the confirmation on its Secret is missing or garbled: it is signed again",
    "not_running": "neither the cluster nor the platform has it",
}
"""Why a session is or was due, by the plan's reason."""

HOLDS = {
    "paused": "paused by annotation: nothing is written until that is removed",
    "secret_name_taken": "another session has a Secret of this name: nothing is written",
    "not_confirmed": "the platform has not confirmed this session here: nothing is written",
    "pod_leaving": "its Secret is gone and its pod is on its way out: none is made",
}

ENDPOINTS = {
    "kube": "the API server is away",
    "rights": "the API server answers 403",
    "issuer": "the issuer gives no token",
    "platform": "the platform gives no answer",
}


def describe_reason(reason: str) -> str:
    """Return a reason in words; one without words is shown as it is."""
    return REASONS.get(reason) or HOLDS.get(reason) or reason


def describe_block(row: SessionStatus) -> str:
    """Say why nothing is written, and what keeps the platform from being asked about a session."""
    if row.hold == "not_confirmed" and row.blocked_on:
        endpoint = ENDPOINTS.get(row.blocked_on, row.blocked_on)
        return f"waits to be confirmed by the platform: {endpoint}"
    return HOLDS[row.hold]
