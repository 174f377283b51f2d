"""The manifests as an operator applies them: rendered and sent by kubectl."""

import json
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.assets import issuers
from tests.assets.definitions import DEFINITIONS
from tests.cluster.conftest import require, unavailable

MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAYS = ("cluster-wide", "namespaces", "mpp", "monitoring", "dev")
LIMIT_S = 60.0
POLL_S = 0.2

RESTRICTED = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
}
"""Labels of a namespace that refuses every pod outside the restricted security standard."""

Object = dict[str, Any]


def kubectl(*arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run kubectl; the caller checks its exit code."""
    config = [] if kubeconfig is None else [f"--kubeconfig={kubeconfig}"]
    return subprocess.run(
        [require("kubectl")["kubectl"], *config, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def render(folder: Path) -> list[Object]:
    """Return the objects that `kubectl apply -k` would send, in its order."""
    done = kubectl("kustomize", str(folder))
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def overlay(name: str) -> list[Object]:
    return render(MANIFESTS / "overlays" / name)


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    return [found for found in objects if found["kind"] in kinds]


def only(objects: Iterable[Object], kind: str) -> Object:
    """Return the one object of a kind."""
    [found] = of_kind(objects, kind)
    return found


def settings_of(objects: Iterable[Object]) -> dict[str, str]:
    """Return the ConfigMap of the Deployment's environment; dashboards are ConfigMaps, too."""
    [found] = [
        one["data"]
        for one in of_kind(objects, "ConfigMap")
        if one["metadata"]["name"].startswith("token-reconciler-settings")
    ]
    return dict(found)


def write(objects: Iterable[Object], path: Path) -> Path:
    """Write objects to a file that kubectl reads."""
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
    return path


def define(kubeconfig: Path, *names: str) -> None:
    """Give a cluster definitions of custom resources that `make assets` has fetched.

    Args:
        names: As in `tests.assets.definitions`.
    """
    wanted = [definition for definition in DEFINITIONS if definition.name in names]
    assert len(wanted) == len(names)
    for definition in wanted:
        if (file := issuers.find(definition)) is None:
            unavailable(f"no definition of {definition.name}: run `make assets`")
        # The longest do not fit into the annotation of a client-side apply.
        done = kubectl("apply", "--server-side", "-f", str(file), kubeconfig=kubeconfig)
        assert done.returncode == 0, done.stderr
    deadline_at = time.monotonic() + LIMIT_S
    established = ("--for=condition=Established", "crd", "--all", "--timeout=30s")
    # `kubectl wait` fails where a definition has no conditions yet.
    while (done := kubectl("wait", *established, kubeconfig=kubeconfig)).returncode != 0:
        assert time.monotonic() < deadline_at, done.stderr
        time.sleep(POLL_S)
