"""`python -m tests.bench.plots`: the figures of build/bench.json as pictures, in build/bench/."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pygal
from pygal.style import CleanStyle

from tests.bench.report import Report, load, number

COLORS = CleanStyle.colors
PROGRAMS = {"": "product", "bare_": "bare client", "go_": "Go operator", "kopf_": "kopf operator"}
# pygal leaves an import hook for its maps, which Python warns of at each later import.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]

QUANTILES = ("p50", "p99", "worst")


def draw(report: Report, folder: Path) -> list[Path]:
    """Write an SVG for each group of figures that the report has; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    charts = {
        "cpu": _programs(report, "cpu_ms", "CPU a refresh, ms"),
        "rate": _programs(report, "rate", "Refreshes a second in the startup resync"),
        "memory": _programs(report, "rss_mb", "Resident memory after the startup resync, MB"),
        "first-refresh": _programs(report, "first_refresh_s", "Process start to first refresh, s"),
        "session-bytes": _components(
            report, "session_bytes_COMPONENT", "Memory of a session, bytes"
        ),
        "profile": _components(report, "profile_percent_COMPONENT", "CPU of the startup resync, %"),
        "lateness": _quantiles(report, "steady_lateness_{}_s", "Lateness in the steady state, s"),
        "storm": _quantiles(
            report, "storm_urgent_{}_ms", "An urgent session's wait in a storm, ms"
        ),
        "failover": _failovers(report),
    }
    paths = []
    for name, chart in charts.items():
        if chart.raw_series:
            path = folder / f"{name}.svg"
            chart.render_to_file(str(path))
            paths.append(path)
    return paths


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    marks: Iterable[tuple[float, str]],
    path: Path,
) -> None:
    """Write an SVG of lines over x; each of `marks` is a dot on the x axis with a name."""
    chart = pygal.XY(
        style=CleanStyle, js=(), title=title, legend_at_bottom=True, show_dots=False, width=1200,
        include_x_axis=True,
    )  # fmt: skip
    for name, points in series.items():
        chart.add(name, list(points))
    dots = [{"value": (x, 0), "label": label} for x, label in marks]
    chart.add("faults", dots, stroke=False, show_dots=True, dots_size=3)
    chart.render_to_file(str(path))


def _bars(
    title: str,
    labels: Iterable[str],
    *,
    kind: Any = pygal.Bar,
    colors: Sequence[str] = COLORS,
    **options: Any,
) -> Any:
    return kind(
        style=CleanStyle(colors=tuple(colors)),
        # No script: the library's default is one from another host.
        js=(),
        print_values=True,
        value_formatter=number,
        title=title,
        x_labels=list(labels),
        legend_at_bottom=True,
        **options,
    )


def _sizes(report: Report, names: Sequence[str]) -> list[int]:
    return sorted({v.sessions for v in report.values.values() if v.name in names})


def _programs(report: Report, figure: str, title: str) -> Any:
    names = [f"{prefix}{figure}" for prefix in PROGRAMS]
    sizes = _sizes(report, names)
    rows = [[report.values.get(f"{name}_{size}") for size in sizes] for name in names]
    # A program has one colour in all pictures, those without another program among them.
    colors = [color for color, row in zip(COLORS, rows, strict=False) if any(row)]
    chart = _bars(title, [f"{size:,} sessions" for size in sizes], colors=colors)
    for program, row in zip(PROGRAMS.values(), rows, strict=True):
        if any(row):
            chart.add(program, [value and value.value for value in row])
    return chart


def _components(report: Report, figure: str, title: str) -> Any:
    sizes = _sizes(report, [figure])
    found = [value for value in report.values.values() if value.name == figure]
    order: dict[str, float] = {}
    for value in found:
        order[value.component] = max(order.get(value.component, 0.0), value.value)
    components = sorted(order, key=lambda component: order[component])
    height = 200 + 30 * len(components)
    chart = _bars(title, components, kind=pygal.HorizontalBar, height=height)
    by_place = {(value.sessions, value.component): value.value for value in found}
    for size in sizes:
        chart.add(f"{size:,} sessions", [by_place.get((size, name)) for name in components])
    return chart


def _quantiles(report: Report, key: str, title: str) -> Any:
    chart = _bars(title, QUANTILES, show_legend=False)
    values = [report.values.get(key.format(quantile)) for quantile in QUANTILES]
    if any(values):
        chart.add("", [value and value.value for value in values])
    return chart


def _failovers(report: Report) -> Any:
    kinds = {
        "failover_graceful": "graceful",
        "failover_crash_minus_lease": "crash, less the lease",
        "restart_same_pod": "restart in the same pod",
    }
    chart = _bars("A leader's end to the next write, s", kinds.values())
    for quantile in ("p50", "worst"):
        values = [report.values.get(f"{kind}_{quantile}_s") for kind in kinds]
        if any(values):
            chart.add(quantile, [value and value.value for value in values])
    return chart


if __name__ == "__main__":
    for path in draw(load(Path("build/bench.json")), Path("build/bench")):
        print(path)
