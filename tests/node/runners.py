"""Runner pods as the platform creates them, with a reader instead of the agent."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.admin import PODS, Admin, collection, item
from tests.cluster.world import Runner, World
from tests.image.build import IMAGE

READER = Path(__file__).with_name("reader.py")
CONTAINER = "ambient-code-runner"


@dataclass(frozen=True, slots=True)
class Account:
    """The last report of the reader in a container."""

    expired_s: float
    tokens: int
    left_s: float


async def add_runner(world: World, project: str, namespace: str) -> Runner:
    """Create a running session with a valid token in its Secret, and its pod."""
    token = world.issuer.issue()
    runner = await world.add(project, token=token, with_pod=False, namespace=namespace)
    body = {"metadata": {"name": runner.pod, "labels": world.labels(runner)}, "spec": _spec(runner)}
    await world.admin.expect("POST", collection(namespace, PODS), body)
    return runner


async def add_reader(world: World, namespace: str) -> None:
    """Create the ConfigMap with the reader's program that the pods of a namespace mount."""
    body = {"metadata": {"name": "reader"}, "data": {READER.name: READER.read_text()}}
    await world.admin.expect("POST", collection(namespace, "configmaps"), body)


async def account(admin: Admin, runner: Runner) -> Account | None:
    """Return the reader's last report, None before its first."""
    path = f"{item(runner.namespace, PODS, runner.pod)}/log"
    said = await admin.expect("GET", path, container=CONTAINER, tailLines="1")
    return Account(**said) if said else None


def _spec(runner: Runner) -> dict[str, Any]:
    """Source: the platform's control plane, `kube_reconciler.go`: a directory, not a subPath."""
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": CONTAINER,
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "command": ["/opt/reconciler/bin/python3", f"/reader/{READER.name}"],
                "volumeMounts": [
                    {
                        "name": "runner-token",
                        "mountPath": "/var/run/secrets/ambient",
                        "readOnly": True,
                    },
                    {"name": "reader", "mountPath": "/reader", "readOnly": True},
                ],
            }
        ],
        "volumes": [
            {
                "name": "runner-token",
                "secret": {
                    "secretName": runner.secret,
                    "items": [{"key": "api-token", "path": "bot-token"}],
                },
            },
            {"name": "reader", "configMap": {"name": "reader"}},
        ],
    }
