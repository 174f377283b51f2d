"""The injected clock, and the text form in which instants are stored."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

END_S = 253_402_300_800.0
"""The first instant without a text form: the start of the year 10000."""


class Clock(Protocol):
    """Two clocks; their instants are never mixed in one expression.

    A name of a monotonic instant ends in `_at`; `_s` is a duration or seconds since the epoch. The
    tests hold the code against this rule.
    """

    def monotonic(self) -> float:
        """Return seconds on a clock that never steps; its zero has no meaning."""
        ...

    def wall(self) -> float:
        """Return seconds since the epoch, UTC; this clock may step in both directions."""
        ...


class SystemClock:
    """The machine's clocks; the monotonic one continues while the machine is suspended.

    Source: clock_gettime(2): CLOCK_MONOTONIC stops during suspend, CLOCK_BOOTTIME does not. A token
    also ages during suspend, so the latter is used where the kernel has it.
    """

    def __init__(self) -> None:
        # Bound once: the clocks are read two dozen times in each refresh.
        self.monotonic: Callable[[], float] = (
            partial(time.clock_gettime, time.CLOCK_BOOTTIME)
            if hasattr(time, "CLOCK_BOOTTIME")
            else time.monotonic
        )
        self.wall: Callable[[], float] = time.time


def format_utc(epoch_s: float) -> str:
    """Return RFC 3339 in UTC, whole seconds rounded down: `2026-01-31T12:00:00Z`.

    >>> format_utc(1_769_860_800.9)
    '2026-01-31T12:00:00Z'
    """
    return datetime.fromtimestamp(int(epoch_s), UTC).isoformat().removesuffix("+00:00") + "Z"


def format_utc_millis(epoch_s: float) -> str:
    """Return RFC 3339 in UTC with three digits of a second, rounded down.

    >>> format_utc_millis(1_769_860_800.25)
    '2026-01-31T12:00:00.250Z'
    """
    millis = int(epoch_s * 1000)
    return format_utc(millis // 1000)[:-1] + f".{millis % 1000:03d}Z"


def format_utc_micros(epoch_s: float) -> str:
    """Return RFC 3339 in UTC with six digits of a second, the form of Kubernetes' MicroTime."""
    micros = int(epoch_s * 1_000_000)
    return format_utc(micros // 1_000_000)[:-1] + f".{micros % 1_000_000:06d}Z"


def parse_utc(text: str) -> float | None:
    """Return seconds since the epoch, or None for text that is no RFC 3339 instant with a zone.

    Also None for an instant before the epoch or after the year 9999 in UTC, which has no text form.

    >>> parse_utc("2026-01-31T12:00:00Z")
    1769860800.0
    >>> parse_utc("2026-01-31T13:00:00+01:00")
    1769860800.0
    >>> parse_utc("2026-01-31T12:00:00") is None
    True
    """
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            return None
        epoch_s = instant.timestamp()
    except (ValueError, OverflowError):
        return None
    return epoch_s if 0.0 <= epoch_s < END_S else None
