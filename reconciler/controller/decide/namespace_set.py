"""Which namespaces are watched, by lists that may be short, empty or wrong (pure)."""

import math
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import NamedTuple

LISTS = 2
"""Whole lists in a row that must lack a namespace before it is let go."""


class NamespaceChanges(NamedTuple):
    """What one list changes: namespaces to begin with and to let go, each in a steady order."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class _Absence:
    """Since when whole lists lack a namespace (monotonic), and how many did."""

    __slots__ = ("count", "since_at")

    def __init__(self, since_at: float) -> None:
        self.since_at = since_at
        self.count = 0


class NamespaceSet:
    """The namespaces that are watched, and what speaks against some of them.

    Whatever names one, brings it in. Only absence from whole lists that are not empty takes one
    out, several in a row and a while apart, and never one that is held; or, where the bound is
    reached, another in which a session runs.

    Args:
        seeds: Watched from the start and for ever.
        grace_s: How long whole lists must lack a namespace, in seconds.
        at_most: Bound on how many are watched, seeds aside: each costs connections.
    """

    def __init__(self, seeds: Iterable[str], *, grace_s: float, at_most: int) -> None:
        self._seeds = frozenset(seeds)
        self._found: dict[str, float] = {}  # when a session was last said to run there
        self._absences: dict[str, _Absence] = {}
        self._grace_s = grace_s
        self._at_most = at_most
        self.left_out = 0
        """How many namespaces the latest names had beyond the bound."""

    @property
    def names(self) -> frozenset[str]:
        return self._seeds.union(self._found)

    @property
    def leaving(self) -> frozenset[str]:
        """Namespaces that the latest whole list lacked and that are still watched."""
        return frozenset(self._absences)

    def exceeds(self, names: Iterable[str]) -> bool:
        """Tell whether there is no room for all of these names."""
        fresh = {name for name in names if name not in self._seeds and name not in self._found}
        return len(self._found) + len(fresh) > self._at_most

    def named(self, names: Iterable[str]) -> NamespaceChanges:
        """Take in names that somebody gave, one or many, whatever else there may be."""
        fresh: list[str] = []
        self.left_out = 0
        for name in dict.fromkeys(names):
            self._absences.pop(name, None)
            if name in self._seeds or name in self._found:
                continue
            if len(self._found) >= self._at_most:
                self.left_out += 1
                continue
            self._found[name] = -math.inf
            fresh.append(name)
        return NamespaceChanges(added=tuple(fresh))

    def occupied(
        self, names: Iterable[str], *, now_at: float, is_held: Callable[[str], bool]
    ) -> NamespaceChanges:
        """Take in namespaces in which sessions run: they come before those in which none does.

        Where the bound is reached, one in which nothing lives makes room, unless a session was said
        to run there within `grace_s`: its pod may not be there yet.
        """
        names = list(dict.fromkeys(names))
        for name in self._found.keys() & names:
            self._found[name] = now_at
        missing = [name for name in names if name not in self._seeds and name not in self._found]
        room = self._at_most - len(self._found)
        let_go = []
        if len(missing) > room:
            spare = (
                name
                for name, ran_at in reversed(self._found.items())
                if now_at - ran_at > self._grace_s and not is_held(name)
            )
            let_go = list(islice(spare, len(missing) - room))
        for name in let_go:
            del self._found[name]
            self._absences.pop(name, None)
        moves = self.named(names)
        for name in moves.added:
            self._found[name] = now_at
        return NamespaceChanges(moves.added, tuple(let_go))

    def listed(
        self, names: Collection[str], *, now_at: float, is_held: Callable[[str], bool]
    ) -> NamespaceChanges:
        """Take in a whole list; an empty one says nothing.

        Args:
            is_held: Whether something still lives in a namespace.
        """
        if not names:
            return NamespaceChanges()
        absent = [name for name in self._found if name not in names]
        let_go = [name for name in absent if self._is_over(name, now_at) and not is_held(name)]
        for name in let_go:
            del self._found[name], self._absences[name]
        return NamespaceChanges(self.named(names).added, tuple(let_go))

    def _is_over(self, name: str, now_at: float) -> bool:
        absence = self._absences.setdefault(name, _Absence(now_at))
        absence.count += 1
        return absence.count >= LISTS and now_at - absence.since_at >= self._grace_s
