"""Whether a delete removes an object or only marks it.

Source: apiserver `registry/rest/delete.go`; kubernetes `registry/core/pod/strategy.go`.
"""

from dataclasses import dataclass
from typing import Any

from reconciler.clock import EpochTime, format_utc, parse_utc
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.kinds import Kind, Object
from reconciler.lab.apiserver.status_errors import precondition


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """The options of a delete.

    Args:
        grace_s: None: the object's own grace period.
        uid: Precondition, "" = none; so is `version`.
    """

    grace_s: int | None = None
    uid: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Deleted:
    """The object after the delete; `removed`: it is no longer in the store."""

    object: Object
    removed: bool


def check_preconditions(kind: Kind, item: Object, options: DeleteOptions) -> None:
    """Raise `StatusError` 409 if the object does not meet the preconditions."""
    metadata = item["metadata"]
    if options.uid and options.uid != metadata["uid"]:
        raise precondition(kind, metadata["name"], "UID", options.uid, metadata["uid"])
    found = metadata["resourceVersion"]
    if options.version and options.version != found:
        raise precondition(kind, metadata["name"], "ResourceVersion", options.version, found)


def marked(kind: Kind, item: Object, options: DeleteOptions, now_s: EpochTime) -> Object | None:
    """Return the object with its deletionTimestamp, or None if it must be removed now.

    The same object is returned if it was marked before and this delete changes nothing.
    """
    metadata = item["metadata"]
    grace_s = _grace_s(kind, item, options)
    ends = metadata.get("deletionTimestamp")
    if ends is not None:
        return _shortened(item, options, now_s)
    if grace_s == 0 and not metadata.get("finalizers"):
        return None
    return _with_mark(item, now_s + grace_s, grace_s)


def _shortened(item: Object, options: DeleteOptions, now_s: EpochTime) -> Object | None:
    """A second delete may only shorten the grace period of the first."""
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
    """Return the grace period: 0 except for a pod on a node, whose kubelet confirms the end."""
    if not kind.graceful:
        return 0
    spec, status = item.get("spec", {}), item.get("status", {})
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    grace_s: int = (
        options.grace_s if options.grace_s is not None else (spec["terminationGracePeriodSeconds"])
    )
    return 1 if grace_s < 0 else grace_s


def _with_mark(item: Object, ends_s: EpochTime, grace_s: int) -> Object:
    mark: dict[str, Any] = {
        "deletionTimestamp": format_utc(ends_s),
        "deletionGracePeriodSeconds": grace_s,
    }
    return {**item, "metadata": {**item["metadata"], **mark}}


def terminating_namespace(item: Object, now_s: EpochTime) -> Object:
    """Return a terminating namespace; its objects are removed before it."""
    metadata = {**item["metadata"], "deletionTimestamp": format_utc(now_s)}
    return {**item, "metadata": metadata, "status": {**item["status"], "phase": "Terminating"}}


def is_terminating(item: Object) -> bool:
    return kinds.NAMESPACES.kind == item["kind"] and "deletionTimestamp" in item["metadata"]
