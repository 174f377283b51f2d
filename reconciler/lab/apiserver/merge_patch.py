"""JSON merge patch (RFC 7386), and copies that share nothing with the caller's object."""

from collections.abc import Mapping
from typing import Any


def merged(target: Any, patch: Any) -> Any:
    """Return `target` with `patch` applied; neither is changed, untouched parts are shared."""
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
    """Return a strategic merge patch as a merge patch: its `$...` directives are left out.

    The same for maps, which is all that kubectl's annotate, label and edit need here; lists are
    replaced, not merged.
    """
    if not isinstance(patch, Mapping):
        return patch
    return {
        key: without_directives(value) for key, value in patch.items() if not key.startswith("$")
    }


def copied(value: Any) -> Any:
    """Return a deep copy of plain JSON, without the nulls that an object cannot hold."""
    # Decoded JSON is made of dict and list; asking for the abstract Mapping costs ten times more.
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value
