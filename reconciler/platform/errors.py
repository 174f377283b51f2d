"""An answer that is not a success, to exactly one error; pure.

The platform says what it means in JSON. Whatever else arrives on its address (a router's page, a
login form, a redirect) is some other program's answer and means that the platform was not reached.
"""

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from reconciler.errors import PlatformError, PlatformRefused, PlatformUnavailable, ProtocolError
from reconciler.net import http_dates
from reconciler.platform.models import decode

MAX_RETRY_AFTER_S = 3600.0
"""A wish for more patience than an hour is a mistake somewhere, not a wish."""

_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What came back; `body` is bounded."""

    status: int
    body: bytes
    retry_after_s: float | None


class _ErrorBody(BaseModel):
    """The platform's error JSON; its RBAC layer leaves the code out."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["Error"]
    code: str | None = None


def error_code(body: bytes) -> str | None:
    """Return the code of the platform's error JSON, "" where it has none, None if it is not one."""
    try:
        code = decode(_ErrorBody, body).code or ""
    except ProtocolError:
        return None
    return code if _CODE.fullmatch(code) else ""


def error_of(answer: ErrorAnswer, *, what: str, is_of_project: bool = True) -> PlatformError:
    """Map an answer that is not a success to its error.

    Args:
        is_of_project: A project was named: a 403 is about it, and not about us as a whole.

    401 counts as the platform's own word though it is plain text: only the platform, or something
    that speaks for it, refuses tokens.
    """
    code = error_code(answer.body)
    known = code is not None
    away = answer.status >= 500 or answer.status == 429 or not (known or answer.status == 401)
    named = f" ({code})" if code else ""
    doubt = "" if known or answer.status in (401, 429) else ", not in the platform's words"
    refused = answer.status == 401 or (answer.status == 403 and not is_of_project)
    kind = PlatformUnavailable if away else PlatformRefused if refused else PlatformError
    return kind(
        f"{what}: the platform answered {answer.status}{named}{doubt}",
        status=answer.status,
        reason=code or "",
        retry_after_s=answer.retry_after_s,
    )


def parse_retry_after(text: str | None, *, now_s: float) -> float | None:
    """Return a Retry-After header in seconds from now, or None; RFC 9110 has two forms of it.

    Args:
        now_s: Wall time, seconds since the epoch.
    """
    wait_s = http_dates.parse_retry_after(text, now_s=now_s)
    return None if wait_s is None else min(wait_s, MAX_RETRY_AFTER_S)
