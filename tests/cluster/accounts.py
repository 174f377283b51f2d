"""ServiceAccounts as a pod would hold them: by a token that the real API server issued."""

from pathlib import Path
from typing import Any

from tests.cluster.admin import Admin, collection, item
from tests.cluster.credentials import kubeconfig
from tests.cluster.world import World

TOKEN_S = 3600
"""The API server gives no shorter ones than 600 s."""


async def create_account(admin: Admin, namespace: str, name: str) -> None:
    path = collection(namespace, "serviceaccounts")
    await admin.expect("POST", path, {"metadata": {"name": name}})


async def account_token(
    admin: Admin, namespace: str, name: str, *, bound_to: dict[str, Any] | None = None
) -> str:
    """Return a token of an account.

    Args:
        bound_to: A Secret with whose deletion the token ends.
    """
    spec: dict[str, Any] = {"expirationSeconds": TOKEN_S}
    if bound_to is not None:
        found = bound_to["metadata"]
        spec["boundObjectRef"] = {
            "apiVersion": "v1", "kind": "Secret", "name": found["name"], "uid": found["uid"],
        }  # fmt: skip
    path = f"{item(namespace, 'serviceaccounts', name)}/token"
    answer = await admin.expect("POST", path, {"spec": spec})
    return str(answer["status"]["token"])


async def account_kubeconfig(world: World, namespace: str, name: str) -> Path:
    """Write a kubeconfig for an account into the world's folder."""
    plane = world.control_plane
    token = await account_token(world.admin, namespace, name)
    path = world.folder / f"{namespace}-{name}"
    path.touch(mode=0o600)
    path.write_text(kubeconfig(url=plane.url, ca_file=plane.ca_file, user=name, token=token))
    return path
