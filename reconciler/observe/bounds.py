"""Texts of others in our lines: cut to a length that a reader can bear (pure)."""

from collections.abc import Mapping
from typing import Any

MAX_CHARS = 512
"""Of one text in a line: our own longest sentences fit, and a message of a webhook or a proxy does
not fill the log."""

MAX_ITEMS = 50
"""Of one list in a line."""


def bounded(value: Any, *, max_chars: int = MAX_CHARS) -> Any:
    """Return a value whose texts have at most `max_chars` characters; the cut is shown.

    Lists and mappings are bounded too, to `MAX_ITEMS`; what is neither stays as it is.
    """
    if isinstance(value, str):
        left_out = len(value) - max_chars
        return value if left_out <= 0 else f"{value[:max_chars]}... ({left_out} characters more)"
    if isinstance(value, Mapping):
        return {
            bounded(key, max_chars=max_chars): bounded(value[key], max_chars=max_chars)
            for key in list(value)[:MAX_ITEMS]
        }
    if isinstance(value, list | tuple):
        return [bounded(item, max_chars=max_chars) for item in value[:MAX_ITEMS]]
    if isinstance(value, BaseException):
        return bounded(str(value), max_chars=max_chars)
    return value


def bound_line(_: object, __: str, event: Any) -> Any:
    """Bound every field of a log line."""
    for name, value in event.items():
        event[name] = bounded(value)
    return event
