"""One real control plane for the whole test session, and a fresh namespace for each test."""

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

from tests.assets import find
from tests.cluster.admin import Admin
from tests.cluster.controlplane import ControlPlane

NEEDED = ("etcd", "kube-apiserver")

REQUIRE = "RECONCILER_REQUIRE_CLUSTER"
"""Set to 1, it turns the skip into a failure: in CI a skip would prove nothing."""


def require(*names: str) -> dict[str, Path]:
    """Return the real programs, or skip the test (fail it if `REQUIRE` is set)."""
    binaries = _found()
    missing = [name for name in names if name not in binaries]
    if missing:
        unavailable(f"no {' and no '.join(missing)}: run `make assets` to build what is missing")
    return binaries


def unavailable(reason: str) -> NoReturn:
    """Skip the calling test, or fail it if `REQUIRE` is set."""
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{reason} ({REQUIRE}=1)", pytrace=False)
    pytest.skip(reason)


@cache
def _found() -> dict[str, Path]:
    return find()


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A ready control plane; a test that stops it must start it again."""
    binaries = require(*NEEDED)
    with ControlPlane(binaries) as running:
        yield running


@pytest.fixture
async def admin(control_plane: ControlPlane) -> AsyncIterator[Admin]:
    """A client with all permissions."""
    async with Admin.connect(
        control_plane.url, ca_file=control_plane.ca_file, token=control_plane.admin_token
    ) as client:
        yield client


@pytest.fixture
async def namespace(admin: Admin) -> str:
    """The name of a namespace that no other test uses; it ends with the control plane."""
    name = f"test-{secrets.token_hex(4)}"
    await admin.create_namespace(name)
    return name
