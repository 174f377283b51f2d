"""The figures of a run as JSON and as a table: each beside its target."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from tests.bench.figures import BY_NAME, FIGURES, Figure, Value, growth


@dataclass(frozen=True)
class PartRun:
    """One part of a run, which took so long; `failure` is the error's last line."""

    part: str
    seconds: float
    load: float
    failure: str = ""


@dataclass
class Report:
    """What was measured. A later part replaces the numbers that it measures again."""

    values: dict[str, Value] = field(default_factory=dict)
    parts: dict[str, PartRun] = field(default_factory=dict)

    def add(self, run: PartRun, values: Iterable[Value]) -> None:
        self.parts[run.part] = run
        for value in values:
            self.values[value.key] = value
        for value in growth(self.values.values()):
            self.values[value.key] = value

    @property
    def seconds(self) -> float:
        return sum(run.seconds for run in self.parts.values())

    @property
    def failures(self) -> list[PartRun]:
        return [run for run in self.parts.values() if run.failure]

    @property
    def missed(self) -> list[Value]:
        """Return the numbers that do not meet their targets."""
        return [value for value in self.values.values() if is_met(value) is False]


def is_met(value: Value) -> bool | None:
    """Return whether a number meets its target; None: it has none."""
    target = value.figure.target(value.sessions)
    return None if target is None else target.is_met(value.value)


def to_json(report: Report) -> dict[str, Any]:
    """Return the JSON form: one key a number. A number that could not be computed is null."""
    return {
        "figures": {key: _record(value) for key, value in report.values.items()},
        "parts": {
            name: {
                "seconds": round(run.seconds, 1),
                "load": round(run.load, 2),
                "failure": run.failure,
            }
            for name, run in report.parts.items()
        },
        "seconds": round(report.seconds, 1),
    }


def _record(value: Value) -> dict[str, Any]:
    target = value.figure.target(value.sessions)
    return {
        "value": float(f"{value.value:.4g}") if math.isfinite(value.value) else None,
        "unit": value.figure.unit,
        "target": None if target is None else str(target),
        "met": is_met(value),
        "figure": value.name,
        "sessions": value.sessions,
        "component": value.component,
    }


def load(path: Path) -> Report:
    """Return the report of a former run; an empty one if there is none."""
    report = Report()
    if not path.exists():
        return report
    found = json.loads(path.read_text())
    for key, record in found["figures"].items():
        if record["figure"] in BY_NAME:  # a figure of an older version is left out
            number = math.nan if record["value"] is None else record["value"]
            report.values[key] = Value(
                record["figure"], number, record["sessions"], record["component"]
            )
    for name, run in found["parts"].items():
        report.parts[name] = PartRun(name, run["seconds"], run["load"], run["failure"])
    return report


def save(report: Report, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(report), indent=2) + "\n")


def table(report: Report) -> Table:
    """Return one row a figure and component, with a column for each number of sessions."""
    sizes = sorted({value.sessions for value in report.values.values()})
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("figure")
    for size in sizes:
        shown.add_column(f"{size:,} sessions" if size else "", justify="right")
    for name in ("unit", "target", "met"):
        shown.add_column(name)
    for figure in FIGURES:
        rows: dict[str, dict[int, Value]] = {}
        for value in report.values.values():
            if value.name == figure.name:
                rows.setdefault(value.component, {})[value.sessions] = value
        for component, row in rows.items():
            cells = (number(row[size].value) if size in row else "" for size in sizes)
            name = figure.name.replace("COMPONENT", component)
            shown.add_row(name, *cells, figure.unit, targets(figure, row), verdicts(row))
    return shown


def number(value: float) -> str:
    """Return three significant digits, and no fewer than the whole number has.

    >>> [number(value) for value in (0.01234, 1.604, 98.76, 12345.6, float("nan"))]
    ['0.0123', '1.6', '98.8', '12,346', '?']
    """
    if not math.isfinite(value):
        return "?"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def targets(figure: Figure, sizes: Iterable[int]) -> str:
    """Return the target, or one for each number of sessions if they differ."""
    found = {size: figure.target(size) for size in sizes}
    different = {str(target) for target in found.values() if target}
    if len(different) < 2:
        return "".join(different)
    return "; ".join(f"{size:,}: {target}" for size, target in found.items() if target)


def verdicts(row: dict[int, Value]) -> str:
    """Return yes, no, or both in the order of the columns."""
    words = {True: "yes", False: "NO", None: "-"}
    found = [words[is_met(value)] for _, value in sorted(row.items())]
    return "" if set(found) == {"-"} else found[0] if len(set(found)) == 1 else " ".join(found)
