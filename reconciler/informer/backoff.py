"""The reflector's one back-off, shared by list and watch: neither hides the other's fault."""

from collections.abc import Callable

BASE_S = 0.8
CAP_S = 8.0
"""Source: client-go reflector.go: 0.8 s x 2, jitter 1.0 = sleep uniform in [d, 2d). Its cap of 30 s
would leave us blind for up to a minute beside a healthy server: a pod that starts on a dead token
meanwhile has no live one. A server that is away is the shared breaker's matter, not this one's."""

RESET_S = 120.0
"""Health that forgives: client-go's helper returns to 0.8 s every two minutes of an outage too;
kube-rs counts only time without any back-off, and so do we."""


class Backoff:
    """Doubling waits with jitter, in seconds.

    Args:
        uniform: Returns a random number between its two arguments (`Random.uniform`).
        base_s: The first d.
        cap_s: The last d.
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
        self._slept_until_at: float | None = None

    def failed(self, now_at: float) -> float:
        """Return the wait before the next attempt, in [d, 2d) seconds, and double d."""
        step_s = self._step_s
        wait_s = self._uniform(step_s, 2 * step_s)
        self._step_s = min(2 * step_s, self._cap_s)
        self._slept_until_at = now_at + wait_s
        return wait_s

    def healthy(self, now_at: float) -> None:
        """Record a sign of life; the one that comes `RESET_S` after the last wait resets d.

        Silence is no health: an open stream that says nothing for minutes and then fails goes on
        where the outage was.
        """
        if self._slept_until_at is not None and now_at - self._slept_until_at >= RESET_S:
            self.reset()

    def reset(self) -> None:
        """Begin with the first d again."""
        self._step_s = self._base_s
        self._slept_until_at = None

    def __repr__(self) -> str:
        return f"<Backoff {self._step_s:.1f} s>"
