"""Merges several kubeconfigs as kubectl does: the first file that sets a value wins (pure).

Source: client-go, tools/clientcmd/loader.go (`Load`) and client_config.go.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

SECTIONS = {"clusters": "cluster", "contexts": "context", "users": "user"}
"""The lists of a kubeconfig, and the field of each entry apart from its name."""

_PATHS = {
    "clusters": ("certificate-authority",),
    "contexts": (),
    "users": ("client-certificate", "client-key", "tokenFile"),
}
"""Fields that name a file, relative to the folder of the kubeconfig that sets them."""

_BEFORE_EXEC = ("token", "tokenFile", "username", "password")
"""Credentials that are used before those of a plug-in. Source: client-go,
`UpdateTransportConfig`."""

EMPTY: tuple[Any, ...] = (None, "", False, [], {})
"""Values that count as absent, as Go's zero values do."""


class ShapeError(Exception):
    """A file has another shape than a kubeconfig; the message quotes none of its values."""


def merge(files: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Merge the contents of files in their order.

    The current context is that of the first file that names one. Of several entries with one name
    the first file's entry is taken as a whole. Empty fields are left out; paths are absolute.

    Args:
        files: Each file's path and content (None = empty).

    Raises:
        ShapeError: One has another shape than a kubeconfig; the message quotes no value.
    """
    current = ""
    merged: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in SECTIONS}
    for path, content in files:
        if content is None:
            continue
        if not isinstance(content, Mapping):
            raise ShapeError(f"{path} holds no mapping")
        current = current or _name(f"current-context of {path}", content.get("current-context"))
        folder = os.path.dirname(os.path.abspath(path))
        for section, entries in merged.items():
            for name, fields in _entries(path, section, content.get(section)).items():
                entries.setdefault(name, _resolved(section, fields, folder))
    found: dict[str, Any] = {
        section: [{"name": name, SECTIONS[section]: fields} for name, fields in entries.items()]
        for section, entries in merged.items()
    }
    return ({"current-context": current} if current else {}) | found


def _entries(path: str, section: str, listed: Any) -> dict[str, dict[str, Any]]:
    """Return name -> fields of one list of one file."""
    if listed is None:
        return {}
    if not isinstance(listed, list):
        raise ShapeError(f"{section} of {path} is no list")
    found: dict[str, dict[str, Any]] = {}
    for entry in listed:
        if not isinstance(entry, Mapping) or not entry.get("name"):
            raise ShapeError(f"an entry of {section} of {path} has no name")
        name = _name(f"a name in {section} of {path}", entry["name"])
        if name in found:
            raise ShapeError(f"two entries of {section} of {path} have one name")
        fields = entry.get(SECTIONS[section])
        if fields is None and SECTIONS[section] not in entry and len(entry) > 1:
            # Its fields are a level too high; without them it would mean another identity.
            raise ShapeError(f"an entry of {section} of {path} has no {SECTIONS[section]}")
        if fields is not None and not isinstance(fields, Mapping):
            raise ShapeError(f"an entry of {section} of {path} holds no mapping")
        found[name] = {
            str(field): value for field, value in (fields or {}).items() if value not in EMPTY
        }
    return found


def _name(what: str, value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise ShapeError(f"{what} is no text")
    return value or ""


def _resolved(section: str, fields: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return fields with absolute paths; a command without a slash is looked up in PATH."""
    found = dict(fields)
    for field in _PATHS[section]:
        if isinstance(found.get(field), str):
            found[field] = os.path.join(folder, found[field])
    plugin = found.get("exec")
    if section == "users" and isinstance(plugin, Mapping):
        command = plugin.get("command")
        if isinstance(command, str) and os.sep in command:
            found["exec"] = {**plugin, "command": os.path.join(folder, command)}
    return found


def without_idle_plugin(user: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user's fields without a plug-in that other credentials make unused."""
    has_certificate = "client-certificate" in user or "client-certificate-data" in user
    if has_certificate or any(field in user for field in _BEFORE_EXEC):
        return {field: value for field, value in user.items() if field != "exec"}
    return dict(user)
