"""The error tree. A message is one sentence of ours, never free text of a response body.

No message, attribute or `repr` here may hold a token or another Secret value.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class ReconcilerError(Exception):
    """Base of all errors that this program raises on purpose."""


class SettingsError(ReconcilerError):
    """A setting is wrong or missing; the message names the variable and what it should be."""


class ProtocolError(ReconcilerError):
    """A peer sent bytes that its protocol does not allow."""


class NotLeaderError(ReconcilerError):
    """The write fence stopped a write, because this replica may not write any more."""


class RemoteError(ReconcilerError):
    """A request to one of the three remote systems did not succeed.

    Args:
        message: The request, its object, and the answer in a few words.
        status: HTTP status; 0 where no answer arrived.
        reason: The peer's machine-readable reason (`Conflict`, `invalid_client`), or "".
        retry_after_s: The peer's Retry-After, in seconds, or None.
    """

    transient = False
    """True where the same request may succeed later without a change by a person."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)  # the help of the commands does without msgspec
class Cause:
    """One entry of a Kubernetes Status' `details.causes`; `message` is the server's sentence."""

    reason: str
    message: str
    field: str


class KubeError(RemoteError):
    """The Kubernetes API server refused a request, or could not be reached.

    `denied_by` names the quota, admission webhook or policy that denied it; "" for none of them.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        retry_after_s: float | None = None,
        causes: Sequence[Cause] = (),
        denied_by: str = "",
    ) -> None:
        super().__init__(message, status=status, reason=reason, retry_after_s=retry_after_s)
        self.causes = tuple(causes)
        self.denied_by = denied_by


class Unauthorized(KubeError):
    """401: the credentials were not accepted, even after they were read again."""

    transient = True


class Forbidden(KubeError):
    """403: this account lacks a right, or the namespace is terminating; see its subclasses."""


class AuthorizerNotReady(KubeError):
    """403 for a right that this account most likely has: the server has just started.

    Its authorizer knows no binding until its caches are filled. See `kube.authorization`.
    """

    transient = True


class QuotaExceeded(Forbidden):
    """403 by a ResourceQuota: the namespace may hold no more objects of this kind for now."""

    transient = True


class AdmissionDenied(Forbidden):
    """403, or the 4xx that it chose, by an admission webhook or policy: no right is missing, and no
    RBAC rule would help."""


class NotFound(KubeError):
    """404: the object, or its namespace, does not exist."""


class Conflict(KubeError):
    """409: the object is not the version that the write was meant for."""

    transient = True


class AlreadyExists(KubeError):
    """409 AlreadyExists: a create found the name taken."""


class Gone(KubeError):
    """410, or reason Expired: the version or continue token is too old; list again."""

    transient = True


class ResourceVersionTooLarge(KubeError):
    """The server has not yet seen the version that was asked for; ask for its newest."""

    transient = True


class Invalid(KubeError):
    """422: the object would not be valid; `causes` name the fields."""


class TooManyRequests(KubeError):
    """429: too many requests; `retry_after_s` is the wait that the server asks for, if any."""

    transient = True


class ServerError(KubeError):
    """5xx: the server failed, or is starting or stopping."""

    transient = True


class TransportError(KubeError):
    """No answer: refused, reset, timed out, name not resolved, or TLS failed."""

    transient = True


class PlatformError(RemoteError):
    """The platform's REST API refused a request, was unreachable, or sent an invalid answer."""


class PlatformRefused(PlatformError):
    """The platform refuses our token, also a new one, or the token's account lacks a right."""


class PlatformUnavailable(PlatformError):
    """The platform is unreachable, failing or slow; its earlier answers remain valid for us."""

    transient = True


class PlatformAnswerTooLarge(PlatformUnavailable):
    """The platform's answer exceeds our limit; a smaller page may be below it."""


class IssuerError(RemoteError):
    """The token issuer returned no usable token."""


class IssuerUnavailable(IssuerError):
    """The issuer is unreachable, failing, throttling or slow."""

    transient = True


class IssuerRefused(IssuerError):
    """The issuer refuses our client credentials; a person must correct one side."""


class InvalidToken(IssuerError):
    """The issuer answered with a token that must not be written; `reason` names the rule.

    Reasons: `malformed`, `huge`, `expired`, `no_expiry`, `not_bearer`.
    """

    transient = True


OF_AN_ENDPOINT = (IssuerError, PlatformRefused)
"""Errors that concern an endpoint as a whole, and no single session, project or list."""
