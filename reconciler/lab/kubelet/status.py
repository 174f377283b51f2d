"""What a kubelet writes about a pod: its status, and its removal."""

from typing import Any

from reconciler.lab.kubelet.pods import Pod


def running(pod: Pod, at_utc: str) -> dict[str, Any]:
    """Return the merge patch that says that a pod's containers run since `at_utc` (RFC 3339)."""
    return {
        "metadata": {"uid": pod.uid},
        "status": {
            "phase": "Running",
            "startTime": at_utc,
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": at_utc}
                for kind in ("Initialized", "ContainersReady", "Ready")
            ],
            "containerStatuses": [
                {
                    "name": name,
                    "image": image,
                    "imageID": "",
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": at_utc}},
                }
                for name, image in pod.containers
            ],
        },
    }


def removal(pod: Pod) -> dict[str, Any]:
    """Return the delete options that remove this incarnation of a pod at once."""
    return {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": pod.uid},
    }


def path_of(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
