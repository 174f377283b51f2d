"""The chart as an operator installs it: by Helm, built from its Go module."""

import os
import subprocess
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.conftest import require
from tests.cluster.manifests import MANIFESTS, Object

CHART = MANIFESTS / "chart"
RELEASE = "token-reconciler"
LIMIT_S = 60.0

HELM_LABELS = ("app.kubernetes.io/managed-by", "helm.sh/chart")
"""Labels that name the tool: kustomize's and Helm's objects differ in them."""


def helm(*arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Helm without the caller's own configuration; the caller checks its exit code."""
    config = [] if kubeconfig is None else [f"--kubeconfig={kubeconfig}"]
    with tempfile.TemporaryDirectory(prefix="helm-") as home:
        return subprocess.run(
            [require("helm")["helm"], *arguments, *config],
            env={"PATH": os.environ["PATH"], "HOME": home},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )


def values_of(mode: str) -> Path:
    """Return the file with the values that make the chart an overlay of that name."""
    return CHART / "ci" / f"{mode}-values.yaml"


def template(namespace: str, *arguments: str, release: str = RELEASE) -> list[Object]:
    """Return the objects that `helm install` would send."""
    done = helm("template", release, str(CHART), f"--namespace={namespace}", *arguments)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


Name = tuple[str, str | None, str]
"""Kind, namespace and name of an object."""


def comparable(objects: list[Object]) -> dict[Name, Object]:
    """Return objects by name, without what Helm and kustomize do in ways of their own.

    That is: the labels that name the tool, the hash in the ConfigMap's name (kustomize) or in an
    annotation of the pods (Helm), by which a changed setting rolls out the Deployment, and the
    order of volumes.
    """
    found: dict[Name, Object] = {}
    for one in deepcopy(objects):
        metadata = one["metadata"]
        _without_tool(metadata)
        metadata["name"] = _without_hash(metadata["name"])
        if one["kind"] == "Deployment":
            _settle_pods(one["spec"]["template"])
        name = (one["kind"], metadata.get("namespace"), metadata["name"])
        assert name not in found
        found[name] = one
    return found


def _without_tool(metadata: dict[str, Any]) -> None:
    for label in HELM_LABELS:
        metadata["labels"].pop(label, None)


def _without_hash(name: str) -> str:
    prefix = f"{RELEASE}-settings"
    return prefix if name.startswith(prefix) else name


def _settle_pods(pods: Object) -> None:
    _without_tool(pods["metadata"])
    pods["metadata"]["annotations"].pop("checksum/settings", None)
    pods["spec"]["volumes"].sort(key=lambda volume: volume["name"])
    [container] = pods["spec"]["containers"]
    container["volumeMounts"].sort(key=lambda mount: mount["name"])
    for source in container["envFrom"]:
        source["configMapRef"]["name"] = _without_hash(source["configMapRef"]["name"])
