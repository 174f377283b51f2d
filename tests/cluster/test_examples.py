"""Every file of manifests/examples: rendered, and sent to the real API server as a dry run."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.settings import Settings
from tests.cluster.controlplane import ControlPlane
from tests.cluster.helm import comparable, template
from tests.cluster.manifests import (
    MANIFESTS,
    Object,
    define,
    kubectl,
    of_kind,
    only,
    render,
    settings_of,
    write,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

EXAMPLES = MANIFESTS / "examples"
ROOT = MANIFESTS.parent
SITES = sorted(
    str(path.parent.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("kustomization.yaml")
)
VALUES = sorted(str(path.parent.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("values.yaml"))
DELIVERIES = sorted(
    str(path.relative_to(EXAMPLES))
    for folder in ("argo-cd", "flux")
    for path in (EXAMPLES / folder).glob("*.yaml")
)
NAMESPACES = ("ambient-code", "argocd", "flux-system")
PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
TOKEN_URL = "https://issuer.example/realms/platform/protocol/openid-connect/token"


@pytest.fixture(scope="module")
def kubeconfig(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An admin's kubeconfig for a cluster with the definitions of Argo CD and Flux."""
    folder = tmp_path_factory.mktemp("examples")
    path = control_plane.kubeconfig(folder / "config")
    namespaces: list[Object] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES
    ]
    needed = write(namespaces, folder / "namespaces.json")
    assert kubectl("apply", "-f", str(needed), kubeconfig=path).returncode == 0
    define(path, "application", "applicationset", "helmrelease", "kustomization", "gitrepository")
    return path


def accepted(file: Path, kubeconfig: Path) -> None:
    """Check that the server accepts objects strictly and without a warning."""
    done = kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", str(file), kubeconfig=kubeconfig
    )
    assert (done.returncode, done.stderr) == (0, "")


def delivered(name: str) -> Object:
    return dict(yaml.safe_load((EXAMPLES / name).read_text()))


def check_settings(objects: list[Object]) -> None:
    """Check that every variable is one that the product reads, and that the issuer is named."""
    [container] = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    given = settings_of(objects) | {one["name"]: one.get("value") for one in container["env"]}
    known = {str(field.validation_alias) for field in Settings.model_fields.values()} | PROXIES
    assert {name for name in given if not name.startswith("OTEL_")} <= known
    assert "OIDC_TOKEN_URL" in given


class TestSites:
    @pytest.mark.parametrize("site", SITES)
    def test_are_accepted(self, site: str, kubeconfig: Path, tmp_path: Path) -> None:
        objects = render(EXAMPLES / site)
        accepted(write(objects, tmp_path / "all.json"), kubeconfig)
        if not site.endswith("/base"):
            check_settings(objects)

    @pytest.mark.parametrize("site", VALUES)
    def test_are_made_by_the_chart_as_well(
        self, site: str, kubeconfig: Path, tmp_path: Path
    ) -> None:
        by_helm = template("ambient-code", f"--values={EXAMPLES / site}/values.yaml")
        accepted(write(by_helm, tmp_path / "all.json"), kubeconfig)
        ours, theirs = comparable(by_helm), comparable(_labelled(render(EXAMPLES / site)))
        # kustomize adds a second policy, the chart a port to the one that it has.
        added = theirs.pop(("NetworkPolicy", "ambient-code", "token-reconciler-egress"), None)
        if added is not None:
            policy = ours[("NetworkPolicy", "ambient-code", "token-reconciler")]
            policy["spec"]["egress"][-1]["ports"].remove(added["spec"]["egress"][0]["ports"][0])
        assert ours == theirs


