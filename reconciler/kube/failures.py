"""A status from the API server, in an answer or inside a watch, to exactly one error class."""

import msgspec

from reconciler import errors
from reconciler.errors import Cause, KubeError


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""
    field: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] | None = None
    retry_after_s: int = msgspec.field(name="retryAfterSeconds", default=0)


class Status(msgspec.Struct):
    """The fields we read of a `meta/v1` Status; all optional, since proxies send others."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


_DECODER = msgspec.json.Decoder(Status)
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


def error_of_answer(
    code: int, body: bytes, *, what: str, retry_after_s: float | None = None
) -> KubeError:
    """Map an HTTP answer that is not a success; a body that is no Status costs nothing."""
    try:
        status = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        status = Status()
    status.code = code
    return error_of(status, what=what, retry_after_s=retry_after_s)


def error_of(status: Status, *, what: str, retry_after_s: float | None = None) -> KubeError:
    """Map a Status to its class.

    Three historic shapes say "too large resource version": the cause ResourceVersionTooLarge, a
    cause with that message, and the message alone. Source: client-go
    `isTooLargeResourceVersionError`.
    """
    details = status.details or _Details()
    causes = [Cause(c.reason, c.message, c.field) for c in details.causes or ()]
    cls = _BY_REASON.get(status.reason) or _BY_CODE.get(status.code)
    if _is_too_large(status, causes):
        cls = errors.VersionTooLarge
    if cls is None:
        cls = errors.ServerError if status.code >= 500 or not status.code else KubeError
    if retry_after_s is None and details.retry_after_s > 0:
        retry_after_s = float(details.retry_after_s)
    named = f" {status.reason}" if status.reason else ""
    fields = "".join(f", {cause.field}" for cause in causes if cause.field)
    return cls(
        f"{what}: the API server answered {status.code or 'an error'}{named}{fields}",
        status=status.code,
        reason=status.reason,
        retry_after_s=retry_after_s,
        causes=causes,
    )


def _is_too_large(status: Status, causes: list[Cause]) -> bool:
    if any(cause.reason == "ResourceVersionTooLarge" for cause in causes):
        return True
    if status.reason == "Timeout" and any(_TOO_LARGE in cause.message for cause in causes):
        return True
    return _TOO_LARGE in status.message
