"""JSON merge patch (RFC 7386), and deep copies of the caller's object."""

from collections.abc import Mapping
from typing import Any


def merged(target: Any, patch: Any) -> Any:
    """Return `target` with `patch` applied; both stay unchanged, unpatched parts are shared."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def without_directives(patch: Any) -> Any:
    """Return a strategic merge patch as a merge patch, without its `$...` directives.

    Both patches are the same for maps, which is enough for kubectl's annotate, label and edit here;
    lists are replaced, not merged.
    """
    if not isinstance(patch, Mapping):
        return patch
    return {
        key: without_directives(value) for key, value in patch.items() if not key.startswith("$")
    }


def copied(value: Any) -> Any:
    """Return a deep copy of plain JSON, without nulls, which an object cannot have."""
    # Decoded JSON consists of dict and list; a check for the abstract Mapping costs ten times more.
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value
