"""The bodies of writes to the API server (pure)."""

import base64
import math
from typing import Any

from reconciler.clock import LONG_AGO, NEVER, EpochTime, format_utc, format_utc_millis
from reconciler.controller.decide.annotations import UNKNOWN
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names, SessionKey
from reconciler.tokens.token import Token


def secret_patch(
    secret: ObjectMeta,
    token: Token | None,
    names: Names,
    *,
    now_s: EpochTime,
    written_by: str,
    confirmation: str,
    handled_requests: tuple[str, ...],
    readable_until_s: EpochTime = NEVER,
) -> dict[str, Any]:
    """Return the merge patch that writes a token, and its annotations, into a Secret.

    The UID and resourceVersion are preconditions: another object of the same name answers 422,
    another version 409.

    Args:
        token: None to keep the value and write only the annotations.
        handled_requests: Digests of all refresh requests on the Secret and its pod.
        readable_until_s: Expiry of the worst token that the pod may read now (epoch): infinite for
            none, negative infinite for unknown. Written only with a token.
    """
    annotations: dict[str, str | None] = {names.confirmation: confirmation}
    if handled_requests:
        annotations[names.handled_requests] = ",".join(handled_requests)
    body: dict[str, Any] = {
        "metadata": {
            "uid": secret.uid,
            "resourceVersion": secret.version,
            "annotations": annotations,
        }
    }
    if token is not None:
        annotations |= _token_annotations(
            token, names, now_s=now_s, written_by=written_by, readable_until_s=readable_until_s
        )
        body["data"] = _data(token, names)
    return body


def revocation_patch(secret: ObjectMeta, names: Names) -> dict[str, Any]:
    """Return the merge patch that removes the confirmation from a Secret.

    The preconditions are those of `secret_patch`.
    """
    return {
        "metadata": {
            "uid": secret.uid,
            "resourceVersion": secret.version,
            "annotations": {names.confirmation: None},
        }
    }


def new_secret(
    key: SessionKey,
    pod: ObjectMeta,
    token: Token,
    names: Names,
    *,
    now_s: EpochTime,
    written_by: str,
) -> dict[str, Any]:
    """Return a new Secret with the platform's labels, owned by its pod.

    With this owner the garbage collector removes it if the pod ends while this program does not
    run. It has no confirmation yet, since its UID is not known.
    """
    annotations = _token_annotations(
        token, names, now_s=now_s, written_by=written_by, readable_until_s=LONG_AGO
    )
    labels = {
        names.session_id: key.session_id,
        names.project_id: pod.project_id,
        names.managed: "true",
        names.managed_by_label: names.managed_by,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": names.secret_name(key.session_id),
            "namespace": key.namespace,
            "labels": {name: value for name, value in labels.items() if value},
            "annotations": {name: value for name, value in annotations.items() if value},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
            ],
        },
        "data": _data(token, names),
    }


def touch_patch(pod: ObjectMeta, names: Names, *, now_s: EpochTime) -> dict[str, Any]:
    """Return the merge patch that makes the kubelet sync a pod now.

    The UID is the only precondition: the kubelet's own status writes would make versions conflict.
    """
    annotations = {names.touched_at: format_utc_millis(now_s)}
    return {"metadata": {"uid": pod.uid, "annotations": annotations}}


def _token_annotations(
    token: Token, names: Names, *, now_s: EpochTime, written_by: str, readable_until_s: EpochTime
) -> dict[str, str | None]:
    return {
        names.expires_at: token.expires_text,
        names.issued_at: token.issued_text,
        names.previous_expires_at: _format_expiry(readable_until_s),
        names.refreshed_at: format_utc_millis(now_s),
        names.refreshed_by: written_by,
    }


def _format_expiry(instant_s: EpochTime) -> str | None:
    """Return another token's expiry as text; None removes the annotation: it has no expiry."""
    if math.isinf(instant_s):
        return None if instant_s == NEVER else UNKNOWN
    return format_utc(instant_s)


def _data(token: Token, names: Names) -> dict[str, str]:
    return {names.secret_key: base64.b64encode(token.reveal().encode()).decode()}
