"""The API server's errors: Status objects with the real server's messages.

Source: kubernetes 1.37 (apimachinery `pkg/api/errors`, `pkg/util/validation/field`; apiserver
`pkg/storage`, `pkg/registry/rest`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.errors import ReconcilerError
from reconciler.lab.apiserver.kinds import Kind

MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)
CONTINUE_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start "
    "a new list without the continue parameter, or use the continue token in this response to "
    "retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)
TOO_LARGE = "Too large resource version"


class StatusError(ReconcilerError):
    """A request that the API server does not execute; `status` is its complete answer."""

    def __init__(self, status: dict[str, Any]) -> None:
        super().__init__(status["message"])
        self.status = status

    @property
    def code(self) -> int:
        code: int = self.status["code"]
        return code

    @property
    def retry_after_s(self) -> int:
        """The answer's Retry-After in seconds, 0 if it has none."""
        seconds: int = self.status.get("details", {}).get("retryAfterSeconds", 0)
        return seconds


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field; `body` is its sentence without the field's name."""

    field: str
    reason: str
    body: str

    @property
    def sentence(self) -> str:
        return f"{self.field}: {self.body}"


def refuse(
    code: int, reason: str, message: str, *, details: dict[str, Any] | None = None
) -> StatusError:
    """Build an error from its parts."""
    status: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
    }
    if details is not None:
        status["details"] = details
    return StatusError(status | {"code": code})


def quote(text: str) -> str:
    """Return `text` in double quotes, as Go's %q writes the texts used here."""
    return json.dumps(text, ensure_ascii=False)


def _details(kind: Kind, name: str) -> dict[str, Any]:
    found = {"name": name, "group": kind.group, "kind": kind.plural}
    return {key: value for key, value in found.items() if value}


def bad_request(message: str) -> StatusError:
    return refuse(400, "BadRequest", message)


def unauthorized() -> StatusError:
    return refuse(401, "Unauthorized", "Unauthorized")


def forbidden(kind: Kind, name: str, reason: str) -> StatusError:
    named = f" {quote(name)}" if name else ""
    return refuse(
        403, "Forbidden", f"{kind.qualified}{named} is forbidden: {reason}",
        details=_details(kind, name),
    )  # fmt: skip


def terminating(kind: Kind, name: str, namespace: str) -> StatusError:
    """Source: apiserver `admission/plugin/namespace/lifecycle`."""
    reason = f"unable to create new content in namespace {namespace} because it is being terminated"
    refusal = forbidden(kind, name, reason)
    refusal.status["details"]["causes"] = [
        {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
    ]
    return refusal


def not_found(kind: Kind, name: str) -> StatusError:
    return refuse(
        404, "NotFound", f"{kind.qualified} {quote(name)} not found", details=_details(kind, name)
    )


def method_not_allowed() -> StatusError:
    message = "the server does not allow this method on the requested resource"
    return refuse(405, "MethodNotAllowed", message, details={})


def no_such_resource() -> StatusError:
    """Return a 404 for a resource that a known group does not have."""
    message = "the server could not find the requested resource"
    return refuse(404, "NotFound", message, details={})


def not_acceptable(message: str) -> StatusError:
    return refuse(406, "NotAcceptable", message)


def already_exists(kind: Kind, name: str) -> StatusError:
    return refuse(
        409, "AlreadyExists", f"{kind.qualified} {quote(name)} already exists",
        details=_details(kind, name),
    )  # fmt: skip


def conflict(kind: Kind, name: str, reason: str = MODIFIED) -> StatusError:
    message = f"Operation cannot be fulfilled on {kind.qualified} {quote(name)}: {reason}"
    return refuse(409, "Conflict", message, details=_details(kind, name))


def precondition(kind: Kind, name: str, what: str, wanted: str, found: str) -> StatusError:
    """Return a 409 for a delete's precondition; it names the kind, not the resource."""
    reason = {
        "UID": "The object might have been deleted and then recreated",
        "ResourceVersion": "The object might have been modified",
    }[what]
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    message = (
        f"Operation cannot be fulfilled on {qualified} {quote(name)}: the {what} in the "
        f"precondition ({wanted}) does not match the {what} in record ({found}). {reason}"
    )
    details = _details(kind, name) | {"kind": kind.kind}
    return refuse(409, "Conflict", message, details=details)


def put_of_another(kind: Kind, key: str, name: str, wanted: str, found: str) -> StatusError:
    """Return a 409 for a PUT with the UID of an object that was deleted and created again."""
    reason = (
        f"StorageError: invalid object, Code: 4, Key: /registry/{kind.plural}/{key}, "
        f"ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: "
        f"{wanted}, UID in object meta: {found}"
    )
    return conflict(kind, name, reason)


def expired(message: str, *, token: str = "") -> StatusError:
    """Return a 410; a `token` in it offers an inconsistent continuation."""
    refusal = refuse(410, "Expired", message)
    if token:
        refusal.status["metadata"] = {"continue": token}
    return refusal


def too_old(version: int, oldest: int) -> StatusError:
    """Return the error event of a watch from a compacted version."""
    return expired(f"too old resource version: {version} ({oldest})")


def unsupported_patch() -> StatusError:
    """Return the router's 415 for an unknown patch type."""
    return refuse(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})


def unsupported_media_type(accepted: Sequence[str]) -> StatusError:
    """Return a 415 for a body of another media type."""
    return refuse(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted),
    )


def invalid(kind: Kind, name: str, faults: Sequence[FieldError]) -> StatusError:
    """Return a 422 with one cause for each wrong field."""
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    return _invalid(
        f"{qualified} {quote(name)}", faults, _details(kind, name) | {"kind": kind.kind}
    )


def invalid_options(options: str, faults: Sequence[FieldError]) -> StatusError:
    """Return a 422 for a query (`ListOptions`, `DeleteOptions`)."""
    details = {"group": "meta.k8s.io", "kind": options}
    return _invalid(f'{options}.meta.k8s.io ""', faults, details)


def undecodable_patch(reason: str) -> StatusError:
    """Return a 422 for a patch whose result has the wrong type.

    The real server repeats the patched object here, values included; this one does not.
    """
    fault = FieldError("patch", "FieldValueInvalid", f"Invalid value: {quote('...')}: {reason}")
    return _invalid('"" ""', [fault], {})


def _invalid(what: str, faults: Sequence[FieldError], details: dict[str, Any]) -> StatusError:
    sentences = list(dict.fromkeys(fault.sentence for fault in faults))
    joined = sentences[0] if len(sentences) == 1 else f"[{', '.join(sentences)}]"
    causes = [
        {"reason": fault.reason, "message": fault.body, "field": fault.field} for fault in faults
    ]
    return refuse(
        422, "Invalid", f"{what} is invalid: {joined}", details=details | {"causes": causes}
    )


def too_large_version(version: int, current: int) -> StatusError:
    """Return a 504 for a version that this server has not reached."""
    return refuse(
        504,
        "Timeout",
        f"Timeout: {TOO_LARGE}: {version}, current: {current}",
        details={
            "causes": [{"reason": "ResourceVersionTooLarge", "message": TOO_LARGE}],
            "retryAfterSeconds": 1,
        },
    )
