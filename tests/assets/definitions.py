"""Definitions of custom resources, each one file of a Go module that publishes it."""

import hashlib
import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

from tests.assets.build import BuildError
from tests.assets.issuers import FETCH_LIMIT_S, Package

ARGO_CD = "v3.5.7"
HELM_CONTROLLER = "v1.4.0"
KUSTOMIZE_CONTROLLER = "v1.9.6"
SOURCE_CONTROLLER = "v1.9.6"
PROMETHEUS_OPERATOR = "v0.85.0"

_FILE = "definition.yaml"


def _definition(name: str, module: str, version: str, path: str, sha256: str) -> Package:
    fetch = partial(_fetch, f"{module}@{version}", path, sha256)
    return Package(name, version, "go", fetch, _FILE)


def _fetch(module: str, path: str, sha256: str, folder: Path) -> None:
    """Download a module, and keep one file of it; the rest may be hundreds of megabytes."""
    modules = folder / "modules"
    environment = os.environ | {"GOMODCACHE": str(modules), "GOFLAGS": "-modcacherw"}
    try:
        done = subprocess.run(
            ["go", "mod", "download", "-json", module],
            cwd=folder, env=environment, check=False, capture_output=True, text=True,
            timeout=FETCH_LIMIT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"go mod download {module}: {error}") from None
    if done.returncode != 0:
        raise BuildError(f"go mod download {module} exits {done.returncode}: {done.stdout}")
    content = (Path(json.loads(done.stdout)["Dir"]) / path).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BuildError(f"{path} of {module} has the digest {found}, not {sha256}")
    (folder / _FILE).write_bytes(content)
    shutil.rmtree(modules)


DEFINITIONS = (
    _definition(
        "application",
        "github.com/argoproj/argo-cd/v3",
        ARGO_CD,
        "manifests/crds/application-crd.yaml",
        "5dde0e229249b6b707beb98674c1deae3949d5c319a6c45b9f5a80c99618e40c",
    ),
    _definition(
        "applicationset",
        "github.com/argoproj/argo-cd/v3",
        ARGO_CD,
        "manifests/crds/applicationset-crd.yaml",
        "7d282054f41ca2b71a22bab04a8caf0000e07e53a62432e6ea292dae5ab4f07d",
    ),
    _definition(
        "helmrelease",
        "github.com/fluxcd/helm-controller",
        HELM_CONTROLLER,
        "config/crd/bases/helm.toolkit.fluxcd.io_helmreleases.yaml",
        "96d8f931a7a0732f3b169f540af2b2af5ec3b37d3478c8beee70be21416a7259",
    ),
    _definition(
        "kustomization",
        "github.com/fluxcd/kustomize-controller",
        KUSTOMIZE_CONTROLLER,
        "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml",
        "da23ca0e6b4c80d3d26a91583137491e147ef4ef1e2208aece0d0af4ef851974",
    ),
    _definition(
        "gitrepository",
        "github.com/fluxcd/source-controller",
        SOURCE_CONTROLLER,
        "config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml",
        "bd0c08183287b2eea0d885751fc686bc4b2b583e919de6bd57859170b8d1727f",
    ),
    _definition(
        "servicemonitor",
        "github.com/prometheus-operator/prometheus-operator",
        PROMETHEUS_OPERATOR,
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "1dae27b7189b5ce7b9ab764656c18b4c75a45cde1e6f3af6a5e84c4317628919",
    ),
    _definition(
        "prometheusrule",
        "github.com/prometheus-operator/prometheus-operator",
        PROMETHEUS_OPERATOR,
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "98fd16c9ab79fba8dcd6ef62c957c98cd6546ab74ce0a4ecf09ddf2fda03020e",
    ),
)
"""Of Argo CD, Flux and the Prometheus Operator; the newest that Go 1.26 can download."""
