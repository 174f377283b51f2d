"""The consistency check: a periodic list that shows what the watch has missed (pure).

A list that is made while a watch is running may be newer than the store by events that have not
arrived yet. So the list is held until the stream reaches the list's version. At that moment both
must be equal, and each difference is a change that the watch has missed. Source: client-go's
consistencydetector has the same purpose.

A list that follows a restart of the API server is not held. Etcd may have been restored to an
earlier revision during the restart. A stream that continues at a version of the lost history proves
nothing, whether it is silent or not.
"""

from collections.abc import Callable

from reconciler.clock import LONG_AGO, NEVER, Instant
from reconciler.informer.messages import Effect, Replace
from reconciler.kube.api import has_reached, is_newer

EVERY_S = (1800.0, 3600.0)
"""Time between two checks; jittered, so that replicas and kinds do not check at one time."""

RESTARTED_S = (30.0, 60.0)
"""Time from the first watch after the API server was unreachable to the list that proves its
history; jittered, because all reflectors lose the server at one time. Below `protocol.IDLE_S`,
after which a silent watch leads to a list, too."""

RETRY_S = (60.0, 120.0)
"""Time from a failed check to the next one."""

HOLD_S = 150.0
"""Time for the stream to reach the list's version: two bookmarks and a margin."""


class ConsistencyCheck:
    """The time of the next list for a check, and the list that is held."""

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._due_at: Instant = LONG_AGO
        self._proof_at: Instant = NEVER
        self._held: Replace | None = None
        self._held_until_at: Instant = LONG_AGO

    def is_due(self, now_at: Instant) -> bool:
        is_routine_due = self._held is None and now_at >= self._due_at
        return is_routine_due or now_at >= self._proof_at

    @property
    def proof_at(self) -> Instant:
        """Return when a list is due because the server was restarted; infinity where none is."""
        return self._proof_at

    def require_proof(self, due_at: Instant) -> None:
        """Require a list at `due_at`; a further restart before that time does not postpone it."""
        self._proof_at = min(self._proof_at, due_at)

    def listed(self, now_at: Instant) -> None:
        """Start the period again after any complete list, and drop the list that was held."""
        self._due_at = now_at + self._uniform(*EVERY_S)
        self._proof_at = NEVER
        self._held = None

    def failed(self, now_at: Instant) -> None:
        """Retry after `RETRY_S`; the watch continues after a failed check."""
        self._due_at = now_at + self._uniform(*RETRY_S)
        if now_at >= self._proof_at:
            self._proof_at = self._due_at

    def hold(self, replace: Replace, now_at: Instant) -> None:
        """Hold a complete list until the stream reaches its version, for `HOLD_S` at most."""
        self.listed(now_at)
        self._held = replace
        self._held_until_at = now_at + HOLD_S

    def insert_held_list(self, version: str, effect: Effect) -> tuple[Effect, ...]:
        """Return an event's effect, with the held list where the stream reaches its version.

        The list comes after an effect of the same version, and before that of a newer one.
        """
        held = self._held
        if held is None or not has_reached(version, held.version):
            return (effect,)
        self._held = None
        return (held, effect) if is_newer(version, held.version) else (effect, held)

    def take_overdue(self, now_at: Instant) -> Replace | None:
        """Return the held list if the stream has not reached it in time: the list is newer."""
        held = self._held
        if held is None or now_at < self._held_until_at:
            return None
        self._held = None
        return held
