"""A token for runners and their server: read from a file, checked by the validator's clock."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reconciler.clock import EpochTime
from reconciler.lab.runners.exposure_ledger import UNREADABLE

Verify = Callable[[str], Mapping[str, Any]]
"""Checks a token's signature and returns its claims; raises for any other token. The caller may
check `exp`, by the validator's clock."""


class Bearer:
    """A token in memory; only `header` contains it, for the request."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "<Bearer>"

    def header(self) -> str:
        return f"Bearer {self._value}"


def read_bearer(path: Path) -> Bearer | None:
    """Return the token in a file, or None if the file is missing or empty.

    A value that a header cannot contain becomes an empty token, which the server refuses.
    """
    try:
        text = path.read_text("ascii").strip()
    except UnicodeDecodeError:
        return Bearer("")
    except OSError:
        return None
    if not text:
        return None
    return Bearer(text if text.isprintable() else "")


def expiry_of(verify: Verify, token: str) -> EpochTime:
    """Return `exp` in seconds since the epoch, or `UNREADABLE` for a token no validator accepts."""
    # The verifier raises any error of its library; each of them means the same here.
    try:
        expires_at_s = EpochTime(verify(token)["exp"])
    except Exception:
        return UNREADABLE
    return expires_at_s if math.isfinite(expires_at_s) else UNREADABLE
