"""Texts for the words of the plan, of errors and of endpoints, for the status page (pure)."""

from reconciler import errors
from reconciler.controller.decide import block_reasons
from reconciler.controller.decide.block_reasons import BlockReason
from reconciler.controller.status.snapshot import SessionStatus

REASONS = {
    "scheduled": "scheduled refresh",
    "startup_resync": "refresh of every token after a start",
    "token_replaced": "another static token is set, or the signing key was rotated",
    "leader_start": "it was due when this replica became leader",
    "resync": "the platform's list has it",
    "pod": "its pod changed",
    "secret": "its Secret changed",
    "touch": "its pod is touched, so that it reads the Secret",
    "requested": "requested by annotation",
    "expired": "its token has expired",
    "expiring": "its token may expire before the kubelet's next sync",
    "first_write": "first refresh of the token that came with its Secret",
    "never_written": "the controller has never written its token",
    "foreign_writer": "another writer replaced its token",
    "writer_unclear": "another writer may have replaced its token",
    "secret_missing": "its Secret does not exist",
    "expiry_unknown": "the token's expiry is not annotated",
    "expiry_impossible": "the annotated times are impossible",
    "expiry_too_far": "the annotated expiry is later than any token's life allows",
    "expiry_edited": "another client has edited the expiry that the controller wrote",
    "no_expiry": "its token has no expiry",
    "revoked": "the platform no longer has it: its confirmation is revoked",
    "confirmation_key_changed": "the client secret has changed: its confirmation is signed again",
    "confirmation_missing": "its confirmation is missing or invalid: it is signed again",
    "not_running": "the cluster and the platform no longer have it",
}
"""Why a session is or was due, by the plan's reason."""

BLOCKING_ENDPOINTS = {
    "kube": "the API server is unreachable",
    "rights": "the API server responds with 403",
    "issuer": "the issuer gives no token",
    "platform": "the platform gives no response",
}
"""What a session waits for, by the name of the endpoint."""

_ERROR_TEXTS: dict[type[Exception], str] = {
    errors.IssuerUnavailable: "the issuer is unreachable",
    errors.IssuerRefused: "the issuer rejects our credentials or our request",
    errors.InvalidToken: "the issuer's token cannot be used",
    errors.Conflict: "another writer changed the Secret first",
    errors.AlreadyExists: "an object of this name exists",
    errors.Forbidden: "a right is missing in its namespace",
    errors.AuthorizerNotReady: "the API server has just started and denies all requests",
    errors.QuotaExceeded: "its namespace's quota is exhausted",
    errors.AdmissionDenied: "an admission policy denies the write",
    errors.Unauthorized: "the API server rejects our credentials",
    errors.NotFound: "the object no longer exists",
    errors.Invalid: "the API server rejects the object as invalid",
    errors.TooManyRequests: "the API server limits the request rate",
    errors.ServerError: "the API server failed",
    errors.TransportError: "the API server did not respond",
    errors.PlatformUnavailable: "the platform is unreachable",
    errors.PlatformAnswerTooLarge: "the platform's response is too large",
    errors.PlatformRefused: "the platform rejects our credentials",
    errors.PlatformError: "the platform rejects the request",
    errors.NotLeaderError: "this replica is no longer leader",
}

_BY_CLASS_NAME = {kind.__name__: text for kind, text in _ERROR_TEXTS.items()}


def describe_reason(reason: str) -> str:
    """Return the text for a reason; without one, the reason."""
    return REASONS.get(reason) or block_reasons.SENTENCES.get(reason) or reason


def describe_block(row: SessionStatus) -> str:
    """Return why nothing is written, and what keeps the platform from being asked."""
    if row.block_reason == BlockReason.NOT_CONFIRMED and row.blocked_on:
        endpoint = BLOCKING_ENDPOINTS.get(row.blocked_on, row.blocked_on)
        return f"waits for the platform's confirmation: {endpoint}"
    return block_reasons.SENTENCES[row.block_reason]


def describe_error_class(name: str) -> str:
    """Return the text for an error's class; without one, its name."""
    return _BY_CLASS_NAME.get(name, name)
