"""Columns for any life of a token: no session is lost, and the expired ones have their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.statuspage.histogram import COLUMNS, Column, distribute
from tests.exhibit import row

lives = st.one_of(st.none(), st.just(float("inf")), st.floats(-5000, 200_000))


@given(st.lists(lives, max_size=40), st.sampled_from([0.0, 30.0, 900.0, 3600.0]))
def test_every_session_is_in_one_column_or_outside(found: list[float | None], ttl_s: float) -> None:
    spread = distribute([row(n, life) for n, life in enumerate(found)], ttl_s=ttl_s)

    assert sum(column.count for column in spread.columns) + spread.outside == len(found)
    assert len(spread.columns) <= COLUMNS + 1
    assert all(0 <= column.height <= 100 for column in spread.columns)
    expired = [life for life in found if life is not None and life <= 0]
    assert spread.columns[0].count == len(expired)


@pytest.mark.parametrize(
    ("ttl_s", "columns", "step_s"),
    [(30.0, 15, 2), (60.0, 12, 5), (900.0, 15, 60), (3600.0, 12, 300)],
)
def test_the_scale_is_a_whole_life_and_stays_still(ttl_s: float, columns: int, step_s: int) -> None:
    for left_s in (ttl_s, ttl_s / 2, 1.0):
        spread = distribute([row(1, left_s)], ttl_s=ttl_s)
        assert len(spread.columns) == columns + 1
        assert spread.scale_s == columns * step_s


def test_columns_say_what_they_hold() -> None:
    spread = distribute([row(1, -4.0), row(2, 59.0), row(3, 60.0), row(4, 600.0)], ttl_s=900.0)

    counted = [(c.name, c.count, c.severity) for c in spread.columns if c.count]
    assert counted == [("expired", 1, "bad"), ("0s to 60s", 2, "bad"), ("9m to 10m", 1, "good")]
    assert spread.columns[1].height == 100


@pytest.mark.parametrize(
    ("allowance_s", "number", "position"),
    [(90.0, 2, 50.0), (60.0, 1, 100.0), (1.0, 1, 1.7), (0.0, None, None), (5000.0, None, None)],
)
def test_the_allowance_is_marked_in_the_column_that_it_ends_in(
    allowance_s: float, number: int | None, position: float | None
) -> None:
    spread = distribute([row(1)], ttl_s=900.0, allowance_s=allowance_s)

    marks = {n: each.allowance for n, each in enumerate(spread.columns)}
    assert {n: mark for n, mark in marks.items() if mark is not None} == (
        {} if number is None else {number: position}
    )


@pytest.mark.parametrize(
    ("count", "label"),
    [(7, "7"), (999, "999"), (1000, "1.0k"), (9949, "9.9k"), (9950, "10k"), (99_500, "100k")],
)
def test_a_count_fits_above_its_column(count: int, label: str) -> None:
    assert Column(0.0, 60.0, count, 50.0, "good").label == label
