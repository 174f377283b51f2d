"""The account of the manifests in a separate namespace, under which the product under test runs.

An administrator would be exempt from limits of every other account: the authorizer of an API server
that has just started, priority and fairness, and the admission policies.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.accounts import account_token
from tests.cluster.admin import APPLY, LIMIT_S, RBAC, Admin, Json
from tests.cluster.controlplane import ControlPlane
from tests.cluster.credentials import kubeconfig

MANIFESTS = Path(__file__).parents[2] / "manifests"

ACCOUNT = "token-reconciler"

APART = "tests-"

LEASE_RIGHTS = "base/lease-rights.yaml"
SESSION_RIGHTS = "overlays/cluster-wide/session-rights.yaml"
POLICIES = ("chart/files/confinement/pods.yaml", "chart/files/confinement/secrets.yaml")
FILES = ("base/serviceaccount.yaml", LEASE_RIGHTS, SESSION_RIGHTS, *POLICIES)
"""Read, not rendered, so that no test needs kubectl for its account."""

_PLURALS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": f"/apis/{RBAC}/v1/namespaces/{{}}/roles",
    "RoleBinding": f"/apis/{RBAC}/v1/namespaces/{{}}/rolebindings",
    "ClusterRole": f"/apis/{RBAC}/v1/clusterroles",
    "ClusterRoleBinding": f"/apis/{RBAC}/v1/clusterrolebindings",
    "ValidatingAdmissionPolicy": (
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    ),
    "ValidatingAdmissionPolicyBinding": (
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
    ),
}


async def install(
    admin: Admin, control_plane: ControlPlane, namespace: str, *, files: tuple[str, ...] = FILES
) -> str:
    """Apply the manifests' account, permissions and policies; return a working token of it.

    Objects without a namespace are shared: bindings get the namespace's name and account, the
    others are the same for each. The labels for the removal of an installation are left out.
    """
    for found in _objects(files, namespace):
        name = found["metadata"]["name"]
        path = f"{_PLURALS[found['kind']].format(namespace)}/{name}"
        await admin.expect(
            "PATCH", path, found, content_type=APPLY, fieldManager="test-admin", force="true"
        )
    token = await account_token(admin, namespace, ACCOUNT)
    await _authorized(control_plane, token, namespace, everywhere=SESSION_RIGHTS in files)
    return token


def account_file(control_plane: ControlPlane, token: str, path: Path) -> Path:
    """Write a kubeconfig for the holder of a token; return its path."""
    text = kubeconfig(
        url=control_plane.url, ca_file=control_plane.ca_file, user=ACCOUNT, token=token
    )
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _objects(files: tuple[str, ...], namespace: str) -> Iterator[Json]:
    for name in files:
        found: Any
        for found in yaml.safe_load_all((MANIFESTS / name).read_text()):
            found["metadata"].pop("labels", None)
            if "{}" not in _PLURALS[found["kind"]]:
                _keep_apart(found, namespace)
            for subject in found.get("subjects", ()):
                subject["namespace"] = namespace
            yield found


def _keep_apart(found: Json, namespace: str) -> None:
    """Give objects without a namespace a name that no manual installation has."""
    found["metadata"]["name"] = f"{APART}{found['metadata']['name']}"
    if found["kind"].endswith("Binding"):
        found["metadata"]["name"] += f"-{namespace}"
    if found["kind"] == "ClusterRoleBinding":
        found["roleRef"]["name"] = f"{APART}{found['roleRef']['name']}"
    if found["kind"] == "ValidatingAdmissionPolicyBinding":
        found["spec"]["policyName"] = f"{APART}{found['spec']['policyName']}"
        found["spec"]["paramRef"]["namespace"] = namespace


async def _authorized(
    control_plane: ControlPlane, token: str, namespace: str, *, everywhere: bool
) -> None:
    """Wait until the authorizer, which reads bindings from a watch, knows those of the account."""
    own = f"fieldSelector=metadata.name%3D{ACCOUNT}"
    wanted = [(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", own)]
    if everywhere:
        wanted.append(("/api/v1/secrets", "limit=1"))
    async with (
        Admin.connect(control_plane.url, ca_file=control_plane.ca_file, token=token) as account,
        asyncio.timeout(LIMIT_S),
    ):
        for path, query in wanted:
            while (await account.call("GET", f"{path}?{query}")).status == 403:
                await asyncio.sleep(0.05)
