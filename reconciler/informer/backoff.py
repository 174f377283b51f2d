"""The reflector's back-off; lists and watches share it, so that failures of both add up."""

from collections.abc import Callable

from reconciler.clock import Instant

BASE_S = 0.8
CAP_S = 8.0
"""Source: client-go reflector.go: 0.8 s x 2, jitter 1.0 = sleep uniform in [d, 2d). With its cap of
30 s the cache could lack events for up to a minute after the server has recovered; a pod that
starts with an expired token within that minute would keep it. The shared circuit breaker, not this
back-off, limits requests to a server that is unreachable."""

RESET_S = 120.0
"""Time of success after which the back-off starts from `BASE_S` again. client-go's helper resets
every two minutes, also within an outage; kube-rs counts only time without any back-off, as this
does."""


class Backoff:
    """Waits in seconds that double with each failure, with jitter.

    Args:
        uniform: Returns a random number between its two arguments (`Random.uniform`).
        base_s: The first step d.
        cap_s: The largest step d.
    """

    def __init__(
        self,
        uniform: Callable[[float, float], float],
        *,
        base_s: float = BASE_S,
        cap_s: float = CAP_S,
    ) -> None:
        self._uniform = uniform
        self._base_s = base_s
        self._cap_s = cap_s
        self._step_s = base_s
        self._slept_until_at: Instant | None = None

    def failed(self, now_at: Instant) -> float:
        """Return the wait before the next request, in [d, 2d) seconds, and double the step d."""
        step_s = self._step_s
        wait_s = self._uniform(step_s, 2 * step_s)
        self._step_s = min(2 * step_s, self._cap_s)
        self._slept_until_at = now_at + wait_s
        return wait_s

    def healthy(self, now_at: Instant) -> None:
        """Record a success; one that comes `RESET_S` after the last wait resets the step.

        Silence is no success: a stream that is silent for minutes and then fails continues the
        back-off of the outage.
        """
        if self._slept_until_at is not None and now_at - self._slept_until_at >= RESET_S:
            self.reset()

    def reset(self) -> None:
        """Start from the first step again."""
        self._step_s = self._base_s
        self._slept_until_at = None

    def __repr__(self) -> str:
        return f"<Backoff {self._step_s:.1f} s>"
