"""When a delete removes, and when it only marks.

Source: apiserver `registry/rest/delete.go`; kubernetes `registry/core/pod/strategy.go`.
"""

from dataclasses import dataclass
from typing import Any

from reconciler.clock import format_utc, parse_utc
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.kinds import Kind, Object
from reconciler.lab.apiserver.status_errors import precondition


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """`grace_s` None = the object's own; `uid` and `version` are preconditions, "" = none."""

    grace_s: int | None = None
    uid: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Deleted:
    """The object as the delete left it; `removed` says whether it is gone from the store."""

    object: Object
    removed: bool


def check_preconditions(kind: Kind, item: Object, options: DeleteOptions) -> None:
    """Raise `Refusal` 409 if the object is not the one that was meant."""
    metadata = item["metadata"]
    if options.uid and options.uid != metadata["uid"]:
        raise precondition(kind, metadata["name"], "UID", options.uid, metadata["uid"])
    found = metadata["resourceVersion"]
    if options.version and options.version != found:
        raise precondition(kind, metadata["name"], "ResourceVersion", options.version, found)


def marked(kind: Kind, item: Object, options: DeleteOptions, now_s: float) -> Object | None:
    """Return the object with its mark of deletion, or None if it is to be removed now.

    The same object means that a delete is under way already and this one changes nothing.
    """
    metadata = item["metadata"]
    grace_s = _grace_s(kind, item, options)
    ends = metadata.get("deletionTimestamp")
    if ends is not None:
        return _shortened(item, options, now_s)
    if grace_s == 0 and not metadata.get("finalizers"):
        return None
    return _with_mark(item, now_s + grace_s, grace_s)


def _shortened(item: Object, options: DeleteOptions, now_s: float) -> Object | None:
    """A second delete may only shorten the grace of the first."""
    metadata = item["metadata"]
    had_s: int = metadata.get("deletionGracePeriodSeconds", 0)
    wanted_s = had_s if options.grace_s is None else options.grace_s
    if had_s == 0 or wanted_s == 0:
        return item if metadata.get("finalizers") else None
    if wanted_s >= had_s:
        return item
    began_s = (parse_utc(metadata["deletionTimestamp"]) or now_s) - had_s
    ends_s = began_s + wanted_s
    return _with_mark(item, max(ends_s, now_s), wanted_s if ends_s > now_s else 1)


def _grace_s(kind: Kind, item: Object, options: DeleteOptions) -> int:
    """Only a pod that a node runs is given time; a kubelet must say when it is over."""
    if not kind.graceful:
        return 0
    spec, status = item.get("spec", {}), item.get("status", {})
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    grace_s: int = (
        options.grace_s if options.grace_s is not None else (spec["terminationGracePeriodSeconds"])
    )
    return 1 if grace_s < 0 else grace_s


def _with_mark(item: Object, ends_s: float, grace_s: int) -> Object:
    mark: dict[str, Any] = {
        "deletionTimestamp": format_utc(ends_s),
        "deletionGracePeriodSeconds": grace_s,
    }
    return {**item, "metadata": {**item["metadata"], **mark}}


def terminating_namespace(item: Object, now_s: float) -> Object:
    """Return a namespace on its way out; its contents go first."""
    metadata = {**item["metadata"], "deletionTimestamp": format_utc(now_s)}
    return {**item, "metadata": metadata, "status": {**item["status"], "phase": "Terminating"}}


def is_terminating(item: Object) -> bool:
    return kinds.NAMESPACES.kind == item["kind"] and "deletionTimestamp" in item["metadata"]
