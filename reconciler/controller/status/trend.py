"""The last hours of a replica, a value a minute, in memory of a fixed size; a restart loses it."""

import math
from array import array
from collections.abc import Mapping
from typing import Literal, get_args

from reconciler.clock import Instant
from reconciler.controller.reconcile.run import ReconcileRun
from reconciler.controller.status.snapshot import StatusSnapshot

STEP_S = 60.0
"""Seconds of a value; a snapshot is taken at least this often (`collector.INTERVAL_S`)."""

STEPS = 240
"""Values kept: four hours, half a shift, with a pixel of a small plot for each."""

Series = Literal[
    "exposure_s", "lateness_s", "refreshes", "failures", "leader_changes", "kube", "platform",
    "issuer",
]  # fmt: skip
"""Within the minute: seconds of estimated exposure; the longest lateness of a run; refreshes;
failed runs; changes of the leader; and for each endpoint 1.0 if it was unreachable or rejected us.
"""

ENDPOINTS: tuple[Series, ...] = ("kube", "platform", "issuer")
SERIES: tuple[Series, ...] = get_args(Series)

TrendReading = Mapping[Series, tuple[float, ...]]
"""Values of each series, the oldest first, `STEPS` at most; NaN where no snapshot was taken."""


class Trend:
    """Rings of `STEPS` numbers of 8 bytes, one for each of `SERIES`: 15,360 bytes."""

    def __init__(self) -> None:
        self._rings = {name: array("d", [math.nan]) * STEPS for name in SERIES}
        self._first: int | None = None
        self._newest = 0
        self._totals: dict[Series, float] = {}
        self._latest_s = 0.0

    def observe(self, run: ReconcileRun) -> None:
        """Note how late a run began; the next snapshot has the longest."""
        self._latest_s = max(self._latest_s, run.lateness_s)

    def add(self, snapshot: StatusSnapshot) -> None:
        """Add what happened since the last snapshot to the minute of this one."""
        slot = self._slot(int((snapshot.taken_at - Instant(0)) // STEP_S))
        totals = _totals(snapshot)
        for name, total in totals.items():
            growth = max(0.0, total - self._totals.get(name, total))
            value = self._rings[name][slot] + growth
            self._rings[name][slot] = min(1.0, value) if name in ENDPOINTS else value
        self._totals |= totals
        lateness = self._rings["lateness_s"]
        lateness[slot], self._latest_s = max(lateness[slot], self._latest_s), 0.0
        failing = {each.name for each in snapshot.breakers if each.condition != "ok"}
        for name in ENDPOINTS:
            if name in failing:
                self._rings[name][slot] = 1.0

    def read(self) -> TrendReading:
        """Return a copy of what is known since the first snapshot."""
        if self._first is None:
            return dict.fromkeys(SERIES, ())
        oldest = max(self._first, self._newest - STEPS + 1)
        slots = [step % STEPS for step in range(oldest, self._newest + 1)]
        return {name: tuple(ring[slot] for slot in slots) for name, ring in self._rings.items()}

    def _slot(self, step: int) -> int:
        """Return the place of a minute; the minutes without a snapshot before it stay unknown."""
        if self._first is None:
            self._first = self._newest = step
            self._clear(step, 0.0)
        while self._newest < step:
            self._newest = max(self._newest + 1, step - STEPS + 1)
            self._clear(self._newest, 0.0 if self._newest == step else math.nan)
        return step % STEPS

    def _clear(self, step: int, value: float) -> None:
        for ring in self._rings.values():
            ring[step % STEPS] = value


def _totals(snapshot: StatusSnapshot) -> dict[Series, float]:
    """Return the counts of which the growth is kept; a count that is not known yet is left out."""
    outages = {each.name: float(each.outages_total) for each in snapshot.breakers}
    found: dict[Series, float] = {name: outages[name] for name in ENDPOINTS if name in outages}
    found["exposure_s"] = snapshot.fleet.exposure_s
    found["refreshes"] = sum(snapshot.reconciler.refreshes.values())
    found["failures"] = sum(snapshot.reconciler.failures.values())
    if snapshot.lease.holder:
        found["leader_changes"] = snapshot.lease.transitions
    return found
