"""One cluster with a real node for the whole session, with two installations of the image.

Each installation has a separate issuer, client and platform: neither may serve the other's
sessions, although one of them can read the whole cluster.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from tests.assets import find
from tests.assets.programs import NODE_PROGRAMS, PROGRAMS
from tests.cluster.admin import Admin
from tests.cluster.audit import AuditLog
from tests.cluster.conftest import unavailable
from tests.cluster.controlplane import ControlPlane
from tests.cluster.manifests import RESTRICTED
from tests.cluster.world import World, open_world
from tests.image.__main__ import ARCHIVE
from tests.image.build import ROOT, build_pause, load
from tests.node import enforcer, network
from tests.node.guide import blocks, commands
from tests.node.installation import TTL_S, Installation, add_runners, make_home, own_values
from tests.node.node import Node
from tests.node.tenants import Place, account_tokens, install, keep_giving

WANTED = "RECONCILER_NODE_TESTS"
"""Set by `make test-node`, which creates the namespaces that these tests need."""

FIRST = "In three commands"
"""The guide's heading above the installation commands."""

NEEDED = ("containerd", "ctr", "runc", "ip", "buildah", "skopeo", "docker-registry")


@pytest.fixture(scope="session")
def programs() -> dict[str, Path]:
    """The programs of a node; skips the test with a message outside of `make test-node`."""
    if os.environ.get(WANTED) != "1":
        pytest.skip("a whole node runs in namespaces of its own: run `make test-node` as root")
    if not network.is_ours():
        pytest.fail("this network is not one of our own: run `make test-node`", pytrace=False)
    found = find(PROGRAMS + NODE_PROGRAMS)
    missing = [program.name for program in PROGRAMS + NODE_PROGRAMS if program.name not in found]
    missing += [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        unavailable(f"no {', '.join(missing)}: run `make assets-node`, install the packages")
    if why := enforcer.why_not():
        unavailable(why)
    if not (ROOT / ARCHIVE).is_file():
        unavailable(f"no {ARCHIVE}: run `make image`")
    return found


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="session")
def node_audit(folder: Path) -> AuditLog:
    """The requests to the node's API server, from its start."""
    return AuditLog(folder)


@pytest.fixture(scope="session")
def node_plane(programs: dict[str, Path], node_audit: AuditLog) -> Iterator[ControlPlane]:
    addresses = (network.SERVICE, network.NODE)
    # There is no DNS entry for the node's name here.
    flags = ["--kubelet-preferred-address-types=InternalIP", *node_audit.flags]
    with ControlPlane(programs, flags=flags, node_addresses=addresses) as running:
        yield running


@pytest.fixture(scope="session")
def node(programs: dict[str, Path], node_plane: ControlPlane, folder: Path) -> Iterator[Node]:
    """A ready node with the shipped image."""
    pause = folder / "pause.tar"
    load(ROOT / ARCHIVE)
    build_pause(pause)
    with Node(programs, node_plane, folder, images=(ROOT / ARCHIVE, pause)) as ready:
        pause.unlink()
        yield ready
        ready.kubectl("delete", "pods", "--all", "--all-namespaces", "--grace-period=1")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def node_admin(node_plane: ControlPlane) -> AsyncIterator[Admin]:
    async with Admin.connect(
        node_plane.url, ca_file=node_plane.ca_file, token=node_plane.admin_token
    ) as admin:
        yield admin


def platform_of(
    plane: ControlPlane, admin: Admin, folder: Path
) -> AbstractAsyncContextManager[World]:
    """Open a world that pods can reach, on ports that the product's NetworkPolicy allows."""
    return open_world(
        plane, admin, folder, ttl_s=TTL_S, host=network.add_address(),
        issuer_port=network.ISSUER_PORT, platform_port=network.PLATFORM_PORT,
        installs=False,
    )  # fmt: skip


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tenants(
    node: Node,
    node_plane: ControlPlane,
    node_admin: Admin,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Installation]:
    """The overlay `mpp`, installed first: its accounts' tokens must expire during the tests."""
    home = tmp_path_factory.mktemp("tenants")
    async with platform_of(node_plane, node_admin, home) as world:
        # Seals are made with it: under the same one, one installation's sessions were the other's.
        world.issuer.client_secret = "obviously-fake-secret-of-the-tenants"
        made = await install(world, node, home)
        # The tests before the last one take longer than a token's life on a slow machine.
        giving = asyncio.create_task(keep_giving(world))
        yield made
        giving.cancel()
        with suppress(asyncio.CancelledError):
            await giving


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def first_tokens(tenants: Installation) -> dict[Place, str]:
    """The accounts' tokens at the start of the pods."""
    return await account_tokens(tenants)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def installed(
    first_tokens: dict[Place, str],
    node: Node,
    node_plane: ControlPlane,
    node_admin: Admin,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Installation]:
    """An installation by docs/install.md, with only the reader's own values replaced."""
    home = tmp_path_factory.mktemp("home")
    async with platform_of(node_plane, node_admin, home) as world:
        await node_admin.create_namespace("ambient-code", labels=RESTRICTED)
        places = {project: project for project in ("team-a", "team-b")}
        runners = await add_runners(world, node, places, each=2)
        site, guide = blocks("yaml", under=FIRST)[0], blocks("sh", under=FIRST)
        site = own_values(site, world)
        made = Installation(world, node, "ambient-code", make_home(home, site=site), runners)
        image, *rest = commands(guide[0])
        assert image.startswith("docker build")  # done, and the node has it
        for command in (*rest, *commands(guide[1])):
            await made.sh(command)
        yield made
