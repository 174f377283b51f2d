"""The wait after a failure: exponential, with jitter, bounded by the token's life (pure)."""

import math

import msgspec

FLOOR_S = 0.05
"""Shortest wait: a session with a token close to its expiry is retried 20 times a second at
most."""


class BackoffPolicy(msgspec.Struct, frozen=True):
    """The back-off of one class of failure: first and widest window, 0 < `base_s` <= `cap_s`.

    `least` in [0, 1) is the part of a window that each wait has at least: by default none, which is
    full jitter. With more, the number of attempts in a time has a bound.

    With a random number of 0.5 each wait is half of its window:

    >>> policy = BackoffPolicy("example", base_s=1.0, cap_s=10.0)
    >>> [policy.delay_s(n, fraction_of_life_s=None, rand=0.5) for n in (1, 2, 3, 4, 5)]
    [0.5, 1.0, 2.0, 4.0, 5.0]
    >>> policy.delay_s(5, fraction_of_life_s=3.0, rand=0.5)
    3.0
    """

    name: str
    base_s: float
    cap_s: float
    least: float = 0.0

    def delay_s(
        self,
        attempt: int,
        *,
        fraction_of_life_s: float | None,
        rand: float,
        retry_after_s: float | None = None,
    ) -> float:
        """Return the seconds until the next attempt: a random part of a window that doubles.

        Args:
            attempt: Number of failures in a row, 1 or more.
            fraction_of_life_s: Longest wait: the part of the token's remaining life that may be
                spent waiting. The wait is never shorter than `FLOOR_S`. None, zero and less mean no
                bound: an expired token gains nothing from a faster retry, and thousands of expired
                sessions that retry at the floor would keep the failing endpoint down.
            rand: Random number in [0, 1).
            retry_after_s: The peer's Retry-After. The jitter is added to it, otherwise all callers
                that the peer refused would return at one instant. At most `cap_s` of it is used: a
                mistaken hour would outlast every token. `fraction_of_life_s` bounds the sum.

        Raises:
            ValueError: `attempt` or `rand` is out of range.
        """
        if attempt < 1 or not 0 <= rand < 1:
            raise ValueError(f"attempt is 1 or more, rand in [0, 1): {attempt}, {rand}")
        server_min_s = min(max(retry_after_s or 0.0, 0.0), self.cap_s)
        # 2 ** 1024 is no float; no cap is 2 ** 64 times its base.
        window_s = min(self.cap_s, math.ldexp(self.base_s, min(attempt - 1, 64)))
        wait_s = (self.least + (1 - self.least) * rand) * window_s + server_min_s
        if fraction_of_life_s is not None and fraction_of_life_s > 0:
            wait_s = min(wait_s, fraction_of_life_s)
        return max(wait_s, FLOOR_S)


TRANSIENT = BackoffPolicy("transient", base_s=0.5, cap_s=30.0)
"""5xx and no answer. A single reset is over within half a second. After six failures the cause is
more likely this one session than the endpoint: the shared circuit breaker handles outages. Source:
client-go reflector.go: 0.8 s x 2, cap 30 s."""

CONFLICT = BackoffPolicy("conflict", base_s=0.1, cap_s=5.0)
"""409. The missing version arrives with the watch's next event, within tens of milliseconds; after
5 s without it a taken name is reported."""

STARTING = BackoffPolicy("starting", base_s=0.1, cap_s=5.0)
"""403 for a right that worked. An API server that has just started knows its bindings after 0.2 s;
on a large cluster it takes longer, and is noticed 5 s late at most."""

THROTTLED = BackoffPolicy("throttled", base_s=1.0, cap_s=60.0)
"""429, and a full quota. API priority and fairness sends `Retry-After: 1`. One minute spreads the
load on a server with a long overload, and is well within the slack of 270 s."""

MISCONFIGURED = BackoffPolicy("misconfigured", base_s=30.0, cap_s=300.0)
"""A namespace that terminates, a Secret without its labels, a write that has no effect: no attempt
succeeds before something else changes. After that the next one comes within five minutes."""

DENIED = BackoffPolicy("denied", base_s=2.0, cap_s=30.0, least=0.5)
"""A write that an admission policy or a webhook denies, that lacks a right, or that the API server
rejects. A webhook that is rolled out with a fault denies for a minute, and a Secret is immutable
until a person acts. The waits are those between the probes of an endpoint that refuses us:
`net.circuit_breaker`. Where more sessions are denied, or one for hours, each waits longer:
`write_errors.denied_wait_s`."""
