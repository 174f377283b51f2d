"""Shell completion of contexts, namespaces and pods, from the kubeconfig and the cluster."""

import asyncio
from collections.abc import Mapping
from typing import Any

from reconciler.cli import explain, fleet_output
from reconciler.cli.cluster import Access, Cluster, open_cluster
from reconciler.cli.pod_selection import PodSelection
from reconciler.errors import ReconcilerError
from reconciler.inspection.printers import SORT_FIELDS
from reconciler.kube.auth.contexts import context_names
from reconciler.settings import read_settings

_WORDS = {
    "output": explain.FORMATS,
    "fleet_output": fleet_output.FORMATS,
    "sort_field": [f".{name}" for name in SORT_FIELDS],
}
"""The candidates that need no cluster."""

LIMIT_S = 3.0
"""Longest wait for the cluster after TAB was pressed."""


def suggest(kind: str, typed: Mapping[str, Any], incomplete: str) -> list[str]:
    """Return the candidates, in order.

    A cluster that fails gives none: an error would be printed into the line that is being typed,
    and the command itself reports it.

    Args:
        kind: `context`, `namespace`, `pod`, or one of `_WORDS`.
        typed: The options before the word, by parameter name.
    """
    access = Access(typed.get("kubeconfig") or "", typed.get("context") or "")
    try:
        if kind in _WORDS:
            found = [*_WORDS[kind]]
        elif kind == "context":
            found = context_names(access.kubeconfig or read_settings().kubeconfig)
        else:
            found = asyncio.run(_ask(kind, access, typed.get("namespace") or "", incomplete))
    except (ReconcilerError, TimeoutError):
        return []
    return [word for word in found if word.startswith(incomplete)]


async def _ask(kind: str, access: Access, namespace: str, incomplete: str) -> list[str]:
    async with asyncio.timeout(LIMIT_S), open_cluster(access) as cluster:
        if kind == "namespace":
            return await _namespaces(cluster)
        pod_namespace, slash, _ = incomplete.partition("/")
        if slash:
            pods = await cluster.session_pods(pod_namespace)
            return sorted(f"{pod_namespace}/{pod.name}" for pod in pods)
        scope = PodSelection(namespace=namespace).scope(cluster.context.namespace)
        return sorted(pod.name for pod in await cluster.session_pods(scope))


async def _namespaces(cluster: Cluster) -> list[str]:
    """Return the namespaces of session pods; the user may lack the right to list namespaces."""
    return sorted({pod.namespace for pod in await cluster.session_pods(None)})
