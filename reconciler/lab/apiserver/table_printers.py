"""The tables of `kubectl get`: columns and cells by kind.

Source: kubernetes `pkg/printers/internalversion/printers.go`; the columns that this server has.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from reconciler.clock import EpochTime, parse_utc
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.kinds import Kind, Object

Cells = Callable[[Object, EpochTime], list[Any]]


class Table(NamedTuple):
    """Columns after the name, and a function that returns their cells at an instant."""

    columns: tuple[str, ...]
    cells: Cells
    wide: int = 0
    """Number of the last columns that only `-o wide` shows."""


def age(item: Object, now_s: EpochTime) -> str:
    """Return an object's age as kubectl prints it: with two units below ten of the larger one."""
    created_s = parse_utc(item["metadata"].get("creationTimestamp") or "")
    return "<unknown>" if created_s is None else duration(now_s - created_s)


def duration(seconds: float) -> str:
    """Source: apimachinery `util/duration`, HumanDuration."""
    total = max(0, int(seconds))
    if total < 120:
        return f"{total}s"
    if total < 600:
        return f"{total // 60}m{total % 60}s" if total % 60 else f"{total // 60}m"
    if total < 3 * 3600:
        return f"{total // 60}m"
    if total < 8 * 3600:
        return f"{total // 3600}h{total % 3600 // 60}m"
    if total < 48 * 3600:
        return f"{total // 3600}h"
    return f"{total // 86400}d"


def _pod(item: Object, now_s: EpochTime) -> list[Any]:
    status = item.get("status", {})
    containers = status.get("containerStatuses", ())
    wanted = len(item.get("spec", {}).get("containers", ()))
    ready = sum(1 for container in containers if container.get("ready"))
    restarts = sum(container.get("restartCount", 0) for container in containers)
    phase = "Terminating" if "deletionTimestamp" in item["metadata"] else status.get("phase", "")
    node = item.get("spec", {}).get("nodeName", "<none>")
    return [
        f"{ready}/{wanted}", phase, str(restarts), age(item, now_s),
        status.get("podIP", "<none>"), node,
    ]  # fmt: skip


def _secret(item: Object, now_s: EpochTime) -> list[Any]:
    return [item["type"], len(item.get("data", {})), age(item, now_s)]


def _lease(item: Object, now_s: EpochTime) -> list[Any]:
    return [(item.get("spec") or {}).get("holderIdentity", ""), age(item, now_s)]


def _event(item: Object, now_s: EpochTime) -> list[Any]:
    seen_s = parse_utc(item.get("lastTimestamp") or item.get("eventTime") or "")
    about = item.get("involvedObject", {})
    return [
        age(item, now_s) if seen_s is None else duration(now_s - seen_s),
        item.get("type", ""),
        item.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        item.get("message", ""),
    ]


def _phase(item: Object, now_s: EpochTime) -> list[Any]:
    return [item.get("status", {}).get("phase", ""), age(item, now_s)]


def _node(item: Object, now_s: EpochTime) -> list[Any]:
    conditions = item.get("status", {}).get("conditions", ())
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return ["Ready" if ready else "NotReady", age(item, now_s)]


def _age(item: Object, now_s: EpochTime) -> list[Any]:
    return [age(item, now_s)]


_TABLES = {
    kinds.PODS: Table(("Ready", "Status", "Restarts", "Age", "IP", "Node"), _pod, wide=2),
    kinds.SECRETS: Table(("Type", "Data", "Age"), _secret),
    kinds.LEASES: Table(("Holder", "Age"), _lease),
    kinds.EVENTS: Table(("Last Seen", "Type", "Reason", "Object", "Message"), _event),
    kinds.NAMESPACES: Table(("Status", "Age"), _phase),
    kinds.NODES: Table(("Status", "Age"), _node),
    kinds.SERVICE_ACCOUNTS: Table(("Age",), _age),
}


def table_of(
    kind: Kind,
    items: Sequence[Object],
    metadata: dict[str, Any],
    *,
    now_s: EpochTime,
    headed: bool = True,
) -> dict[str, Any]:
    """Return a `meta.k8s.io/v1` Table; a watch sends the columns in its first event only."""
    table = _TABLES[kind]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": _columns(table) if headed else None,
        "rows": [
            {
                "cells": [item["metadata"]["name"], *table.cells(item, now_s)],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": item["metadata"],
                },
            }
            for item in items
        ],
    }


def _columns(table: Table) -> list[dict[str, Any]]:
    names = ("Name", *table.columns)
    return [
        {
            "name": name,
            "type": "string",
            "format": "name" if index == 0 else "",
            "description": "",
            "priority": int(index >= len(names) - table.wide),
        }
        for index, name in enumerate(names)
    ]
