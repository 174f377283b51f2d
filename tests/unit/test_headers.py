"""Date and Retry-After in the forms in which they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import EpochTime
from reconciler.net.http_dates import parse_date, parse_retry_after

NOON_S = EpochTime(1_767_268_800)
NOON = "Thu, 01 Jan 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("text", "date_s"),
    [
        (NOON, NOON_S),
        ("Thursday, 01-Jan-26 12:00:00 GMT", NOON_S),
        ("Thu, 01 Jan 2026 12:00:00 -0000", NOON_S),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_a_date_is_epoch_seconds_or_nothing(text: str | None, date_s: EpochTime | None) -> None:
    assert parse_date(text) == date_s


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("9" * 400, None),
        ("301", 300.0),
        ("Thu, 01 Jan 2970 00:00:00 GMT", 300.0),
        ("Thu, 99 Jan 2026 12:00:30 GMT", None),
        ("0.5", None),
        ("inf", None),
        ("²", None),
        (None, None),
    ],
)
def test_retry_after_is_a_wait_or_nothing(text: str | None, wait_s: float | None) -> None:
    assert parse_retry_after(text, now_s=NOON_S) == wait_s


def test_a_retry_after_that_is_a_date_needs_the_time() -> None:
    assert parse_retry_after("Thu, 01 Jan 2026 12:00:30 GMT", now_s=None) is None


@given(st.text(max_size=60))
def test_no_header_text_raises(text: str) -> None:
    parse_date(text)
    wait_s = parse_retry_after(text, now_s=NOON_S)
    assert wait_s is None or wait_s >= 0
