"""A token as runners and server see it: read from a file, judged by the validator's clock."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reconciler.lab.runners.exposure_ledger import UNREADABLE

Verify = Callable[[str], Mapping[str, Any]]
"""Checks a token's signature and returns its claims; raises for any other token. `exp` may be left
to the caller, who judges it by the validator's clock."""


class Bearer:
    """A token in memory; only `header` shows it, and that goes to the wire."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "<Bearer>"

    def header(self) -> str:
        return f"Bearer {self._value}"


def read_bearer(path: Path) -> Bearer | None:
    """Return the token in a file, or None where it is missing or empty.

    What no header can carry is sent as an empty token, which the server refuses as it should.
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


def expiry_of(verify: Verify, token: str) -> float:
    """Return `exp` in seconds since the epoch, or `UNREADABLE` for what no validator accepts."""
    # The verifier's own errors are as many as its library has; each of them means the same here.
    try:
        expires_at_s = float(verify(token)["exp"])
    except Exception:
        return UNREADABLE
    return expires_at_s if math.isfinite(expires_at_s) else UNREADABLE
