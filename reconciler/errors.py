"""The error tree: one sentence each, built from facts, never from a response body's free text.

No message, attribute or `repr` here may hold a token or another Secret value.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class ReconcilerError(Exception):
    """Anything this program raises on purpose."""


class SettingsError(ReconcilerError):
    """A setting is wrong or missing; the message names the variable and what it should be."""


class ProtocolError(ReconcilerError):
    """A peer sent bytes that its protocol does not allow."""


class NotLeaderError(ReconcilerError):
    """A write was stopped on its way out because this replica may not write any more."""


class RemoteError(ReconcilerError):
    """A request to one of the three remote systems did not succeed.

    Args:
        message: What was asked, of what, and the answer in a few words.
        status: HTTP status; 0 where no answer arrived.
        reason: The peer's machine-readable reason (`Conflict`, `invalid_client`), or "".
        retry_after_s: The peer's own wish, in seconds, or None.
    """

    transient = False
    """True where the same request may succeed later without anybody changing anything."""

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


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of a Kubernetes Status' `details.causes`; `message` is the server's sentence."""

    reason: str
    message: str
    field: str


class KubeError(RemoteError):
    """The Kubernetes API server refused a request, or could not be reached."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        retry_after_s: float | None = None,
        causes: Sequence[Cause] = (),
    ) -> None:
        super().__init__(message, status=status, reason=reason, retry_after_s=retry_after_s)
        self.causes = tuple(causes)


class Unauthorized(KubeError):
    """401: the credentials were not accepted, even after they were read again."""

    transient = True


class Forbidden(KubeError):
    """403: this account lacks a right, or the namespace is terminating; see its subclasses."""


class AuthorizerNotReady(KubeError):
    """403 for what this account may do, as far as can be known: the server has only just started.

    Its authorizer knows no binding until its informers are filled. See `kube.authorization`.
    """

    transient = True


class QuotaExceeded(Forbidden):
    """403 by a ResourceQuota: the namespace may hold no more objects of this kind for now."""

    transient = True


class AdmissionDenied(Forbidden):
    """403 by an admission webhook or policy: no right is missing, no rule would grant it."""


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
    """429: the server asks for patience; `retry_after_s` says how much, where it said it."""

    transient = True


class ServerError(KubeError):
    """5xx: the server failed, or is starting or stopping."""

    transient = True


class TransportError(KubeError):
    """No answer: refused, reset, timed out, name not resolved, or TLS failed."""

    transient = True


class PlatformError(RemoteError):
    """The platform's REST API refused a request, could not be reached, or spoke nonsense."""


class PlatformRefused(PlatformError):
    """The platform does not accept our token, a new one neither, or gives its account no right."""


class PlatformUnavailable(PlatformError):
    """The platform is away, failing or slow; what it said before stays true for us."""

    transient = True


class PlatformAnswerTooLarge(PlatformUnavailable):
    """The platform's answer is larger than we hold; a smaller page may be less."""


class IssuerError(RemoteError):
    """The token issuer gave no token that may be used."""


class IssuerUnavailable(IssuerError):
    """The issuer is away, failing, throttling or slow."""

    transient = True


class IssuerRefused(IssuerError):
    """The issuer does not accept our client credentials; somebody must change one side."""


class InvalidToken(IssuerError):
    """The issuer answered with a token that must not be written; `reason` names the rule.

    Reasons: `malformed`, `huge`, `expired`, `no_expiry`, `not_bearer`.
    """

    transient = True


OF_AN_ENDPOINT = (IssuerError, PlatformRefused)
"""What is said of an endpoint as a whole, and not of a session, project or list that met it."""
