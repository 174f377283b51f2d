"""The dashboard as Grafana reads it, and its queries as Grafana sends them."""

import json
import re
from typing import Any

from tests.alerts.rules import DASHBOARD

Panel = dict[str, Any]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def everything() -> list[Panel]:
    """Return the panels and the rows."""
    found: list[Panel] = dashboard()["panels"]
    return found


def panels() -> list[Panel]:
    return [each for each in everything() if each["type"] != "row"]


def annotations() -> list[Panel]:
    found: list[Panel] = dashboard()["annotations"]["list"]
    return found


def queries(panel: Panel, *, namespace: str = "ambient-code", window: str = "5m") -> list[str]:
    """Return a panel's expressions as Grafana sends them for all clusters."""
    return [
        filled(target["expr"], namespace=namespace, window=window) for target in panel["targets"]
    ]


def filled(expression: str, *, namespace: str = "ambient-code", window: str = "5m") -> str:
    """Return an expression with Grafana's variables filled in, for all clusters."""
    ranged = re.sub(r"\$__rate_interval|\$__range", window, expression)
    return ranged.replace("$namespace", namespace).replace("$cluster", ".*")
