"""The slope by which a soak is judged finds a leak, and is not moved by faults."""

from random import Random

import pytest

from tests.soak.trend import by_minute, theil_sen


@pytest.mark.parametrize("leak_mb_an_hour", [0.0, 3.0])
def test_a_leak_is_found_in_two_hours_of_noise_with_outliers(leak_mb_an_hour: float) -> None:
    random, points = Random(7), []
    for second in range(0, 7200, 10):
        in_a_fault = 20.0 if random.random() < 0.05 else 0.0
        noise = random.gauss(0.0, 0.3) + in_a_fault
        points.append((float(second), 80.0 + leak_mb_an_hour * second / 3600 + noise))
    trend = theil_sen(by_minute(points))
    assert trend.low <= leak_mb_an_hour <= trend.high
    assert trend.high - trend.low < 0.5


def test_two_points_have_no_slope() -> None:
    with pytest.raises(ValueError, match="2 points"):
        theil_sen([(0.0, 1.0), (1.0, 2.0)])
