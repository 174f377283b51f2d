"""Which namespaces are watched, by lists that may be short, empty or wrong (pure)."""

from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import NamedTuple

from reconciler.clock import LONG_AGO, Instant

MIN_LISTS = 2
"""Consecutive complete lists that must lack a namespace before it is removed."""


class NamespaceChanges(NamedTuple):
    """Namespaces that a list adds and removes, each in a stable order."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class _Absence:
    """First time at which complete lists lacked a namespace (monotonic), and how many did."""

    __slots__ = ("count", "first_at")

    def __init__(self, since_at: Instant) -> None:
        self.first_at = since_at
        self.count = 0


class NamespaceSet:
    """The watched namespaces, and the absences of some of them.

    Any name adds a namespace. It is removed only after several consecutive complete lists that are
    not empty, over some time, have lacked it, and never while it is in use; or, at the limit, to
    make room for one with a running session.

    Args:
        static: Watched always.
        grace_s: How long complete lists must lack a namespace, in seconds.
        limit: Most watched namespaces, the static ones not counted: each costs connections.
    """

    def __init__(self, static: Iterable[str], *, grace_s: float, limit: int) -> None:
        self._static = frozenset(static)
        self._last_run_at: dict[str, Instant] = {}  # when the platform last listed a session there
        self._absences: dict[str, _Absence] = {}
        self._grace_s = grace_s
        self._limit = limit
        self.over_limit = 0
        """How many of the latest names were beyond the limit."""

    @property
    def names(self) -> frozenset[str]:
        return self._static.union(self._last_run_at)

    @property
    def leaving(self) -> frozenset[str]:
        """Watched namespaces that the latest complete list lacked."""
        return frozenset(self._absences)

    def exceeds(self, names: Iterable[str]) -> bool:
        """Return whether these names together exceed the limit."""
        fresh = {
            name for name in names if name not in self._static and name not in self._last_run_at
        }
        return len(self._last_run_at) + len(fresh) > self._limit

    def add(self, names: Iterable[str]) -> NamespaceChanges:
        """Add names from any source."""
        fresh: list[str] = []
        self.over_limit = 0
        for name in dict.fromkeys(names):
            self._absences.pop(name, None)
            if name in self._static or name in self._last_run_at:
                continue
            if len(self._last_run_at) >= self._limit:
                self.over_limit += 1
                continue
            self._last_run_at[name] = LONG_AGO
            fresh.append(name)
        return NamespaceChanges(added=tuple(fresh))

    def add_occupied(
        self, names: Iterable[str], *, now_at: Instant, in_use: Callable[[str], bool]
    ) -> NamespaceChanges:
        """Add namespaces with running sessions, which have precedence over those without.

        At the limit each replaces one that is not in use, unless the platform listed a session in
        that one within `grace_s`: its pod may not exist yet.
        """
        names = list(dict.fromkeys(names))
        for name in self._last_run_at.keys() & names:
            self._last_run_at[name] = now_at
        missing = [
            name for name in names if name not in self._static and name not in self._last_run_at
        ]
        free = self._limit - len(self._last_run_at)
        removed = []
        if len(missing) > free:
            removable = (
                name
                for name, ran_at in reversed(self._last_run_at.items())
                if now_at - ran_at > self._grace_s and not in_use(name)
            )
            removed = list(islice(removable, len(missing) - free))
        for name in removed:
            del self._last_run_at[name]
            self._absences.pop(name, None)
        changes = self.add(names)
        for name in changes.added:
            self._last_run_at[name] = now_at
        return NamespaceChanges(changes.added, tuple(removed))

    def update(
        self, names: Collection[str], *, now_at: Instant, in_use: Callable[[str], bool]
    ) -> NamespaceChanges:
        """Update from a complete list; an empty one changes nothing.

        Args:
            in_use: Returns whether a namespace is still in use.
        """
        if not names:
            return NamespaceChanges()
        absent = [name for name in self._last_run_at if name not in names]
        removed = [
            name for name in absent if self._is_absent_long(name, now_at) and not in_use(name)
        ]
        for name in removed:
            del self._last_run_at[name], self._absences[name]
        return NamespaceChanges(self.add(names).added, tuple(removed))

    def _is_absent_long(self, name: str, now_at: Instant) -> bool:
        absence = self._absences.setdefault(name, _Absence(now_at))
        absence.count += 1
        return absence.count >= MIN_LISTS and now_at - absence.first_at >= self._grace_s
