"""Parses the Date and Retry-After headers of an answer (pure)."""

from datetime import UTC
from email.utils import parsedate_to_datetime

from reconciler.clock import EPOCH, EpochTime

LATEST = EpochTime(100_000_000_000)
"""The year 5138. Times are calculated from a Date, and the year 10000 has no text form."""

MAX_RETRY_AFTER_S = 300.0
"""A longer wait comes from a maintenance page. What waits has a shorter limit."""


def parse_date(text: str | None) -> EpochTime | None:
    """Return a Date header as epoch seconds, or None if it is not valid, or not after the epoch.

    Source: RFC 9110 5.6.7; a date without a zone is UTC, as all HTTP dates are.
    """
    if text is None:
        return None
    try:
        instant = parsedate_to_datetime(text)
        known = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        epoch_s = EpochTime(known.timestamp())
    except (ValueError, OverflowError):
        return None
    return epoch_s if EPOCH <= epoch_s <= LATEST else None


def parse_retry_after(text: str | None, *, now_s: EpochTime | None) -> float | None:
    """Return a Retry-After header in seconds, from 0 to `MAX_RETRY_AFTER_S`, or None.

    Args:
        now_s: The current time, epoch seconds, for the date form: the answer's own Date.
    """
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return min(float(text), MAX_RETRY_AFTER_S)
    instant_s = parse_date(text)
    if instant_s is None or now_s is None:
        return None
    return min(max(0.0, instant_s - now_s), MAX_RETRY_AFTER_S)
