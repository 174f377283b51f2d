"""managedFields: the last manager of each field, for the operation `Update`.

Fields are paths of fieldsV1 steps (`("f:data", "f:api-token")`). Lists have one owner, which is
coarser than the real server's `k:{...}`; a client of Secrets reads the same.
Source: structured-merge-diff `merge/update.go`, apimachinery `managedfields/managedfieldsupdater`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.lab.apiserver.kinds import Object

Path = tuple[str, ...]
Entry = dict[str, Any]

_SERVER_OWNED = frozenset(
    {
        "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "selfLink",
        "generation", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds",
    }
)  # fmt: skip
_MAPS = frozenset(
    {
        ("f:metadata", "f:labels"), ("f:metadata", "f:annotations"), ("f:data",),
        ("f:spec", "f:nodeSelector"),
    }
)  # fmt: skip
"""Fields that are maps: the map has an owner, too, as the member ".". """


def is_reset(proposed: Mapping[str, Any]) -> bool:
    """Return whether a body removes all managers: an empty list, or one empty entry.

    Source: apimachinery `managedfields/internal/fieldmanager.go`, isResetManagedFields.
    """
    return proposed["metadata"].get("managedFields") in ([], [{}])


def managed_fields(
    old: Object | None, new: Object, *, manager: str, subresource: str, now: str
) -> list[Entry]:
    """Return the managedFields of `new`, which `manager` writes in place of `old`.

    The manager becomes the only owner of the fields that it changes or adds; a removed field has no
    owner. Fields that it sends unchanged keep their owners and the owners' time. An object whose
    managers were removed has none from then on: only an apply would add them again.
    Source: `managedfields/internal/skipnonapplied.go`.
    """
    if old is not None and not old["metadata"].get("managedFields"):
        return []
    before, after = dict(_leaves(old or {}, new)), dict(_leaves(new, old or {}))
    touched = {path for path, value in after.items() if before.get(path, _ABSENT) != value}
    gone = before.keys() - after.keys()
    entries: list[Entry] = list((old or {}).get("metadata", {}).get("managedFields", ()))
    if not touched and not gone:
        return entries
    kept: list[Entry] = []
    mine: set[Path] = set()
    for entry in entries:
        paths = set(_paths(entry["fieldsV1"]))
        if entry["manager"] == manager and entry.get("subresource", "") == subresource:
            mine = paths - gone
            if not touched and mine:
                kept.append(entry if mine == paths else entry | {"fieldsV1": _tree(mine)})
        elif left := paths - touched - gone:
            kept.append(entry if left == paths else entry | {"fieldsV1": _tree(left)})
    if touched:
        kept.append(_entry(new, mine | touched, manager, subresource, now))
    return sorted(kept, key=lambda entry: (entry["time"], entry["manager"]))


_ABSENT = object()


def _entry(new: Object, paths: set[Path], manager: str, subresource: str, now: str) -> Entry:
    entry: Entry = {
        "manager": manager,
        "operation": "Update",
        "apiVersion": new["apiVersion"],
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": _tree(paths),
    }
    return entry | ({"subresource": subresource} if subresource else {})


def _leaves(item: Object, other: Object) -> Iterator[tuple[Path, Any]]:
    """Yield the owned fields below the top-level fields in which `item` differs from `other`."""
    for name, value in item.items():
        if name in ("apiVersion", "kind") or other.get(name, _ABSENT) == value:
            continue
        if name == "metadata":
            value = {key: part for key, part in value.items() if key not in _SERVER_OWNED}
        if name != "metadata" or value:
            yield from _below((f"f:{name}",), value)


def _below(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if not isinstance(value, dict) or not value:
        yield path, value
        return
    if path in _MAPS:
        yield (*path, "."), True
    for name, part in value.items():
        yield from _below((*path, f"f:{name}"), part)


def _paths(tree: Mapping[str, Any], prefix: Path = ()) -> Iterator[Path]:
    for step, below in tree.items():
        if below:
            yield from _paths(below, (*prefix, step))
        else:
            yield (*prefix, step)


def _tree(paths: set[Path]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path in sorted(paths):
        node = root
        for step in path:
            node = node.setdefault(step, {})
    return root
