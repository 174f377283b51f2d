"""How much life is left in the fleet's tokens, as columns that fit their life (pure)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.status.snapshot import SessionStatus
from reconciler.humanize import duration

COLUMNS = 16
"""Columns at the most; one more holds the dead."""

STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Widths that people count in; wider ones are multiples of the last."""

Severity = Literal["bad", "warn", "good"]


@dataclass(frozen=True, slots=True)
class Column:
    """Sessions whose token has from `from_s` to `to_s` left; `height` is 0-100, of the tallest."""

    from_s: float
    to_s: float
    count: int
    height: float
    tone: Severity

    @property
    def name(self) -> str:
        if self.to_s <= 0:
            return "expired"
        return f"{duration(self.from_s)} to {duration(self.to_s)}"

    @property
    def tick(self) -> str:
        return "dead" if self.to_s <= 0 else duration(self.to_s)


@dataclass(frozen=True, slots=True)
class ExpiryHistogram:
    """`columns` begin with the dead; `scale_s` is where the last one ends; `outside` counts the
    sessions that have no place in it: no token, an unknown end, or none at all."""

    columns: tuple[Column, ...]
    scale_s: float
    outside: int


def distribute(rows: Iterable[SessionStatus], *, ttl_s: float) -> ExpiryHistogram:
    """Count the rows' remaining lives.

    Args:
        ttl_s: The whole life of a token, which keeps the scale still; 0.0 while it is not known.
    """
    lives, outside, expiring_s = [], 0, 0.0
    for row in rows:
        if row.remaining_s is None or math.isinf(row.remaining_s):
            outside += 1
            continue
        lives.append(row.remaining_s)
        if row.state is TokenState.EXPIRING:
            expiring_s = max(expiring_s, row.remaining_s)
    longest_s = max([*lives, 1.0, ttl_s])
    step_s = _step(longest_s)
    counts = [0] * (1 + math.ceil(longest_s / step_s))
    for life_s in lives:
        counts[0 if life_s <= 0 else max(1, math.ceil(life_s / step_s))] += 1
    tallest = max(1, *counts)
    columns = [
        Column(
            (number - 1) * step_s,
            number * step_s,
            count,
            round(100 * count / tallest, 1),
            _tone(number, (number - 1) * step_s, expiring_s),
        )
        for number, count in enumerate(counts)
    ]
    return ExpiryHistogram(tuple(columns), step_s * (len(counts) - 1), outside)


def _step(longest_s: float) -> float:
    for step_s in STEPS_S:
        if longest_s <= COLUMNS * step_s:
            return step_s
    return STEPS_S[-1] * math.ceil(longest_s / (COLUMNS * STEPS_S[-1]))


def _tone(number: int, from_s: float, expiring_s: float) -> Severity:
    if number == 0:
        return "bad"
    return "warn" if from_s < expiring_s else "good"