class TestDeliveries:
    @pytest.mark.parametrize("name", DELIVERIES)
    def test_are_accepted(self, name: str, kubeconfig: Path) -> None:
        accepted(EXAMPLES / name, kubeconfig)

    @pytest.mark.parametrize("name", DELIVERIES)
    def test_would_be_refused_with_a_field_that_does_not_exist(
        self, name: str, kubeconfig: Path, tmp_path: Path
    ) -> None:
        wrong = delivered(name)
        wrong["spec"]["obviouslyWrong"] = True
        file = write([wrong], tmp_path / "wrong.json")
        done = kubectl(
            "apply", "--dry-run=server", "--validate=strict", "-f", str(file), kubeconfig=kubeconfig
        )
        assert done.returncode != 0
        assert "obviouslyWrong" in done.stderr

    @pytest.mark.parametrize("name", ["argo-cd/kustomize.yaml", "flux/kustomize.yaml"])
    def test_of_the_overlay_apply_a_site_that_the_server_accepts(
        self, name: str, kubeconfig: Path, tmp_path: Path
    ) -> None:
        objects = render(_as_kustomization(delivered(name), tmp_path))
        accepted(write(objects, tmp_path / "all.json"), kubeconfig)
        check_settings(objects)
        [container] = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "registry.example/runner-token-reconciler:0.1.0"
        assert {"name": "OIDC_TOKEN_URL", "value": TOKEN_URL} in container["env"]

    @pytest.mark.parametrize(
        "name", ["argo-cd/helm.yaml", "argo-cd/several-clusters.yaml", "flux/helm.yaml"]
    )
    def test_of_the_chart_apply_values_that_the_server_accepts(
        self, name: str, kubeconfig: Path, tmp_path: Path
    ) -> None:
        chart, values = _chart_of(delivered(name))
        assert (ROOT / chart).resolve() == MANIFESTS / "chart"
        file = tmp_path / "values.json"
        file.write_text(json.dumps(values))
        objects = template("ambient-code", f"--values={file}")
        accepted(write(objects, tmp_path / "all.json"), kubeconfig)
        check_settings(objects)

    def test_of_flux_name_the_source_that_is_there(self) -> None:
        source = delivered("flux/source.yaml")
        kustomization, release = delivered("flux/kustomize.yaml"), delivered("flux/helm.yaml")
        wanted = {"kind": source["kind"], "name": source["metadata"]["name"]}
        assert kustomization["spec"]["sourceRef"] == wanted
        assert release["spec"]["chart"]["spec"]["sourceRef"] == wanted


def _labelled(objects: list[Object]) -> list[Object]:
    """Give the objects that a site adds the labels of the others."""
    labels = only(objects, "Deployment")["metadata"]["labels"]
    for one in objects:
        one["metadata"].setdefault("labels", dict(labels))
    return objects


def _as_kustomization(found: Object, folder: Path) -> Path:
    """Write what Argo CD or Flux make of their object: a kustomization of the same fields."""
    spec = found["spec"]
    if found["kind"] == "Application":
        path, tuning = spec["source"]["path"], spec["source"]["kustomize"]
        images = [_image(one) for one in tuning["images"]]
    else:
        path, tuning, images = spec["path"], spec, spec["images"]
    target = os.path.relpath(ROOT / path, folder.resolve())
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": [target], "images": images, "patches": tuning["patches"]})
    )
    return folder


def _image(text: str) -> dict[str, str]:
    """Return an image as kustomize writes it.

    Source: kustomize `edit set image`, NAME=NEWNAME:TAG.
    """
    name, _, new = text.partition("=")
    new_name, _, tag = new.rpartition(":")
    return {"name": name, "newName": new_name, "newTag": tag}


def _chart_of(found: Object) -> tuple[str, dict[str, Any]]:
    """Return the chart's path in the repository and the values."""
    spec = found["spec"]
    if found["kind"] == "HelmRelease":
        return spec["chart"]["spec"]["chart"], spec["values"]
    if found["kind"] == "ApplicationSet":
        spec = spec["template"]["spec"]
    return spec["source"]["path"], spec["source"]["helm"]["valuesObject"]


def test_no_example_holds_a_secret() -> None:
    for site in SITES:
        assert not of_kind(render(EXAMPLES / site), "Secret")
