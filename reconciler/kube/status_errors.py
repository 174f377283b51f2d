"""Maps a Status of the API server, in an answer or in a watch, to exactly one error class."""

import re

import msgspec

from reconciler import errors
from reconciler.errors import Cause, KubeError
from reconciler.net.http_dates import MAX_RETRY_AFTER_S


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""
    field: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] | None = None
    retry_after_s: int = msgspec.field(name="retryAfterSeconds", default=0)


class Status(msgspec.Struct):
    """The fields of a `meta/v1` Status that we read; all optional, for the bodies of proxies."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


_DECODER = msgspec.json.Decoder(Status)
_FIELD = re.compile(r"[A-Za-z][\w.:/\[\]-]{0,127}")
"""The form of a field's name; an admission webhook may send any text."""

_ADMISSION = (
    (re.compile(r"exceeded quota: ([a-z0-9.-]{1,253}),"), errors.QuotaExceeded, "quota"),
    (
        re.compile(r'admission webhook "([a-z0-9.-]{1,253})" denied'),
        errors.AdmissionDenied,
        "webhook",
    ),
    (
        re.compile(r"ValidatingAdmissionPolicy '([a-z0-9.-]{1,253})' with"),
        errors.AdmissionDenied,
        "policy",
    ),
)
"""The messages of admission, with the name of its source; only the message shows it. Source:
kubernetes' quota controller.go `CheckRequest`, webhook statuserror.go, and
validatingadmissionpolicy dispatcher.go."""

_OF_ADMISSION = (errors.Forbidden, errors.Invalid, KubeError)
"""The classes of an answer that may be one of admission. A policy denies with 422 if it names no
other reason, and a webhook with the code that it chooses, 400 without one. With 409, 429 or 5xx it
asks for what these mean: the write is repeated."""

_FROZEN = "field is immutable when `immutable` is set"
"""The message of a cause. Source: kubernetes' validation.go `ValidateSecretUpdate`."""

IMMUTABLE = "the object is immutable"
"""What the message of our error adds for it."""

TERMINATING = "NamespaceTerminating"

_TOO_LARGE = "Too large resource version"

_BY_REASON: dict[str, type[KubeError]] = {
    "Expired": errors.Gone,
    "Gone": errors.Gone,
    "AlreadyExists": errors.AlreadyExists,
    "Conflict": errors.Conflict,
}
_BY_CODE: dict[int, type[KubeError]] = {
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.Gone,
    422: errors.Invalid,
    429: errors.TooManyRequests,
}


def from_response(
    code: int, body: bytes, *, what: str, retry_after_s: float | None = None
) -> KubeError:
    """Map an HTTP answer that is not a success; its body need not be a Status."""
    try:
        status = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        status = Status()
    status.code = code
    return from_status(status, what=what, retry_after_s=retry_after_s)


def from_status(status: Status, *, what: str, retry_after_s: float | None = None) -> KubeError:
    """Map a Status to its class.

    Three forms mean "too large resource version": the cause ResourceVersionTooLarge, a cause with
    that message, and the message alone. Source: client-go
    `isTooLargeResourceVersionError`.
    """
    details = status.details or _Details()
    causes = [Cause(c.reason, c.message, c.field) for c in details.causes or ()]
    cls = _BY_REASON.get(status.reason) or _BY_CODE.get(status.code)
    if _is_too_large(status, causes):
        cls = errors.ResourceVersionTooLarge
    if cls is None:
        cls = errors.ServerError if status.code >= 500 or not status.code else KubeError
    denied_by = ""
    if cls in _OF_ADMISSION:
        cls, denied_by = _denial(cls, status)
    if retry_after_s is None and details.retry_after_s > 0:
        retry_after_s = float(min(details.retry_after_s, MAX_RETRY_AFTER_S))
    named = f" {status.reason}" if _is_word(status.reason) else ""
    fields = "".join(f", {_field(cause)}" for cause in causes if _FIELD.fullmatch(cause.field))
    by = f", by {denied_by}" if denied_by else ""
    return cls(
        f"{what}: the API server answered {status.code or 'an error'}{named}{fields}{by}",
        status=status.code,
        reason=status.reason if _is_word(status.reason) else "",
        retry_after_s=retry_after_s,
        causes=causes,
        denied_by=denied_by,
    )


def _field(cause: Cause) -> str:
    return f"{cause.field} ({IMMUTABLE})" if _FROZEN in cause.message else cause.field


def _denial(cls: type[KubeError], status: Status) -> tuple[type[KubeError], str]:
    """Return the class of an answer that may be one of admission, and what admission it was."""
    for pattern, of_admission, kind in _ADMISSION:
        if found := pattern.search(status.message):
            return of_admission, f"{kind} {found[1]}"
    return cls, ""


def is_terminating(error: Exception) -> bool:
    """Return whether a 403 means that the namespace terminates, which is no fault to log."""
    return isinstance(error, errors.Forbidden) and any(
        cause.reason == TERMINATING for cause in error.causes
    )


def _is_word(reason: str) -> bool:
    """Return whether a reason is machine-readable; free text may quote an object."""
    return reason.isalnum() and len(reason) <= 64


def _is_too_large(status: Status, causes: list[Cause]) -> bool:
    if any(cause.reason == "ResourceVersionTooLarge" for cause in causes):
        return True
    if status.reason == "Timeout" and any(_TOO_LARGE in cause.message for cause in causes):
        return True
    return _TOO_LARGE in status.message
