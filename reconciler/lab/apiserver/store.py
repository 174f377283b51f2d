"""Objects by kind and key, with one version counter, their latest changes, and their owners."""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.lab.apiserver.kinds import STORED, Kind, Object

Ref = tuple[Kind, str]
"""An object by kind and store key."""


@dataclass(frozen=True, slots=True)
class StoreChange:
    """One committed write: `old` is None for a create, `new` for a removal."""

    version: int
    kind: Kind
    key: str
    old: Object | None
    new: Object | None


class ObjectStore:
    """The newest state and a bounded history.

    Args:
        history: Number of changes kept; older ones are compacted.
    """

    def __init__(self, *, history: int) -> None:
        self.version = 1
        self.compacted = 1
        """All changes after this version are kept: a watch may start here, not before."""
        self._history_limit = history
        self._history: deque[StoreChange] = deque()
        self._objects: dict[Kind, dict[str, Object]] = {kind: {} for kind in STORED}
        self._order: dict[Kind, list[str]] = {kind: [] for kind in STORED}

    def get(self, kind: Kind, key: str) -> Object | None:
        return self._objects[kind].get(key)

    def count(self, kind: Kind) -> int:
        return len(self._order[kind])

    def put(self, kind: Kind, key: str, item: Object) -> StoreChange:
        """Commit a copy of `item` with the next version in its metadata."""
        objects = self._objects[kind]
        old = objects.get(key)
        if old is None:
            insort(self._order[kind], key)
        new = objects[key] = stamped(item, self.version + 1)
        return self._record(kind, key, old, new)

    def remove(self, kind: Kind, key: str) -> StoreChange:
        """Commit a removal; raises KeyError for an unknown key."""
        old = self._objects[kind].pop(key)
        order = self._order[kind]
        del order[bisect_left(order, key)]
        return self._record(kind, key, old, None)

    def _record(self, kind: Kind, key: str, old: Object | None, new: Object | None) -> StoreChange:
        self.version += 1
        change = StoreChange(self.version, kind, key, old, new)
        self._history.append(change)
        while len(self._history) > self._history_limit:
            self.compacted = self._history.popleft().version
        return change

    def compact(self, version: int) -> None:
        """Drop the changes up to and including `version`."""
        while self._history and self._history[0].version <= version:
            self._history.popleft()
        self.compacted = max(self.compacted, min(version, self.version))

    def restore(self, version: int) -> list[StoreChange]:
        """Return to an earlier version, as a restored etcd does.

        The next write gets the version after that one, so that one number may name two states.

        Returns:
            The undone changes, newest first.
        Raises:
            ValueError: Changes after `version` are compacted.
        """
        if version < self.compacted:
            raise ValueError(f"{version} is compacted")
        undone = self.since(version)[::-1]
        for change in undone:
            objects, order = self._objects[change.kind], self._order[change.kind]
            if change.old is None:
                del objects[change.key]
                del order[bisect_left(order, change.key)]
            else:
                if change.new is None:
                    insort(order, change.key)
                objects[change.key] = change.old
            self._history.pop()
        self.version = version
        return undone

    def since(self, version: int) -> list[StoreChange]:
        """Return the changes after `version`, oldest first; it must not be compacted."""
        found: list[StoreChange] = []
        for change in reversed(self._history):
            if change.version <= version:
                break
            found.append(change)
        return found[::-1]

    def items(
        self, kind: Kind, *, start: str = "", version: int = 0
    ) -> Iterator[tuple[str, Object]]:
        """Yield key and object in key order, from key `start` on.

        Args:
            version: The state at that version, 0: now; not before `compacted`.
        """
        objects, order = self._objects[kind], self._order[kind]
        if version and version < self.version:
            objects = self._at(kind, version)
            order = order if objects is self._objects[kind] else sorted(objects)
        for key in order[bisect_left(order, start) :]:
            yield key, objects[key]

    def _at(self, kind: Kind, version: int) -> dict[str, Object]:
        """Return the objects at that version, by undoing later changes. Cost: one copy."""
        undo = [change for change in self.since(version) if change.kind is kind]
        if not undo:
            return self._objects[kind]
        objects = dict(self._objects[kind])
        for change in reversed(undo):
            if change.old is None:
                del objects[change.key]
            else:
                objects[change.key] = change.old
        return objects


def stamped(item: Object, version: int) -> Object:
    """Return `item` with another resourceVersion."""
    return {**item, "metadata": {**item["metadata"], "resourceVersion": str(version)}}


class OwnerIndex:
    """Objects by the UID of their owners, and the terminating namespaces."""

    def __init__(self) -> None:
        self.terminating: set[str] = set()
        self._uids: set[str] = set()
        self._owned: dict[str, set[Ref]] = {}
        self._candidates: deque[Ref] = deque()

    def add(self, kind: Kind, key: str, item: Object) -> None:
        """Record a new or changed object."""
        self._uids.add(item["metadata"]["uid"])
        owners = _owners(item)
        for owner in owners:
            self._owned.setdefault(owner, set()).add((kind, key))
        if owners and self.is_orphan(item):
            self._candidates.append((kind, key))

    def remove(self, kind: Kind, key: str, item: Object) -> None:
        """Record a removal; the objects that it owned become candidates for collection."""
        uid = item["metadata"]["uid"]
        self._uids.discard(uid)
        for owner in _owners(item):
            self._owned.get(owner, set()).discard((kind, key))
        # Sorted: the order of a set differs between runs of the same seed.
        self._candidates.extend(sorted(self._owned.pop(uid, ()), key=lambda ref: ref[1]))

    def next_candidate(self) -> Ref | None:
        """Return the next object to check, or None; another may have replaced it since."""
        return self._candidates.popleft() if self._candidates else None

    def is_orphan(self, item: Object) -> bool:
        """Whether an object names owners, and none of them exists."""
        owners = _owners(item)
        return bool(owners) and not any(owner in self._uids for owner in owners)


def _owners(item: Object) -> list[str]:
    return [owner["uid"] for owner in item["metadata"].get("ownerReferences", ())]
