"""How long a key waits after a failure: exponential, full jitter, bounded by its life (pure)."""

import math
from dataclasses import dataclass

FLOOR_S = 0.05
"""Shortest wait of all: a token about to die is retried 20 times a second at most."""


def delay_s(
    attempt: int,
    *,
    base_s: float,
    cap_s: float,
    fraction_of_life_s: float | None,
    draw: float,
    retry_after_s: float | None = None,
) -> float:
    """Return the seconds until the next try: `draw` x a window that doubles with each failure.

    Args:
        attempt: Failures in a row, 1 or more.
        base_s: The window after the first failure.
        cap_s: The widest window.
        fraction_of_life_s: The wait is no longer than this, the part of the token's remaining life
            that may be spent waiting, nor shorter than `FLOOR_S`. None, zero and less mean no
            bound: what is dead already is not saved by haste, and thousands of dead keys that all
            came at the floor would keep down whatever failed them.
        draw: Chance, in [0, 1).
        retry_after_s: The peer's own wish. The draw comes on top, or all whom it turned away would
            return at one instant. At most `cap_s` of it is heeded: a mistaken hour would outlast
            every token. The bound on life is stronger.

    Raises:
        ValueError: `attempt` or `draw` is out of range.
    """
    if attempt < 1 or not 0 <= draw < 1:
        raise ValueError(f"attempt is 1 or more, draw in [0, 1): {attempt}, {draw}")
    asked_s = min(max(retry_after_s or 0.0, 0.0), cap_s)
    delay = draw * _window_s(attempt, base_s, cap_s) + asked_s
    if fraction_of_life_s is not None and fraction_of_life_s > 0:
        delay = min(delay, fraction_of_life_s)
    return max(delay, FLOOR_S)


def _window_s(attempt: int, base_s: float, cap_s: float) -> float:
    # 2 ** 1024 is no float; no cap is 2 ** 64 times its base.
    return min(cap_s, math.ldexp(base_s, min(attempt - 1, 64)))


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """How patient one class of failure is; both in seconds, 0 < `base_s` <= `cap_s`."""

    name: str
    base_s: float
    cap_s: float

    def delay_s(
        self,
        attempt: int,
        *,
        fraction_of_life_s: float | None,
        draw: float,
        retry_after_s: float | None = None,
    ) -> float:
        """Return `delay_s` with this class's window."""
        return delay_s(
            attempt,
            base_s=self.base_s,
            cap_s=self.cap_s,
            fraction_of_life_s=fraction_of_life_s,
            draw=draw,
            retry_after_s=retry_after_s,
        )


TRANSIENT = BackoffPolicy("transient", base_s=0.5, cap_s=30.0)
"""5xx and no answer. One reset is over in half a second; after six failures the key's own fault is
likelier than the endpoint's, whose outages the shared breaker sees.
Source: client-go reflector.go: 0.8 s x 2, cap 30 s."""

CONFLICT = BackoffPolicy("conflict", base_s=0.1, cap_s=5.0)
"""409. The version that was missing arrives with the watch's next event, in tens of milliseconds;
5 s without it is when a taken name is reported."""

STARTING = BackoffPolicy("starting", base_s=0.1, cap_s=5.0)
"""403 for a right that worked. An API server that has just started knows its bindings after 0.2 s;
5 s is as late as one of a large cluster may be noticed."""

THROTTLED = BackoffPolicy("throttled", base_s=1.0, cap_s=60.0)
"""429, and a full quota. API priority and fairness says `Retry-After: 1`; one minute is the most
that spreads the load of a server that is overloaded for long, well inside the slack of 270 s."""

MISCONFIGURED = BackoffPolicy("misconfigured", base_s=30.0, cap_s=300.0)
"""403, 422 and refused credentials: a human has to act. Faster tries fill the audit log only; five
minutes is as long as one who has just mended it should have to wait."""
