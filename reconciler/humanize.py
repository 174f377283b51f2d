"""Formats durations, instants and untrusted text for a terminal (pure)."""

import math
import unicodedata

from reconciler.clock import EPOCH, EpochTime, format_utc

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
YEAR_S = 365 * DAY_S

LONGEST = 120
"""Most characters of untrusted text in a line; annotations may hold 256 KiB."""

REASON = 600
"""Most characters of a failure's reason: our sentence with a short quote of another program."""

_LAST_S = EpochTime(253_402_300_799)
"""The end of the year 9999; no instant after it has an RFC 3339 form."""


def duration(seconds: float) -> str:
    """Return a duration in kubectl's form: `47s`, `9m5s`, `95m`, `7h30m`, `3d`; `-` before the
    past.

    Source: apimachinery `util/duration.HumanDuration`.

    >>> [duration(seconds) for seconds in (47, 545, 5700, 27_000, 259_200, -30)]
    ['47s', '9m5s', '95m', '7h30m', '3d', '-30s']
    """
    if seconds < 0:
        text = duration(-seconds)
        return text if text == "0s" else f"-{text}"
    whole = int(seconds)
    minutes, hours, days = whole // MINUTE_S, whole // HOUR_S, whole // DAY_S
    if whole < 2 * MINUTE_S:
        return f"{whole}s"
    if minutes < 10:
        return _two(minutes, "m", whole % MINUTE_S, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if whole < 2 * YEAR_S:
        return f"{days}d"
    return f"{whole // YEAR_S}y"


def ago(seconds: float) -> str:
    """Return how long ago something was; a time in the future, by another clock, is `just now`."""
    return f"{duration(seconds)} ago" if seconds >= 1 else "just now"


def instant(epoch_s: EpochTime) -> str:
    """Return RFC 3339 in UTC, or `an impossible time` outside of the years 1970 to 9999."""
    return format_utc(epoch_s) if EPOCH <= epoch_s <= _LAST_S else "an impossible time"


def span(seconds: float) -> str:
    """Return a length of time in the largest unit that holds it exactly: `15 min`, `20 s`."""
    whole = round(seconds)
    if math.isclose(seconds, whole) and whole and whole % MINUTE_S == 0:
        return f"{whole // MINUTE_S} min"
    return f"{seconds:.0f} s"


def clean(text: str, longest: int = LONGEST) -> str:
    """Return untrusted text as one printable line of at most `longest` characters.

    A tenant who may annotate a pod must not be able to move the cursor, or to reorder the words, in
    an operator's terminal.

    >>> clean(f"two{chr(10)}lines{chr(27)}[2J")
    'two lines�[2J'
    >>> clean("too long", longest=4)
    'too…'
    """
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(sign)[0] == "C" else sign
        for sign in " ".join(text[: 4 * longest].split())
    )
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def reason(text: str) -> str:
    """Return a failure's reason as one printable line; a long one is cut in the middle.

    The request is at its start, and the cause at its end, so that a long URL or name never removes
    the cause.
    """
    if len(text) <= REASON:
        return clean(text, REASON)
    head = REASON // 3
    return f"{clean(text[:head], head)} … {clean(text[head + 3 - REASON :], REASON)}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(words: list[str]) -> str:
    """Join words for a sentence: `a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _two(first: int, unit: str, second: int, lesser: str) -> str:
    return f"{first}{unit}{second}{lesser}" if second else f"{first}{unit}"
