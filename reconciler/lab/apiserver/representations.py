"""An object in the requested representation: plain, metadata only, or a table; as JSON bytes.

Source: apiserver `endpoints/handlers/response.go`.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from reconciler.clock import EpochTime
from reconciler.lab.apiserver.kinds import Kind, Object
from reconciler.lab.apiserver.paging import Listing
from reconciler.lab.apiserver.status_errors import StatusError, not_acceptable
from reconciler.lab.apiserver.table_printers import table_of
from reconciler.lab.apiserver.watch_cache import WatchEvent

_META = "meta.k8s.io/v1"
_ENCODER = msgspec.json.Encoder()

encode = _ENCODER.encode


class Representation(Enum):
    """The `as=` of an Accept header."""

    PLAIN = ""
    PARTIAL = "PartialObjectMetadata"
    PARTIAL_LIST = "PartialObjectMetadataList"
    TABLE = "Table"


def parse_accept(header: str) -> Representation:
    """Return the first representation in an Accept header that this server supports.

    Raises:
        StatusError: 406 with the real server's message, which lists more than this server supports.
    """
    for clause in header.split(",") if header else ["*/*"]:
        media, *parameters = (part.strip() for part in clause.split(";"))
        if media not in ("application/json", "application/*", "*/*"):
            continue
        named = dict(part.split("=", 1) for part in parameters if "=" in part)
        wanted = named.get("as", "")
        if not wanted:
            return Representation.PLAIN
        known = wanted in {representation.value for representation in Representation}
        if known and named.get("g") == "meta.k8s.io" and named.get("v") == "v1":
            return Representation(wanted)
    raise not_acceptable(
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, "
        "application/vnd.kubernetes.protobuf, application/json;stream=watch, "
        "application/vnd.kubernetes.protobuf;stream=watch"
    )


def partial(item: Object) -> dict[str, Any]:
    """Return only the metadata of an object."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": _META,
        "metadata": item["metadata"],
    }


def object_bytes(
    kind: Kind, item: Object, representation: Representation, *, now_s: EpochTime
) -> bytes:
    """Encode one object; raises `StatusError` 406 for a representation of lists."""
    if representation is Representation.PARTIAL_LIST:
        raise _mismatch(representation, f"is not a list (*core.{kind.kind})")
    return encode(_represented(kind, item, representation, now_s=now_s, headed=True))


def list_bytes(
    kind: Kind, listing: Listing, representation: Representation, *, now_s: EpochTime
) -> bytes:
    """Encode a page; raises `StatusError` 406 for a representation of single objects."""
    metadata: dict[str, Any] = {"resourceVersion": str(listing.version)}
    if listing.token:
        metadata["continue"] = listing.token
    if listing.remaining is not None:
        metadata["remainingItemCount"] = listing.remaining
    if representation is Representation.PARTIAL:
        raise _mismatch(representation, f"is a list (*core.{kind.kind}List)")
    if representation is Representation.TABLE:
        return encode(table_of(kind, listing.items, metadata, now_s=now_s))
    if representation is Representation.PARTIAL_LIST:
        named, version = "PartialObjectMetadataList", _META
        items = [partial(item) for item in listing.items]
    else:
        named, version = f"{kind.kind}List", kind.api_version
        items = [_untyped(item) for item in listing.items]
    return encode({"kind": named, "apiVersion": version, "metadata": metadata, "items": items})


def event_bytes(
    kind: Kind, event: WatchEvent, representation: Representation, *, now_s: EpochTime, first: bool
) -> bytes:
    """Encode one watch event as a line; `first` = the first of its stream."""
    item: Mapping[str, Any] = event.object
    if event.type == "BOOKMARK" and representation is Representation.TABLE:
        item = table_of(kind, (), dict(item["metadata"]), now_s=now_s, headed=first)
    elif event.type != "ERROR":
        item = _represented(kind, item, representation, now_s=now_s, headed=first)
    return encode({"type": event.type, "object": item}) + b"\n"


def _represented(
    kind: Kind, item: Object, representation: Representation, *, now_s: EpochTime, headed: bool
) -> Mapping[str, Any]:
    if representation is Representation.PLAIN:
        return item
    if representation is Representation.TABLE:
        version = {"resourceVersion": item["metadata"]["resourceVersion"]}
        return table_of(kind, (item,), version, now_s=now_s, headed=headed)
    return partial(item)


def _untyped(item: Object) -> dict[str, Any]:
    """Return an item of a typed list, which has no kind."""
    return {key: value for key, value in item.items() if key not in ("kind", "apiVersion")}


def _mismatch(representation: Representation, reason: str) -> StatusError:
    return not_acceptable(
        f"you requested {representation.value}, but the requested object {reason}"
    )
