"""The rules and the dashboard as they are shipped, and Prometheus' own programs for them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.telemetry import metrics
from tests.cluster.conftest import REQUIRE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "manifests" / "chart" / "files" / "alerts"
DASHBOARD = FOLDER / "dashboard.json"
RUNBOOKS = "docs/runbooks.md"
LIMIT_S = 30.0

TARGET = frozenset({"cluster", "job", "namespace", "exported_namespace", "instance", "le"})
"""Labels that come from the scrape, and a bucket's own."""

Rule = dict[str, Any]


def program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`; skip, or fail where that is asked for."""
    found = shutil.which(name)
    if found is not None:
        return found
    reason = f"no {name}: install Debian's package prometheus"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{reason} ({REQUIRE}=1)", pytrace=False)
    pytest.skip(reason)


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool"), *words], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def resource() -> dict[str, Any]:
    """Return the PrometheusRule."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / "rules.yaml").read_text())
    return found


def rules() -> list[Rule]:
    return [rule for group in resource()["spec"]["groups"] for rule in group["rules"]]


def alerts() -> list[Rule]:
    return [rule for rule in rules() if "alert" in rule]


def write_rules(path: Path, *, faster: float = 1.0) -> Path:
    """Write what Prometheus itself reads.

    Args:
        faster: Divide by it what is waited for, and how far back is looked; never below a second.
    """
    spec = resource()["spec"]
    if faster != 1.0:
        for group in spec["groups"]:
            group["interval"] = _shorter(group["interval"], faster)
            for rule in group["rules"]:
                rule["expr"] = re.sub(
                    r"\[(\w+)\]", lambda m: f"[{_shorter(m[1], faster)}]", rule["expr"]
                )
                if "for" in rule:
                    rule["for"] = _shorter(rule["for"], faster)
    path.write_text(yaml.safe_dump(spec))
    return path


def unknown(expression: str) -> list[str]:
    """Return the metrics, and labels in matchers, of a PromQL expression that are not exported."""
    known = {name: metric for metric in metrics.ALL for name in _series(metric)}
    wrong = []
    for name, matchers in re.findall(
        rf"(?<![\w:])({metrics.PREFIX}\w+)(?:\{{([^}}]*)\}})?", expression
    ):
        if name not in known:
            wrong.append(name)
            continue
        labels = TARGET | set(known[name].labels)
        wrong += [
            f"{name}{{{label}}}"
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)
            if label not in labels
        ]
    return wrong


def aggregations(expression: str) -> list[set[str]]:
    """Return the labels of each `by (...)` and `on (...)`; those of `on ()` are left out."""
    return [
        {label.strip() for label in found.split(",")}
        for found in re.findall(r"\b(?:by|on) \(([^)]+)\)", expression)
    ]


def _series(metric: metrics.Metric) -> Iterator[str]:
    if metric.kind in ("histogram", "snapshot"):
        yield from (f"{metric.name}_{part}" for part in ("bucket", "count", "sum"))
    else:
        yield metric.name


def _shorter(duration: str, faster: float) -> str:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    seconds = float(duration[:-1]) * units[duration[-1]] / faster
    return f"{max(1, round(seconds))}s"
