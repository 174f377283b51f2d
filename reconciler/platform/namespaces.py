"""Where a session's objects live; the rule is the platform's control plane's, not ours."""

from typing import Literal

from reconciler.platform.models import Session

Mode = Literal["standard", "mpp"]

MPP_PREFIX = "ambient-code--"
NO_NAMESPACE = "default"


def project_namespace(project: str, mode: Mode) -> str:
    """Return the namespace of a project's sessions.

    Source: namespace_provisioner.go:33-35, 113-115.
    """
    name = project.lower()
    return MPP_PREFIX + name if mode == "mpp" else name


def namespace_of(session: Session, mode: Mode) -> str:
    """Return the namespace of a session's Secret and pod.

    Source: kube_reconciler.go:76-84: a project wins over the recorded namespace, which is only what
    was true when the pod was made.
    """
    if session.project_id:
        return project_namespace(session.project_id, mode)
    return session.kube_namespace or NO_NAMESPACE
