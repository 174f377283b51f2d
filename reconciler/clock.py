"""Points in time of two clocks, the injected clock, and the text form in which time is stored.

At run time a point in time is a `float`, and `Instant(x)` is `float(x)`: the types cost nothing,
and every library takes the values. mypy sees classes that are no floats, so that it refuses to
compare, add or pass a point of one clock where the other is meant, and to use a point as a
duration. A duration is a `float`.

| expression | type |
|---|---|
| `Instant - Instant`, `EpochTime - EpochTime` | `float`, a duration in seconds |
| `Instant + float`, `EpochTime - float` | the same kind of point |
| `EpochTime - Instant` | `ClockOffset`: how far the two clocks are apart |
| `Instant + ClockOffset` | `EpochTime` |
| `EpochTime - ClockOffset` | `Instant` |

Where a number comes in it becomes a point, `EpochTime(claims["exp"])`; where one goes out,
`float(x)` converts it back. `math.inf` is no point; `NEVER` and `LONG_AGO` are.
"""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast, overload

if TYPE_CHECKING:

    class _Point:
        """What all points have; `Self` makes each kind accept itself alone."""

        def __init__(self, seconds: float, /) -> None: ...
        def __add__(self, seconds: float, /) -> Self: ...
        def __radd__(self, seconds: float, /) -> Self: ...
        @overload
        def __sub__(self, other: Self, /) -> float: ...
        @overload
        def __sub__(self, seconds: float, /) -> Self: ...
        def __sub__(self, other: Any, /) -> Any: ...
        def __lt__(self, other: Self, /) -> bool: ...
        def __le__(self, other: Self, /) -> bool: ...
        def __gt__(self, other: Self, /) -> bool: ...
        def __ge__(self, other: Self, /) -> bool: ...
        def __float__(self) -> float: ...
        def __int__(self) -> int: ...

    class ClockOffset(_Point):
        """Epoch seconds of a moment less its monotonic seconds."""

    class Instant(_Point):
        """Seconds on the monotonic clock; its zero has no meaning. Names end in `_at`."""

        @overload  # type: ignore[override]
        def __add__(self, seconds: float, /) -> Self: ...
        @overload
        def __add__(self, offset: ClockOffset, /) -> "EpochTime": ...
        def __add__(self, other: Any, /) -> Any: ...

    class EpochTime(_Point):
        """Seconds since the epoch, UTC, by our wall clock or by the issuer's. Names end in `_s`."""

        @overload  # type: ignore[override]
        def __sub__(self, other: Self, /) -> float: ...
        @overload
        def __sub__(self, seconds: float, /) -> Self: ...
        @overload
        def __sub__(self, instant: Instant, /) -> ClockOffset: ...
        @overload
        def __sub__(self, offset: ClockOffset, /) -> Instant: ...
        def __sub__(self, other: Any, /) -> Any: ...

    class _Unbounded(Instant, EpochTime):
        """A point of either clock."""

else:
    ClockOffset = Instant = EpochTime = float

NEVER: Final = cast("_Unbounded", math.inf)
"""After every other point: the expiry of a token that does not expire."""

LONG_AGO: Final = cast("_Unbounded", -math.inf)
"""Before every other point: when something last happened that has not happened yet."""

EPOCH: Final = EpochTime(0)
"""The epoch: a time in the past, where a writer gave none."""

END: Final = EpochTime(253_402_300_800.0)
"""The first moment without a text form: the start of the year 10000."""


class Clock(Protocol):
    """Two clocks; mypy refuses to mix their points in time."""

    def monotonic(self) -> Instant:
        """Return seconds on a clock that never steps; its zero has no meaning."""
        ...

    def wall(self) -> EpochTime:
        """Return seconds since the epoch, UTC; this clock may step in both directions."""
        ...


class SystemClock:
    """The machine's clocks; the monotonic one continues while the machine is suspended.

    Source: clock_gettime(2): CLOCK_MONOTONIC stops during suspend, CLOCK_BOOTTIME does not. A token
    also ages during suspend, so the latter is used where the kernel has it.
    """

    def __init__(self) -> None:
        # Bound once: the clocks are read two dozen times in each refresh.
        self.monotonic = cast(
            "Callable[[], Instant]",
            partial(time.clock_gettime, time.CLOCK_BOOTTIME)
            if hasattr(time, "CLOCK_BOOTTIME")
            else time.monotonic,
        )
        self.wall = cast("Callable[[], EpochTime]", time.time)


def format_utc(epoch_s: EpochTime) -> str:
    """Return RFC 3339 in UTC, whole seconds rounded down: `2026-01-31T12:00:00Z`.

    >>> format_utc(1_769_860_800.9)
    '2026-01-31T12:00:00Z'
    """
    return _format_whole(int(epoch_s))


@lru_cache(maxsize=256)  # a refresh writes six instants of a few seconds: 0.1 us each, not 1.3
def _format_whole(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat().removesuffix("+00:00") + "Z"


def format_utc_millis(epoch_s: EpochTime) -> str:
    """Return RFC 3339 in UTC with three digits of a second, rounded down.

    >>> format_utc_millis(1_769_860_800.25)
    '2026-01-31T12:00:00.250Z'
    """
    millis = int(float(epoch_s) * 1000)
    return format_utc(EpochTime(millis // 1000))[:-1] + f".{millis % 1000:03d}Z"


def format_utc_micros(epoch_s: EpochTime) -> str:
    """Return RFC 3339 in UTC with six digits of a second, the form of Kubernetes' MicroTime."""
    micros = int(float(epoch_s) * 1_000_000)
    return format_utc(EpochTime(micros // 1_000_000))[:-1] + f".{micros % 1_000_000:06d}Z"


@lru_cache(maxsize=2048)  # each plan parses the same five texts: 0.1 us each, not 0.9
def parse_utc(text: str) -> EpochTime | None:
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
        epoch_s = EpochTime(instant.timestamp())
    except (ValueError, OverflowError):
        return None
    return epoch_s if EPOCH <= epoch_s < END else None
