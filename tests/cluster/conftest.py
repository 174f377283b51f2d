"""One real control plane for the whole test session, and a fresh namespace for each test."""

import os
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.assets import find
from tests.cluster.admin import Admin
from tests.cluster.controlplane import ControlPlane

NEEDED = ("etcd", "kube-apiserver")

REQUIRE = "RECONCILER_REQUIRE_CLUSTER"
"""Set to 1, it turns the skip into a failure: for CI, where a silent skip would prove nothing."""


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A ready control plane; a test that takes it down must bring it back."""
    binaries = find()
    missing = [name for name in NEEDED if name not in binaries]
    if missing:
        reason = f"no {' and no '.join(missing)}: run `make assets` to build what is missing"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{reason} ({REQUIRE}=1)", pytrace=False)
        pytest.skip(reason)
    with ControlPlane(binaries) as running:
        yield running


@pytest.fixture
async def admin(control_plane: ControlPlane) -> AsyncIterator[Admin]:
    """A client that may do everything."""
    async with Admin.connect(
        control_plane.url, ca_file=control_plane.ca_file, token=control_plane.admin_token
    ) as client:
        yield client


@pytest.fixture
async def namespace(admin: Admin) -> str:
    """The name of a namespace that no other test uses; it goes with the control plane."""
    name = f"test-{secrets.token_hex(4)}"
    await admin.create_namespace(name)
    return name
