"""A session's objects as the platform's control plane creates them (pure)."""

from dataclasses import dataclass, field
from typing import Any

from reconciler.lab.apiserver.kinds import Object
from reconciler.lab.kubelet.pods import FILE_NAME
from reconciler.naming import Names

GRACE_S = 60
"""Grace period of a runner pod, seconds. Source: the platform's control plane,
`kube_reconciler.go`, terminationGracePeriodSeconds."""

NODE = "lab-node"


@dataclass
class LabSession:
    """One session of the lab cluster.

    Args:
        known: Whether the platform has a row for it.
        first_token: The token in its Secret at the start.
    """

    session_id: str
    namespace: str
    secret: str
    pod: str
    known: bool = True
    first_token: str = field(default="", repr=False)


def new_session(names: Names, session_id: str, namespace: str) -> LabSession:
    cut = session_id[:40].lower()
    return LabSession(session_id, namespace, names.secret_name(session_id), f"session-{cut}-runner")


def labels(names: Names, session: LabSession) -> dict[str, str]:
    return {
        names.session_id: session.session_id,
        names.project_id: session.namespace,
        names.managed: "true",
        names.managed_by_label: names.managed_by,
    }


def secret_body(names: Names, session: LabSession, token: str) -> Object:
    """Return the Secret; without a token it is empty."""
    metadata = {"name": session.secret, "labels": labels(names, session)}
    data = {"stringData": {names.secret_key: token}} if token else {}
    return {"metadata": metadata, "type": "Opaque", **data}


def pod_body(names: Names, session: LabSession) -> Object:
    """Return the runner pod, already bound to the lab's node."""
    items = [{"key": names.secret_key, "path": FILE_NAME}]
    source: dict[str, Any] = {"secretName": session.secret, "items": items}
    return {
        "metadata": {"name": session.pod, "labels": labels(names, session)},
        "spec": {
            "nodeName": NODE,
            "terminationGracePeriodSeconds": GRACE_S,
            "containers": [{"name": "runner", "image": "runner:lab"}],
            "volumes": [{"name": "runner-token", "secret": source}],
        },
    }
