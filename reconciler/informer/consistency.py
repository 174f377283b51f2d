"""The safety list: proof, now and then, that the watch has missed nothing (pure).

A list taken beside a running stream differs from the store by whatever is still on its way. So it
is held until the stream reaches its version; at that moment both must be equal, and each
difference is one that the watch had missed.

One that follows a restart of the API server is not held. Etcd may have been restored before it to
an earlier revision; a stream that went on at a version of the lost history proves nothing, whether
it is silent or not.
"""

import math
from collections.abc import Callable

from reconciler.informer.messages import Effect, Replace
from reconciler.kube.resource_version import has_reached, is_newer

EVERY_S = (1800.0, 3600.0)
"""Between two safety lists; jittered, so that replicas and kinds take turns."""

RESTARTED_S = (30.0, 60.0)
"""From the first watch after the API server was unreachable to the list that proves its history:
jittered, as all reflectors lose it at one time. Below `listwatch.IDLE_S`, after which silence would
ask for one."""

RETRY_S = (60.0, 120.0)

HOLD_S = 150.0
"""Time for the stream to reach the list's version: two bookmarks and a margin."""


class ConsistencyCheck:
    """When the next safety list is due, and the one that is held."""

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._due_at = 0.0
        self._proof_at = math.inf
        self._held: Replace | None = None
        self._held_until_at = 0.0

    def is_due(self, now_at: float) -> bool:
        is_routine_due = self._held is None and now_at >= self._due_at
        return is_routine_due or now_at >= self._proof_at

    @property
    def proof_at(self) -> float:
        """When a list is due because the server was restarted; infinity where none is."""
        return self._proof_at

    def restarted(self, due_at: float) -> None:
        """Have a list at `due_at`, which holds for every restart until it: none postpones it."""
        self._proof_at = min(self._proof_at, due_at)

    def listed(self, now_at: float) -> None:
        """Start the period again after any complete list; what was held is history."""
        self._due_at = now_at + self._uniform(*EVERY_S)
        self._proof_at = math.inf
        self._held = None

    def failed(self, now_at: float) -> None:
        """Try again in a minute or two; a failed audit is no reason to stop watching."""
        self._due_at = now_at + self._uniform(*RETRY_S)
        if now_at >= self._proof_at:
            self._proof_at = self._due_at

    def hold(self, replace: Replace, now_at: float) -> None:
        self.listed(now_at)
        self._held = replace
        self._held_until_at = now_at + HOLD_S

    def place(self, version: str, emit: Effect) -> tuple[Effect, ...]:
        """Return an event's emit with the held list after its own version, before the next."""
        held = self._held
        if held is None or not has_reached(version, held.version):
            return (emit,)
        self._held = None
        return (held, emit) if is_newer(version, held.version) else (emit, held)

    def take_overdue(self, now_at: float) -> Replace | None:
        """Return the held list if the stream failed to reach it in time: it is the newer word."""
        held = self._held
        if held is None or now_at < self._held_until_at:
            return None
        self._held = None
        return held
