"""Which objects are owned by which, so that nobody has to search for orphans."""

from collections import deque

from reconciler.lab.apiserver.kinds import Kind, Object

Ref = tuple[Kind, str]


class OwnerIndex:
    """Owners and the owned, by uid, and the namespaces that are being emptied."""

    def __init__(self) -> None:
        self.terminating: set[str] = set()
        self._alive: set[str] = set()
        self._owned: dict[str, set[Ref]] = {}
        self._suspects: deque[Ref] = deque()

    def add(self, kind: Kind, key: str, item: Object) -> None:
        """Take note of an object that is there, new or changed."""
        self._alive.add(item["metadata"]["uid"])
        owners = _owners(item)
        for owner in owners:
            self._owned.setdefault(owner, set()).add((kind, key))
        if owners and self.is_orphan(item):
            self._suspects.append((kind, key))

    def remove(self, kind: Kind, key: str, item: Object) -> None:
        """Take note of a removal; what it owned is suspected from now on."""
        uid = item["metadata"]["uid"]
        self._alive.discard(uid)
        for owner in _owners(item):
            self._owned.get(owner, set()).discard((kind, key))
        # Sorted: the order of a set differs between runs of the same seed.
        self._suspects.extend(sorted(self._owned.pop(uid, ()), key=lambda ref: ref[1]))

    def next_orphan(self) -> Ref | None:
        """Return the next object to look at, or None; it may have been replaced meanwhile."""
        return self._suspects.popleft() if self._suspects else None

    def is_orphan(self, item: Object) -> bool:
        """Whether it names owners and none of them is alive."""
        owners = _owners(item)
        return bool(owners) and not any(owner in self._alive for owner in owners)


def _owners(item: Object) -> list[str]:
    return [owner["uid"] for owner in item["metadata"].get("ownerReferences", ())]
