"""One cluster with a real node for the whole session, with the image in it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.assets import find
from tests.assets.programs import NODE_PROGRAMS, PROGRAMS
from tests.cluster.conftest import unavailable
from tests.cluster.controlplane import ControlPlane
from tests.image.__main__ import ARCHIVE
from tests.image.build import ROOT, build_pause
from tests.node import network
from tests.node.node import Node

WANTED = "RECONCILER_NODE_TESTS"
"""Set by `make test-node`, which makes the namespaces that these tests must not run outside of."""

NEEDED = ("containerd", "ctr", "runc", "ip", "buildah")


@pytest.fixture(scope="session")
def programs() -> dict[str, Path]:
    """What a node needs; skips, loudly, outside of `make test-node`."""
    if os.environ.get(WANTED) != "1":
        pytest.skip("a whole node runs in namespaces of its own: run `make test-node` as root")
    if not network.is_ours():
        pytest.fail("this network is not one of our own: run `make test-node`", pytrace=False)
    found = find(PROGRAMS + NODE_PROGRAMS)
    missing = [program.name for program in PROGRAMS + NODE_PROGRAMS if program.name not in found]
    missing += [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        unavailable(f"no {', '.join(missing)}: run `make assets-node`, install the packages")
    if not (ROOT / ARCHIVE).is_file():
        unavailable(f"no {ARCHIVE}: run `make image`")
    return found


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="session")
def node_plane(programs: dict[str, Path]) -> Iterator[ControlPlane]:
    addresses = (network.SERVICE, network.NODE)
    # Nobody resolves the node's name here.
    flags = ["--kubelet-preferred-address-types=InternalIP"]
    with ControlPlane(programs, flags=flags, node_addresses=addresses) as running:
        yield running


@pytest.fixture(scope="session")
def node(programs: dict[str, Path], node_plane: ControlPlane, folder: Path) -> Iterator[Node]:
    """A ready node that has the image, as it was shipped."""
    pause = folder / "pause.tar"
    build_pause(pause)
    with Node(programs, node_plane, folder, images=(ROOT / ARCHIVE, pause)) as ready:
        pause.unlink()
        yield ready
        ready.kubectl("delete", "pods", "--all", "--all-namespaces", "--grace-period=1")
