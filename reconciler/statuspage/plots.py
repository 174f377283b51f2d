"""The last hours as small plots: paths of SVG, which need no script (pure)."""

from collections.abc import Sequence
from itertools import groupby

import msgspec

from reconciler.controller.status.trend import ENDPOINTS, STEP_S, TrendReading
from reconciler.humanize import duration
from reconciler.statuspage.session_row import Severity

HEIGHT = 24
"""Units of a plot's height; its width has a unit for each step."""

LEAST_STEPS = 30
"""Steps of a plot in the first half hour of a replica."""

_NAMES = {"kube": "API server", "platform": "Platform", "issuer": "Issuer"}


class Plot(msgspec.Struct, frozen=True):
    """`note` says in words what is drawn; each bar has the attribute `d` of a path."""

    name: str
    note: str
    bars: tuple[tuple[Severity, str], ...]


def steps_of(trend: TrendReading) -> int:
    """Return the width of each plot: the steps that are known, and at least `LEAST_STEPS`."""
    return max(LEAST_STEPS, len(trend["exposure_s"]))


def plots(trend: TrendReading, *, leading: bool) -> tuple[Plot, ...]:
    """Return a plot for each of exposure, lateness, refreshes, leader changes and outages.

    Args:
        leading: Without it, what only a leader does is left out unless this replica did it.
    """
    exposure, lateness, refreshes = trend["exposure_s"], trend["lateness_s"], trend["refreshes"]
    failures, changes = trend["failures"], trend["leader_changes"]
    down = {name: _total(trend[name]) for name in ENDPOINTS}
    outages = [
        f"{_NAMES[name]} {duration(minutes * STEP_S)}" for name, minutes in down.items() if minutes
    ]
    together = [sum(values) for values in zip(*(trend[name] for name in ENDPOINTS), strict=True)]
    most = _most((*refreshes, *failures))
    found = [
        Plot("Exposure", f"{_total(exposure):,.1f} s", (("bad", _bars(exposure)),)),
        Plot("Leader changes", f"{_total(changes):,.0f}", (("neutral", _bars(changes)),)),
        Plot("Outages", ", ".join(outages) or "none", (("bad", _bars(together, len(ENDPOINTS))),)),
    ]
    if leading or _total(refreshes) or _total(failures):
        failed = f", {_total(failures):,.0f} failed" if _total(failures) else ""
        late = f"{_most(lateness):.1f} s at most"
        found[1:1] = [
            Plot("Lateness", late, (("warn", _bars(lateness)),)),
            Plot(
                "Refreshes",
                f"{_total(refreshes):,.0f}{failed}",
                (("good", _bars(refreshes, most)), ("bad", _bars(failures, most))),
            ),
        ]
    return tuple(found)


def _total(values: Sequence[float]) -> float:
    """Return the sum of what is known."""
    return sum(value for value in values if value > 0)


def _most(values: Sequence[float]) -> float:
    return max((value for value in values if value > 0), default=0.0)


def _bars(values: Sequence[float], top: float = 0.0) -> str:
    """Return a path with a bar for each value above 0, the newest at the right end.

    Args:
        top: The value of a bar of full height; by default the largest one.
    """
    top = top or _most(values)
    heights = [max(1, round(HEIGHT * value / top)) if value > 0 else 0 for value in values]
    path, x = [], max(0, LEAST_STEPS - len(heights))
    for height, steps in groupby(heights):
        width = len(tuple(steps))
        if height:
            path.append(f"M{x} {HEIGHT}v-{height}h{width}v{height}z")
        x += width
    return "".join(path)
