"""Runner pods as the platform makes them, with a reader in the place of the agent."""

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
    """What the reader in a container said last."""

    dead_s: float
    tokens: int
    left_s: float


async def add_runner(world: World, project: str, namespace: str) -> Runner:
    """Make a running session whose Secret holds a good token, and its pod."""
    token = world.issuer.issue()
    runner = await world.add(project, token=token, with_pod=False, namespace=namespace)
    body = {"metadata": {"name": runner.pod, "labels": world.labels(runner)}, "spec": _spec(runner)}
    await world.admin.expect("POST", collection(namespace, PODS), body)
    return runner


async def add_reader(world: World, namespace: str) -> None:
    """Put the reader's program where the pods of a namespace mount it."""
    body = {"metadata": {"name": "reader"}, "data": {READER.name: READER.read_text()}}
    await world.admin.expect("POST", collection(namespace, "configmaps"), body)


async def account(admin: Admin, runner: Runner) -> Account | None:
    """Return the reader's last word, None before its first."""
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
