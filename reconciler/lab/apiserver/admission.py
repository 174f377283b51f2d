"""From a client's body to the stored object: defaults, the server's own fields, validation."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.kinds import Kind, Object
from reconciler.lab.apiserver.merge_patch import copied
from reconciler.lab.apiserver.status_errors import FieldError, bad_request, invalid
from reconciler.lab.apiserver.validation import (
    Undecodable,
    check_shape,
    field_errors,
    update_errors,
)

POD_GRACE_S = 30
"""Source: the pod's default terminationGracePeriodSeconds."""

_KEPT = (
    "namespace", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
    "generation", "managedFields",
)  # fmt: skip
"""Metadata that a client cannot change; the server ignores what it sends there."""


@dataclass(frozen=True, slots=True)
class ObjectIdentity:
    """What the server gives to a new object: its UID, and the time of creation (RFC 3339)."""

    uid: str
    now: str


def new_object(
    kind: Kind, namespace: str, body: Mapping[str, Any], birth: ObjectIdentity
) -> dict[str, Any]:
    """Return a new object without resourceVersion and managedFields.

    Raises:
        StatusError: 400 for a body that cannot be decoded, 422 for one that is invalid.
    """
    check_types(kind, body)
    item = _folded(kind, copied(body))
    sent = item.get("metadata") or {}
    if sent.get("namespace", namespace) != namespace and kind.namespaced:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    dropped = {
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
    }
    metadata = {key: value for key, value in sent.items() if key not in dropped}
    metadata["name"] = _name(kind, sent, birth.uid)
    if kind.namespaced:
        metadata["namespace"] = namespace
    metadata |= {"uid": birth.uid, "creationTimestamp": birth.now}
    item |= {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    _default(kind, item)
    _shape(kind, item)
    _validate(kind, item, field_errors(kind, item))
    return _pruned(item)


def next_object(
    kind: Kind, old: Object, proposed: Mapping[str, Any], *, subresource: str
) -> dict[str, Any]:
    """Return the next version of `old`, without resourceVersion and managedFields.

    `check_shape` must have accepted `proposed`.

    Raises:
        StatusError: 422 for an invalid object, or a change of an immutable field.
    """
    sent = {key: value for key, value in proposed["metadata"].items() if key not in _KEPT}
    item = _folded(kind, copied({**proposed, "metadata": sent}))
    item |= {"kind": kind.kind, "apiVersion": kind.api_version}
    metadata = item["metadata"]
    for name in _KEPT:
        if name in old["metadata"]:
            metadata[name] = old["metadata"][name]
    metadata["uid"] = metadata.get("uid") or old["metadata"]["uid"]
    metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
    item["metadata"] = metadata
    if kind.status:
        _keep(item, old, ("spec",) if subresource == "status" else ("status",))
    _default(kind, item)
    _validate(kind, item, [*update_errors(kind, old, item), *field_errors(kind, item)])
    return _pruned(item)


def check_types(kind: Kind, body: Mapping[str, Any]) -> None:
    """Raise `StatusError` 400 if a body names another kind."""
    sent = body.get("kind") or kind.kind
    version = body.get("apiVersion") or kind.api_version
    if (sent, version) != (kind.kind, kind.api_version):
        raise bad_request(
            f'{sent} in version "{version}" cannot be handled as a {kind.kind}: '
            f'no kind "{sent}" is registered for version "{version}" here'
        )


def _shape(kind: Kind, item: Object) -> None:
    try:
        check_shape(kind, item)
    except Undecodable as error:
        named = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}'
        raise bad_request(f"{named}: {error}") from error


def _validate(kind: Kind, item: Object, faults: list[Any]) -> None:
    if faults:
        raise invalid(kind, item["metadata"]["name"], faults)


def _name(kind: Kind, sent: Mapping[str, Any], uid: str) -> str:
    if sent.get("name"):
        return str(sent["name"])
    if not sent.get("generateName"):
        rule = "Required value: name or generateName is required"
        raise invalid(kind, "", [FieldError("metadata.name", "FieldValueRequired", rule)])
    return f"{sent['generateName']}{uid[:5]}"


def _folded(kind: Kind, item: dict[str, Any]) -> dict[str, Any]:
    """Move a Secret's stringData, which is write-only in the API, into data."""
    plain = item.pop("stringData", None) if kind is kinds.SECRETS else None
    if plain:
        encoded = {
            key: base64.b64encode(str(text).encode()).decode() for key, text in plain.items()
        }
        item["data"] = (item.get("data") or {}) | encoded
    return item


def _default(kind: Kind, item: dict[str, Any]) -> None:
    if kind is kinds.SECRETS:
        item.setdefault("type", "Opaque")
    elif kind is kinds.PODS:
        item["spec"] = {
            "restartPolicy": "Always", "terminationGracePeriodSeconds": POD_GRACE_S,
            "schedulerName": "default-scheduler",
        } | (item.get("spec") or {})  # fmt: skip
        item.setdefault("status", {"phase": "Pending", "qosClass": "BestEffort"})
    elif kind is kinds.NAMESPACES:
        item.setdefault("spec", {"finalizers": ["kubernetes"]})
        item.setdefault("status", {"phase": "Active"})
        metadata = item["metadata"]
        named = {"kubernetes.io/metadata.name": metadata["name"]}
        metadata["labels"] = (metadata.get("labels") or {}) | named


def _keep(item: dict[str, Any], old: Object, names: tuple[str, ...]) -> None:
    for name in names:
        item.pop(name, None)
        if name in old:
            item[name] = old[name]


def _pruned(item: dict[str, Any]) -> dict[str, Any]:
    """Remove empty maps and lists that the API omits."""
    metadata = item["metadata"]
    for name in ("labels", "annotations", "ownerReferences", "finalizers"):
        if name in metadata and not metadata[name]:
            del metadata[name]
    if "data" in item and not item["data"]:
        del item["data"]
    return item
