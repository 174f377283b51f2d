"""The manifests as an operator applies them: rendered and sent by kubectl."""

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.conftest import require

MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAYS = ("cluster-wide", "namespaces", "mpp", "monitoring", "dev")
LIMIT_S = 60.0

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


SERVICE_MONITOR: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {
            "kind": "ServiceMonitor",
            "plural": "servicemonitors",
            "singular": "servicemonitor",
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["endpoints", "selector"],
                                "properties": {
                                    "selector": {
                                        "type": "object",
                                        "properties": {
                                            "matchLabels": {
                                                "type": "object",
                                                "additionalProperties": {"type": "string"},
                                            }
                                        },
                                    },
                                    "endpoints": {
                                        "type": "array",
                                        "items": {
                                            "type": "object",
                                            "properties": {
                                                "port": {"type": "string"},
                                                "path": {"type": "string"},
                                                "interval": {"type": "string"},
                                            },
                                        },
                                    },
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
}
"""The part of the Prometheus Operator's definition that we use.

Source: prometheus-operator example/prometheus-operator-crd, ServiceMonitor v1.
"""


def write(objects: Iterable[Object], path: Path) -> Path:
    """Write objects to a file that kubectl reads."""
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
    return path


_TEXT: Object = {"type": "string"}
_TEXTS: Object = {"type": "object", "additionalProperties": _TEXT}
RULE_FIELDS: Object = {
    "alert": _TEXT,
    "record": _TEXT,
    "expr": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, _TEXT]},
    "for": _TEXT,
    "labels": _TEXTS,
    "annotations": _TEXTS,
}

PROMETHEUS_RULE: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "prometheusrules.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {
            "kind": "PrometheusRule",
            "plural": "prometheusrules",
            "singular": "prometheusrule",
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "groups": {
                                        "type": "array",
                                        "items": {
                                            "type": "object",
                                            "required": ["name"],
                                            "properties": {
                                                "name": {"type": "string"},
                                                "interval": {"type": "string"},
                                                "rules": {
                                                    "type": "array",
                                                    "items": {
                                                        "type": "object",
                                                        "required": ["expr"],
                                                        "properties": RULE_FIELDS,
                                                    },
                                                },
                                            },
                                        },
                                    }
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
}
"""The same of its PrometheusRule v1."""
