"""Durations as kubectl words them; foreign text that cannot reach the terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import EpochTime
from reconciler.humanize import LONGEST, ago, clean, count, duration, instant, listed, span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.9, "0s"),
        (-0.4, "0s"),
        (-5, "-5s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (7 * 3600 + 59 * 60, "7h59m"),
        (8 * 3600, "8h"),
        (48 * 3600 - 1, "47h"),
        (48 * 3600, "2d"),
        (50 * 3600, "2d2h"),
        (8 * 86_400, "8d"),
        (2 * 365 * 86_400, "2y"),
    ],
)
def test_a_duration_reads_as_kubectl_prints_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(61, "61s ago"), (0.5, "just now"), (-3, "just now")]
)
def test_what_lies_ahead_by_another_clock_is_just_now(seconds: float, text: str) -> None:
    assert ago(seconds) == text


@pytest.mark.parametrize(
    ("epoch_s", "text"),
    [(0, "1970-01-01T00:00:00Z"), (-1, "an impossible time"), (1e18, "an impossible time")],
)
def test_an_instant_that_no_calendar_holds_is_said_so(epoch_s: EpochTime, text: str) -> None:
    assert instant(epoch_s) == text


@pytest.mark.parametrize(("seconds", "text"), [(900, "15 min"), (20, "20 s"), (90, "90 s")])
def test_a_span_takes_the_largest_whole_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("replica-0/1", "replica-0/1"),
        ("a\x1b[31mb", "a\N{REPLACEMENT CHARACTER}[31mb"),
        ("two\nlines\tand  gaps", "two lines and gaps"),
        ("right\N{RIGHT-TO-LEFT OVERRIDE}left", "right\N{REPLACEMENT CHARACTER}left"),
        ("x" * 500, "x" * (LONGEST - 1) + "…"),
    ],
    ids=["plain", "escape", "lines", "direction", "long"],
)
def test_foreign_text_becomes_one_harmless_line(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text())
def test_no_text_moves_the_cursor_or_grows(text: str) -> None:
    shown = clean(text)
    assert len(shown) <= LONGEST
    assert all(sign.isprintable() or sign == " " for sign in shown)


def test_counts_and_lists_read_as_english() -> None:
    assert [count(n, "pod") for n in (1, 2, 10_000)] == ["1 pod", "2 pods", "10,000 pods"]
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
