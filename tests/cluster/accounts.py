"""ServiceAccounts as in a pod: with a token that the real API server issued."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.preflight.permissions import PERMISSIONS
from tests.cluster.admin import Admin, Json, collection, item, rule
from tests.cluster.controlplane import ControlPlane
from tests.cluster.credentials import kubeconfig

if TYPE_CHECKING:
    from tests.cluster.world import World

TOKEN_S = 3600

SHORTEST_S = 600
"""The API server issues no shorter tokens; the kubelet replaces them at 0.8 of that."""


def session_rules() -> list[Json]:
    """Return the rules for session namespaces, from the product's table."""
    return [
        rule(right.resource, *right.verbs, group=right.group)
        for right in PERMISSIONS
        if right.where == "sessions"
    ]


async def create_account(admin: Admin, namespace: str, name: str) -> None:
    path = collection(namespace, "serviceaccounts")
    await admin.expect("POST", path, {"metadata": {"name": name}})


async def account_token(
    admin: Admin,
    namespace: str,
    name: str,
    *,
    seconds: int = TOKEN_S,
    bound_to: dict[str, Any] | None = None,
) -> str:
    """Return a token of an account.

    Args:
        seconds: Its life, `SHORTEST_S` or more.
        bound_to: A Secret; its deletion ends the token.
    """
    spec: dict[str, Any] = {"expirationSeconds": seconds}
    if bound_to is not None:
        found = bound_to["metadata"]
        spec["boundObjectRef"] = {
            "apiVersion": "v1", "kind": "Secret", "name": found["name"], "uid": found["uid"],
        }  # fmt: skip
    path = f"{item(namespace, 'serviceaccounts', name)}/token"
    answer = await admin.expect("POST", path, {"spec": spec})
    return str(answer["status"]["token"])


async def account_kubeconfig(world: "World", namespace: str, name: str) -> Path:
    """Write a kubeconfig for an account into the world's folder."""
    plane = world.control_plane
    token = await account_token(world.admin, namespace, name)
    path = world.folder / f"{namespace}-{name}"
    path.touch(mode=0o600)
    path.write_text(kubeconfig(url=plane.url, ca_file=plane.ca_file, user=name, token=token))
    return path


async def refused(plane: ControlPlane, token: str, *, limit_s: float = 30.0) -> None:
    """Wait until the server refuses a token; it caches an accepted one for 10 s."""
    async with (
        Admin.connect(plane.url, ca_file=plane.ca_file, token=token) as client,
        asyncio.timeout(limit_s),
    ):
        while (await client.call("GET", "/version")).status != 401:
            await asyncio.sleep(0.1)
