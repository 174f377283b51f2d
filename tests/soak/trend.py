"""The slope of a series, and how far it may be off (pure)."""

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import NamedTuple

NORMAL_95 = 1.96


class Trend(NamedTuple):
    """A slope, and the limits within which it is in 95 of 100 cases, by the unit of time."""

    slope: float
    low: float
    high: float


def theil_sen(points: Sequence[tuple[float, float]]) -> Trend:
    """Return the median of the slopes between all pairs of points.

    A few outliers, such as the minutes of a fault, do not move it. The limits are the slopes of
    Kendall's statistic. They hold where the points do not depend on each other: give one point a
    minute, not each sample.

    Source: P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968.

    Raises:
        ValueError: There are fewer than three points.

    >>> theil_sen([(0, 1), (1, 3), (2, 5), (3, 70), (4, 9)]).slope
    2.0
    """
    count = len(points)
    if count < 3:
        raise ValueError(f"a slope of {count} points")
    slopes = sorted((b - a) / (t - s) for (s, a), (t, b) in combinations(points, 2))
    spread = NORMAL_95 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    first = max(0, round((len(slopes) - spread) / 2))
    last = min(len(slopes) - 1, round((len(slopes) + spread) / 2))
    return Trend(float(median(slopes)), slopes[first], slopes[last])


def by_minute(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return one point a minute of points by seconds: hours, and the median of the values.

    >>> by_minute([(0, 1), (20, 2), (40, 9), (61, 4)])
    [(0.0, 2), (0.016666666666666666, 4)]
    """
    minutes: dict[int, list[float]] = {}
    for seconds, value in points:
        minutes.setdefault(int(seconds // 60), []).append(value)
    return [(minute / 60, median(values)) for minute, values in sorted(minutes.items())]
