"""Where a session's objects live; the rule is the platform's control plane's, not ours."""

from typing import Literal

from reconciler.platform.models import Session

Mode = Literal["standard", "mpp"]

MPP_PREFIX = "ambient-code--"
NO_NAMESPACE = "default"


def namespace_of(session: Session, mode: Mode) -> str:
    """Return the namespace of a session's Secret and pod.

    Source: kube_reconciler.go:76-84 and namespace_provisioner.go:33-35, 113-115: a project wins
    over the recorded namespace, which is only what was true when the pod was made.
    """
    if session.project_id:
        name = session.project_id.lower()
        return MPP_PREFIX + name if mode == "mpp" else name
    return session.kube_namespace or NO_NAMESPACE
