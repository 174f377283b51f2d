"""The component with shards: what an operator applies, and the same on the real API server."""

import os
from pathlib import Path

import pytest

from reconciler.naming import Shard
from reconciler.settings import Settings, read_settings
from tests.cluster.admin import Admin, collection
from tests.cluster.controlplane import ControlPlane
from tests.cluster.manifests import (
    MANIFESTS,
    RESTRICTED,
    Object,
    kubectl,
    of_kind,
    only,
    overlay,
    render,
    write,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

LABEL = "ambient-code.io/shard"


def container(deployment: Object) -> Object:
    [one] = deployment["spec"]["template"]["spec"]["containers"]
    return dict(one)


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return overlay("shards")


def settings_of(deployment: Object, patch: pytest.MonkeyPatch) -> Settings:
    [variable] = [one for one in container(deployment)["env"] if one["name"] == "RECONCILER_SHARD"]
    patch.setenv("RECONCILER_SHARD", variable["value"])
    return read_settings()


def named(objects: list[Object], kind: str) -> list[str]:
    return [one["metadata"]["name"] for one in of_kind(objects, kind)]


def test_each_shard_has_one_deployment_of_two_replicas(
    objects: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployments = of_kind(objects, "Deployment")
    shards = [settings_of(one, monkeypatch).shard for one in deployments]
    assert shards == [Shard(index, len(shards)) for index in range(3)]
    for shard, one in zip(shards, deployments, strict=True):
        assert one["metadata"]["name"] == f"token-reconciler-{shard.index}"
        assert one["spec"]["replicas"] == 2
        assert one["spec"]["strategy"] == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_the_role_has_the_leases_of_the_shards_and_that_of_the_deployment_before_them(
    objects: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    [role] = of_kind(objects, "Role")
    [names] = [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule]
    leases = [settings_of(one, monkeypatch).lease for one in of_kind(objects, "Deployment")]
    assert names == ["token-reconciler", *leases]


def test_budget_and_spread_of_a_shard_are_of_its_own_replicas(objects: list[Object]) -> None:
    budgets = {one["metadata"]["name"]: one for one in of_kind(objects, "PodDisruptionBudget")}
    for one in of_kind(objects, "Deployment"):
        template = one["spec"]["template"]
        selectors = [
            one["spec"]["selector"]["matchLabels"],
            budgets.pop(one["metadata"]["name"])["spec"]["selector"]["matchLabels"],
            *(
                spread["labelSelector"]["matchLabels"]
                for spread in template["spec"]["topologySpreadConstraints"]
            ),
        ]
        index = template["metadata"]["labels"][LABEL]
        assert all(selector[LABEL] == index for selector in selectors)
        assert all(
            selector.items() <= template["metadata"]["labels"].items() for selector in selectors
        )
    assert budgets == {}


def test_service_and_network_policy_are_of_all_shards(objects: list[Object]) -> None:
    selectors = [
        only(objects, "Service")["spec"]["selector"],
        only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    for one in of_kind(objects, "Deployment"):
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert all(selector.items() <= labels.items() for selector in selectors)


def test_all_but_the_replicas_is_what_an_installation_without_shards_has(
    objects: list[Object],
) -> None:
    own = ("Deployment", "PodDisruptionBudget")
    role = only(objects, "Role")["metadata"]["name"]

    def others(found: list[Object]) -> list[Object]:
        return [one for one in found if one["kind"] not in own and one["metadata"]["name"] != role]

    assert others(objects) == others(overlay("cluster-wide"))
    [without] = of_kind(overlay("cluster-wide"), "Deployment")
    for one in of_kind(objects, "Deployment"):
        env = [each for each in container(one)["env"] if each["name"] != "RECONCILER_SHARD"]
        assert container(one) | {"env": env} == container(without)


def test_the_component_fits_into_an_overlay_with_other_accounts_and_namespace(
    tmp_path: Path,
) -> None:
    mpp = (MANIFESTS / "overlays/mpp/kustomization.yaml").read_text()
    here = os.path.relpath(MANIFESTS, tmp_path.resolve())
    for name in ("settings.env", "accounts.yaml"):
        (tmp_path / name).write_text((MANIFESTS / "overlays/mpp" / name).read_text())
    (tmp_path / "kustomization.yaml").write_text(
        mpp.replace("../../base", f"{here}/base")
        + f"components: [{here}/components/shards, {here}/components/monitoring]\n"
    )
    objects = render(tmp_path)
    [without] = of_kind(overlay("mpp"), "Deployment")
    found = of_kind(objects, "Deployment")
    assert named(objects, "Deployment") == [f"token-reconciler-{index}" for index in range(3)]
    namespace = without["metadata"]["namespace"]
    assert {one["metadata"]["namespace"] for one in objects if "namespace" in one["metadata"]} == {
        namespace
    }
    for one in found:
        assert container(one)["volumeMounts"] == container(without)["volumeMounts"]
        assert container(one)["envFrom"] == container(without)["envFrom"]


@pytest.fixture(scope="module")
def kubeconfig(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    path = control_plane.kubeconfig(folder / "config")
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "ambient-code", "labels": RESTRICTED},
    }
    done = kubectl("apply", "-f", str(write([namespace], folder / "needed.json")), kubeconfig=path)
    assert done.returncode == 0, done.stderr
    return path


def test_the_server_takes_every_object_strictly_and_without_a_warning(
    objects: list[Object], kubeconfig: Path, tmp_path: Path
) -> None:
    file = write(objects, tmp_path / "all.json")
    done = kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", str(file), kubeconfig=kubeconfig
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_the_server_takes_the_pods_into_restricted_namespaces(
    objects: list[Object], admin: Admin, kubeconfig: Path
) -> None:
    for one in of_kind(objects, "Deployment"):
        pod = dict(one["spec"]["template"])
        pod["metadata"] = pod["metadata"] | {"generateName": "token-reconciler-"}
        await admin.expect("POST", collection("ambient-code", "pods"), pod, dryRun="All")
