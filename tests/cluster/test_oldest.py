"""The oldest supported API server: it accepts the manifests, and the product works on it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.assets import find
from tests.assets.programs import OLDEST_APISERVER
from tests.cluster.admin import Admin
from tests.cluster.conftest import require, unavailable
from tests.cluster.controlplane import ControlPlane
from tests.cluster.helm import template, values_of
from tests.cluster.manifests import OVERLAYS, Object, define, kubectl, only, overlay, write
from tests.cluster.world import ExpiryWatch, World, open_world
from tests.controller import running

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

TTL_S = 20.0


@pytest.fixture(scope="module")
def oldest() -> Iterator[ControlPlane]:
    binaries = require("etcd", "kubectl", "helm")
    found = find([OLDEST_APISERVER])
    if not found:
        unavailable(f"no kube-apiserver {OLDEST_APISERVER.version}: run `make assets`")
    with ControlPlane(binaries | found) as plane:
        yield plane


@pytest.fixture(scope="module")
def kubeconfig(oldest: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oldest")
    path = oldest.kubeconfig(folder / "config")
    homes = {only(overlay(name), "ServiceAccount")["metadata"]["namespace"] for name in OVERLAYS}
    namespaces: list[Object] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        for name in sorted({*homes, "team-a", "team-b"})
    ]
    done = kubectl("apply", "-f", str(write(namespaces, folder / "n.json")), kubeconfig=path)
    assert done.returncode == 0, done.stderr
    define(path, "servicemonitor", "prometheusrule")
    return path


@pytest.fixture
async def world(oldest: ControlPlane, tmp_path: Path) -> AsyncIterator[World]:
    async with (
        Admin.connect(oldest.url, ca_file=oldest.ca_file, token=oldest.admin_token) as admin,
        open_world(oldest, admin, tmp_path, ttl_s=TTL_S) as opened,
    ):
        project = await opened.add_project()
        for _ in range(3):
            await opened.add(project)
        yield opened


async def test_it_is_of_the_version_that_is_supported(oldest: ControlPlane) -> None:
    async with Admin.connect(oldest.url, ca_file=oldest.ca_file, token=oldest.admin_token) as admin:
        found = await admin.expect("GET", "/version")
    assert found["gitVersion"] == OLDEST_APISERVER.version
    support = (Path(__file__).parents[2] / "docs/support.md").read_text()
    assert f"| Kubernetes | {found['major']}.{found['minor']} or later" in support


@pytest.mark.parametrize("mode", OVERLAYS)
def test_it_takes_every_object_of_overlay_and_chart(
    mode: str, kubeconfig: Path, tmp_path: Path
) -> None:
    home = only(overlay(mode), "ServiceAccount")["metadata"]["namespace"]
    for objects in (overlay(mode), template(home, f"--values={values_of(mode)}")):
        file = write(objects, tmp_path / "all.json")
        done = kubectl(
            "apply", "--dry-run=server", "--validate=strict", "-f", str(file), kubeconfig=kubeconfig
        )
        assert (done.returncode, done.stderr) == (0, "")


async def test_the_product_keeps_tokens_valid_under_its_rights_and_policies(world: World) -> None:
    watch = ExpiryWatch(world)
    settings = world.environment(RECONCILER_PROPAGATION_ALLOWANCE_S="2")
    async with watch.running(), running(settings) as controller:
        await controller.wait_for_event("startup_resync_finished")
        count = 3 * len(world.runners)
        await controller.wait_for_event("runner_token_refreshed", count=count, limit_s=60.0)
        assert not controller.events("write_refused")
        watch.close()
    assert watch.expired_s == 0.0
    assert min(watch.versions[name] for name in watch.versions) >= 2
