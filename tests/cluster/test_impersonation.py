"""`as` of a kubeconfig on a real API server: the user in the answer of `whoami`."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler.clock import SystemClock
from reconciler.errors import Forbidden
from reconciler.kube.api import ListOptions
from reconciler.kube.auth.credentials import find_credentials
from reconciler.kube.client import HttpKube
from reconciler.kube.decoding import metadata_resource, resource, struct_decoder
from reconciler.naming import Names
from tests.cluster.controlplane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]


class _User(msgspec.Struct):
    username: str
    uid: str = ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}


class _Status(msgspec.Struct):
    user: _User = msgspec.field(name="userInfo")


class _Review(msgspec.Struct):
    status: _Status


WHOAMI = resource(
    "selfsubjectreviews",
    group="authentication.k8s.io",
    version="v1",
    partial=False,
    decode=struct_decoder(_Review),
)
BODY = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


def as_user(control_plane: ControlPlane, path: Path, **fields: Any) -> str:
    """Write the admin's kubeconfig with these fields of its user."""
    merged = json.loads(control_plane.kubeconfig(path).read_text())
    merged["users"][0]["user"] |= {name.replace("_", "-"): value for name, value in fields.items()}
    path.write_text(json.dumps(merged))
    return str(path)


async def test_the_server_sees_the_user_that_is_impersonated(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    config = as_user(
        control_plane,
        tmp_path / "config",
        **{"as": "limited", "as_uid": "u-1", "as_groups": ["team-a", "team-b"]},
        as_user_extra={"scopes.example/x": ["one", "two"]},
    )
    names = Names()
    async with HttpKube(find_credentials(config, SystemClock()), names, connections=2) as kube:
        found = (await kube.create(WHOAMI, "", BODY)).status.user
        with pytest.raises(Forbidden):
            await kube.list(metadata_resource("secrets", names), ListOptions("default"))
    assert (found.username, found.uid) == ("limited", "u-1")
    assert {"team-a", "team-b"} <= set(found.groups)
    assert "system:masters" not in found.groups
    assert found.extra == {"scopes.example/x": ["one", "two"]}


async def test_without_it_the_server_sees_the_account_itself(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    config = as_user(control_plane, tmp_path / "config")
    async with HttpKube(find_credentials(config, SystemClock()), Names(), connections=2) as kube:
        found = (await kube.create(WHOAMI, "", BODY)).status.user
    assert "system:masters" in found.groups
