"""Validation of an object, and of an update of an object.

Source: kubernetes 1.37 `pkg/apis/core/validation`, apimachinery `pkg/api/validation/objectmeta.go`.
"""

import base64
import binascii
import re
import string
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.lab.apiserver.kinds import EVENTS, PODS, SECRETS, Kind, Object
from reconciler.lab.apiserver.status_errors import FieldError, quote

ANNOTATIONS_LIMIT_BYTES = 256 * 1024
SECRET_LIMIT_BYTES = 1024 * 1024

_ALPHABET = string.ascii_letters + string.digits + "+/"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z")
_LABEL_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    "or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_IMMUTABLE = "field is immutable"
_FROZEN = "Forbidden: field is immutable when `immutable` is set"
_POD_SPEC = (
    "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set "
    "to 1 if it was previously negative)"
)


class Undecodable(Exception):
    """A value has the wrong type for its field; the message is that of the real decoder."""


def check_shape(kind: Kind, item: Object) -> None:
    """Raise `Undecodable` for an object that the real decoder refuses; never names a value."""
    for name in ("labels", "annotations"):
        found = item["metadata"].get(name) or {}
        if not isinstance(found, Mapping) or any(not isinstance(v, str) for v in found.values()):
            raise Undecodable(
                f"json: cannot unmarshal into Go struct field ObjectMeta.metadata.{name}"
            )
    if kind is SECRETS:
        for value in (item.get("data") or {}).values():
            _check_base64(value)


def _check_base64(value: Any) -> None:
    try:
        base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise Undecodable(f"illegal base64 data at input byte {_bad_byte(value)}") from error


def _bad_byte(value: Any) -> int:
    """Return where Go's decoder stops: an invalid character, or the last incomplete quantum."""
    text = str(value)
    body = len(text) - len(text.lstrip(_ALPHABET))
    if body == len(text):
        return body - body % 4
    missing = -body % 4
    padding = text[body:][:missing]
    return body + missing if missing in (1, 2) and padding == "=" * missing else body


def field_errors(kind: Kind, item: Object) -> list[FieldError]:
    """Return the wrong fields of an object."""
    own: Iterator[FieldError] = iter(())
    if kind is SECRETS:
        own = _secret_faults(item)
    elif kind is EVENTS:
        own = _event_faults(item)
    return [*_metadata_faults(item["metadata"]), *own]


def update_errors(kind: Kind, old: Object, new: Object) -> list[FieldError]:
    """Return the fields that an update changes and must not."""
    faults: list[FieldError] = []
    uid = new["metadata"]["uid"]
    if uid != old["metadata"]["uid"]:
        faults.append(_invalid("metadata.uid", uid, _IMMUTABLE))
    if kind is SECRETS:
        faults += _secret_changes(old, new)
    if kind is PODS and new.get("spec") != old.get("spec"):
        faults.append(FieldError("spec", "FieldValueForbidden", _POD_SPEC))
    return faults


def _secret_changes(old: Object, new: Object) -> Iterator[FieldError]:
    if new["type"] != old["type"]:
        yield _invalid("type", new["type"], _IMMUTABLE)
    if old.get("immutable"):
        if not new.get("immutable"):
            yield FieldError("immutable", "FieldValueForbidden", _FROZEN)
        if new.get("data") != old.get("data"):
            yield FieldError("data", "FieldValueForbidden", _FROZEN)


def _metadata_faults(metadata: Mapping[str, Any]) -> Iterator[FieldError]:
    name = metadata["name"]
    if not _NAME.match(name) or len(name) > 253:
        yield _invalid("metadata.name", name, _NAME_RULE)
    for key, value in (metadata.get("labels") or {}).items():
        if not _LABEL.match(key.rpartition("/")[2]) or not key:
            yield _invalid("metadata.labels", key, _KEY_RULE)
        if not _LABEL.match(value):
            yield _invalid("metadata.labels", value, _LABEL_RULE)
        elif len(value) > 63:
            yield _invalid("metadata.labels", value, "must be no more than 63 bytes")
    annotations = metadata.get("annotations") or {}
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > ANNOTATIONS_LIMIT_BYTES:
        yield _too_long("metadata.annotations", ANNOTATIONS_LIMIT_BYTES)


def _secret_faults(item: Object) -> Iterator[FieldError]:
    size = sum(len(base64.b64decode(value)) for value in (item.get("data") or {}).values())
    if size > SECRET_LIMIT_BYTES:
        yield _too_long("data", SECRET_LIMIT_BYTES)


def _event_faults(item: Object) -> Iterator[FieldError]:
    """Source: kubernetes 1.37 `pkg/apis/core/validation/events.go`, legacyValidateEvent."""
    about = (item.get("involvedObject") or {}).get("namespace", "")
    if about and about != item["metadata"]["namespace"]:
        yield _invalid("involvedObject.namespace", about, "does not match event.namespace")


def _invalid(field: str, value: str, rule: str) -> FieldError:
    return FieldError(field, "FieldValueInvalid", f"Invalid value: {quote(value)}: {rule}")


def _too_long(field: str, limit_bytes: int) -> FieldError:
    return FieldError(
        field, "FieldValueTooLong", f"Too long: may not be more than {limit_bytes} bytes"
    )
