"""What the shell offers after a TAB: contexts, namespaces and pods as they are in the cluster."""

import asyncio
from collections.abc import Mapping
from typing import Any

from reconciler.cli.cluster import Access, Cluster, open_cluster
from reconciler.cli.pod_selection import PodSelection
from reconciler.errors import ReconcilerError
from reconciler.kube.auth.contexts import context_names
from reconciler.settings import read_settings

LIMIT_S = 3.0
"""Longest wait for the cluster; whoever pressed TAB waits for it."""


def suggest(kind: str, typed: Mapping[str, Any], incomplete: str) -> list[str]:
    """Return what may stand here, in order.

    A cluster that cannot be asked offers nothing: an error here would land in the line that is
    being typed, and the command itself will say it.

    Args:
        kind: `context`, `namespace`, `output` or `pod`.
        typed: The options before it, by parameter name.
    """
    access = Access(typed.get("kubeconfig") or "", typed.get("context") or "")
    try:
        if kind == "output":
            found = ["table", "json"]
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
        within, slash, _ = incomplete.partition("/")
        if slash:
            pods = await cluster.session_pods(within)
            return sorted(f"{within}/{pod.name}" for pod in pods)
        scope = PodSelection(namespace=namespace).scope(cluster.context.namespace)
        return sorted(pod.name for pod in await cluster.session_pods(scope))


async def _namespaces(cluster: Cluster) -> list[str]:
    """Return where session pods are: an operator may see pods and no namespaces."""
    return sorted({pod.namespace for pod in await cluster.session_pods(None)})
