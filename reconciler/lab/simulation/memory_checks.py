"""Counts the entries of every map, set, list and queue that a replica holds.

A leak of one entry a session is a few bytes in a world, and gigabytes after a year.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from reconciler.clock import Clock, Instant
from reconciler.lab.simulation.event_log import EventLog
from reconciler.lab.simulation.replica import SimulatedReplica

BOUNDED_MEMORY = "bounded_memory"

PRODUCT, LAB = "reconciler.", "reconciler.lab."

CONSTANT = 30
"""Entries that a container may have besides those of sessions: states, endpoints, namespaces."""

LIMITED = frozenset({"WriteRecords._records"})
"""Containers whose class drops the oldest entry beyond a limit of its own. Until then they have
those of sessions that have ended, too."""

A_WORKER = 2
"""Entries of one worker in one container."""

A_SESSION = 2
"""Entries of one session in one container: of its pod and of its Secret."""


FORGOTTEN_S = 900.0
"""Longest time for which a replica may keep what has ended: as long as the longest outage."""


class MemoryChecker:
    """Checks each replica's containers against the number of sessions.

    Args:
        workers: Number of workers of each replica.
    """

    def __init__(self, event_log: EventLog, clock: Clock, *, workers: int) -> None:
        self._event_log = event_log
        self._clock = clock
        self._workers = workers
        self._counts: deque[tuple[Instant, int]] = deque()

    def check(self, replicas: Iterable[SimulatedReplica], *, sessions: int) -> None:
        """Check all replicas; `sessions` have a pod or a Secret now."""
        now_at = self._clock.monotonic()
        self._counts.append((now_at, sessions))
        while self._counts[0][0] < now_at - FORGOTTEN_S:
            self._counts.popleft()
        held = max(count for _, count in self._counts)
        most = A_SESSION * held + A_WORKER * self._workers + CONSTANT
        for replica in replicas:
            self._check_replica(replica, most=most, sessions=held)

    def _check_replica(self, replica: SimulatedReplica, *, most: int, sessions: int) -> None:
        for name, entries in sizes_of(replica.controller).items():
            if entries > most and name not in LIMITED:
                what = f"{replica.me}: {name} has {entries} entries for {sessions} sessions"
                self._event_log.add_violation(BOUNDED_MEMORY, what)


def sizes_of(root: object) -> dict[str, int]:
    """Return the number of entries of each container that objects of the product hold.

    Containers with a limit of their own (`deque(maxlen)`, those of cachetools) are left out. Of
    several objects of a class the largest counts.

    Returns: By class and attribute, such as `WorkQueue._waiting`.
    """
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    left: list[object] = [root]
    while left:
        owner = left.pop()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        for attribute, value in _attributes(owner):
            if _is_container(value):
                name = f"{type(owner).__name__}.{attribute}"
                sizes[name] = max(sizes.get(name, 0), len(value))
                left += filter(_is_walked, _elements(value))
            elif _is_walked(value):
                left.append(value)
    return sizes


def _is_walked(value: object) -> bool:
    module = type(value).__module__
    is_product = module.startswith(PRODUCT) and not module.startswith(LAB)
    if isinstance(value, msgspec.Struct):  # without `gc` it has no container that grows
        return is_product and value.__struct_config__.gc
    return is_product and not isinstance(value, type)


def _is_container(value: object) -> bool:
    if isinstance(value, deque):
        return value.maxlen is None
    return isinstance(value, dict | set | list)


def _elements(value: Any) -> Iterator[object]:
    yield from value.values() if isinstance(value, Mapping) else value


def _attributes(owner: object) -> Iterator[tuple[str, Any]]:
    yield from getattr(owner, "__dict__", {}).items()
    for each in type(owner).__mro__:
        for name in getattr(each, "__slots__", ()):
            if (value := getattr(owner, name, None)) is not None:
                yield name, value
