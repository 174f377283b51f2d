"""Maps an answer that is not a success to exactly one error (pure).

The platform sends its errors as JSON. Another body (a router's page, a login form, a redirect)
comes from another program at the same address, and means that the platform was not reached.
"""

import re
from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict

from reconciler.errors import PlatformError, PlatformRefused, PlatformUnavailable, ProtocolError
from reconciler.platform.models import decode

_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ErrorAnswer(msgspec.Struct, frozen=True):
    """An HTTP answer; `body` is bounded."""

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
        is_of_project: The request named a project: a 403 concerns it, and not our account.

    A 401 counts as the platform's answer although it is plain text: only the platform, or a gateway
    of it, refuses tokens.
    """
    code = error_code(answer.body)
    known = code is not None
    unreachable = (
        answer.status >= 500 or answer.status == 429 or not (known or answer.status == 401)
    )
    code_text = f" ({code})" if code else ""
    source = "" if known or answer.status in (401, 429) else ", not in the platform's words"
    refused = answer.status == 401 or (answer.status == 403 and not is_of_project)
    kind = PlatformUnavailable if unreachable else PlatformRefused if refused else PlatformError
    return kind(
        f"{what}: the platform answered {answer.status}{code_text}{source}",
        status=answer.status,
        reason=code or "",
        retry_after_s=answer.retry_after_s,
    )
