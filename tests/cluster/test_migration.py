"""docs/migrate.md, both directions for the old control plane's permissions, on the real server."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cluster.admin import RBAC, Admin
from tests.cluster.controlplane import ControlPlane
from tests.cluster.manifests import kubectl
from tests.node.guide import MIGRATE, blocks, commands

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

LOOP = "ambient-control-plane"
RULES = [
    {"apiGroups": [""], "resources": ["secrets", "pods"], "verbs": ["get", "create", "update"]},
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list"]},
]


async def test_the_loops_rights_come_back_as_they_were(
    control_plane: ControlPlane, admin: Admin, tmp_path: Path
) -> None:
    config = control_plane.kubeconfig(tmp_path / "config")

    def sh(command: str) -> None:
        environment = os.environ | {"KUBECONFIG": str(config)}
        subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=environment, check=True)

    path = f"/apis/{RBAC}/v1/clusterroles"
    await admin.expect("POST", path, {"metadata": {"name": LOOP}, "rules": RULES})
    [stopping] = blocks("sh", under="3. Stop the loop", guide=MIGRATE)
    save, edit = commands(stopping)
    sh(save)
    assert edit == f"kubectl edit clusterrole {LOOP}"
    narrowed = [RULES[0] | {"resources": ["pods"]}, *RULES[1:]]
    patch = json.dumps({"rules": narrowed})
    done = kubectl("patch", "clusterrole", LOOP, "--type=merge", "-p", patch, kubeconfig=config)
    assert done.returncode == 0, done.stderr
    [back] = blocks("sh", under="5. Roll back", guide=MIGRATE)
    restore, *_ = commands(back)
    sh(restore)
    assert (await admin.expect("GET", f"{path}/{LOOP}"))["rules"] == RULES
    await admin.expect("DELETE", f"{path}/{LOOP}")
