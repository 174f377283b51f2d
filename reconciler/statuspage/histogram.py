"""The remaining lives of the fleet's tokens as a histogram (pure)."""

import math
from collections.abc import Iterable

import msgspec

from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.status.snapshot import SessionStatus
from reconciler.humanize import duration
from reconciler.statuspage.session_row import Severity

COLUMNS = 16
"""Most columns; there is one more for expired tokens."""

STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Widths of a column; wider ones are multiples of the last."""


class Column(msgspec.Struct, frozen=True):
    """Sessions with a remaining life of `from_s` to `to_s`; `height` is 0-100, of the tallest.

    `allowance` is where in the column's width the propagation allowance is, 0-100; None outside.
    """

    from_s: float
    to_s: float
    count: int
    height: float
    severity: Severity
    allowance: float | None = None

    @property
    def name(self) -> str:
        if self.to_s <= 0:
            return "expired"
        return f"{duration(self.from_s)} to {duration(self.to_s)}"

    @property
    def label(self) -> str:
        """The count in four characters, as wide as a column: 999, 7.5k, 75k."""
        if self.count < 1000:
            return str(self.count)
        return f"{self.count / 1000:.{1 if self.count < 9950 else 0}f}k"

    @property
    def tick(self) -> str:
        return "≤ 0" if self.to_s <= 0 else duration(self.to_s)


class ExpiryHistogram(msgspec.Struct, frozen=True):
    """The first column has the expired tokens; `scale_s` is the end of the last one; `outside`
    counts sessions in no column: without a token, with an unknown expiry, or with none."""

    columns: tuple[Column, ...]
    scale_s: float
    outside: int


def distribute(
    rows: Iterable[SessionStatus], *, ttl_s: float, allowance_s: float = 0.0
) -> ExpiryHistogram:
    """Count the rows' remaining lives.

    Args:
        ttl_s: The whole life of a token, which fixes the scale; 0.0 while it is not known.
        allowance_s: The propagation allowance, which is marked; 0.0 for none.
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
            _severity(number, (number - 1) * step_s, expiring_s),
            _mark(number, allowance_s / step_s),
        )
        for number, count in enumerate(counts)
    ]
    return ExpiryHistogram(tuple(columns), step_s * (len(counts) - 1), outside)


def _step(longest_s: float) -> float:
    for step_s in STEPS_S:
        if longest_s <= COLUMNS * step_s:
            return step_s
    return STEPS_S[-1] * math.ceil(longest_s / (COLUMNS * STEPS_S[-1]))


def _severity(number: int, from_s: float, expiring_s: float) -> Severity:
    if number == 0:
        return "bad"
    return "bad" if from_s < expiring_s else "good"


def _mark(number: int, position: float) -> float | None:
    """Return where in a column a position is; column `number` ends at position `number`."""
    is_within = number > 0 and number - 1 < position <= number
    return round(100 * (position - number + 1), 1) if is_within else None
