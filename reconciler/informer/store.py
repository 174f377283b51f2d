"""The objects of one kind as last seen, with the index that the controller reads (pure)."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import msgspec

from reconciler.kube.api import ObjectMeta, has_reached, is_newer
from reconciler.naming import SessionKey

ObjectEvent = Literal["ADDED", "MODIFIED", "DELETED"]


class Change(msgspec.Struct, frozen=True, gc=False):
    """One object before and after; None = absent. The sessions of both may need a reconcile.

    From an event `old` and `new` may differ in UID (recreated) or in session (label edited).
    """

    old: ObjectMeta | None
    new: ObjectMeta | None


class CacheEntry(NamedTuple):
    """The cached object when a read of it began; `reached` is its scope's version then."""

    meta: ObjectMeta | None
    reached: str | None


class ReadResult(NamedTuple):
    """What a consistent read has changed; `rewound`: the read proves that history was rewound."""

    change: Change | None
    rewound: bool


class Store:
    """Every object of one kind by namespace and name.

    Three sources write to it: lists (`replace`), watch events (`apply`, `set_resource_version`) and
    the responses to our own writes (`apply_write_response`). The reflector orders the first two;
    responses may come at any moment. An object that is newer than its scope's version can only come
    from a response.

    Order: every call leaves objects and versions in one consistent state.

    >>> store = Store("secrets")
    >>> secret = ObjectMeta("team-a", "secret-1", "uid-1", "7", "s1", "p1", 0.0, False)
    >>> changes = list(store.replace([secret], version="9", namespace=None))
    >>> store.apply("DELETED", secret) == Change(old=secret, new=None)
    True
    >>> store
    <Store secrets 0 objects, 1 synced>
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._objects: dict[str, dict[str, ObjectMeta]] = {}
        self._versions: dict[str | None, str] = {}
        self._incoming: dict[str | None, str] = {}
        """By synced scope, the version of the list that `replace` is taking in."""
        self._replacing: dict[str | None, Iterator[Change | None]] = {}

    def apply(self, event_type: ObjectEvent, meta: ObjectMeta) -> Change | None:
        """Take one watch event; None where it changed nothing (known, or older than known)."""
        self.set_resource_version(meta.version, self._scope_of(meta.namespace))
        stored = self.get(meta.namespace, meta.name)
        if event_type == "DELETED":
            return self._apply_deletion(stored, meta)
        if stored is not None and (_same(stored, meta) or is_newer(stored.version, meta.version)):
            return None
        self._put(stored, meta)
        return Change(stored, meta)

    def set_resource_version(self, version: str, namespace: str | None) -> None:
        """Record the version that a synced scope's stream has reached, as a bookmark gives it.

        The last value counts even where its number is lower. Source: client-go
        TestReflectorWatchHandler.
        """
        if namespace in self._versions:
            self._versions[namespace] = version

    def replace(
        self, items: Iterable[ObjectMeta], version: str, namespace: str | None
    ) -> Iterator[Change | None]:
        """Make a scope equal to a complete list, except for write responses newer than that list.

        A list that is older than what the stream had reached replaces everything: history was
        rewound (etcd restored), and ignoring its "older" objects would freeze the store.

        Args:
            items: Every object of the scope.
            version: The list's own version.
            namespace: The scope; None = all namespaces.

        Returns: What changes, each object when the iterator comes to it: first what is gone, then
            the list in its order. An object under a new UID is a deletion and an addition. None is
            a step that changes nothing.

        Order: The scope has the list, and its version, when the iterator has ended. Between two
            steps write responses may come, and each object is the listed one, the one before, or
            that response. It must be run to its end: no event would bring what is left out. It
            ends early where `forget` drops the scope.
        Cost: O(objects in the scope + items).
        """
        steps = self._replacing[namespace] = self._replace(items, version, namespace)
        for step in steps:
            yield step
            if self._replacing.get(namespace) is not steps:
                return
        del self._replacing[namespace]

    def _replace(
        self, items: Iterable[ObjectMeta], version: str, namespace: str | None
    ) -> Iterator[Change | None]:
        listed: dict[str, dict[str, ObjectMeta]] = {}
        for item in items:
            listed.setdefault(item.namespace, {})[item.name] = item
            yield None
        reached = self.version(namespace)
        if namespace in self._versions:
            self._incoming[namespace] = version
        for stored in self._in_scope(namespace):
            new = listed.get(stored.namespace, {}).get(stored.name)
            present = self.get(stored.namespace, stored.name)
            is_listed = new is not None and new.uid == stored.uid
            if (
                is_listed
                or present is None
                or present.uid != stored.uid
                or _survives(present, reached, version)
            ):
                yield None
                continue
            self._remove(present)
            yield Change(present, None)
        for named in listed.values():
            for new in named.values():
                present = self.get(new.namespace, new.name)
                # One version may name two states in two histories: all fields are compared.
                if present == new or (present is not None and _survives(present, reached, version)):
                    yield None
                    continue
                self._put(present, new)
                yield Change(present, new)
        self._versions[namespace] = version
        self._incoming.pop(namespace, None)

    def apply_write_response(self, meta: ObjectMeta) -> Change | None:
        """Store the response to our own write at once, so that we read what we wrote.

        It is stored only where it is known to be newer; where versions cannot be compared, the
        watch brings the object.

        Returns:
            The change; None where the store has this version or a newer one already, or where the
            object is absent although the stream, or a list that is being taken in, has passed the
            response: it was deleted since.
        """
        stored = self.get(meta.namespace, meta.name)
        known = stored.version if stored is not None else self._passed(meta.namespace)
        if known is not None and not is_newer(meta.version, known):
            return None
        self._put(stored, meta)
        return Change(stored, meta)

    def entry(self, namespace: str, name: str) -> CacheEntry:
        """Return the cached state of an object, for `apply_read`; to call before the read."""
        return CacheEntry(self.get(namespace, name), self.version(namespace))

    def apply_read(
        self, namespace: str, name: str, found: ObjectMeta | None, version: str, cached: CacheEntry
    ) -> ReadResult:
        """Store a consistent read of one object; the read wins where it contradicts the cache.

        Within one history such a read is at least as new as the cache was when the read was sent.
        An older one proves another history: etcd was restored to an earlier revision, and no event
        shows what was lost.

        Args:
            found: The object; None = it does not exist, or is not in the selection.
            version: The version of the list by which the object was read.
            cached: What `entry` returned before the read was sent.
        """
        read_version = found.version if found is not None else version
        rewound = _is_older(version, cached.reached) or (
            cached.meta is not None and _is_older(read_version, cached.meta.version)
        )
        stored = self.get(namespace, name)
        if stored != cached.meta:  # an event or a write response came during the read
            return ReadResult(None if found is None else self.apply_write_response(found), rewound)
        if stored == found:
            return ReadResult(None, rewound)
        if found is None:
            assert stored is not None  # noqa: S101 - the two differ
            self._remove(stored)
            return ReadResult(Change(stored, None), rewound)
        if stored is None and not rewound and _is_older(version, self._passed(namespace)):
            # The stream, or a list, has passed the read, and the object is absent.
            return ReadResult(None, rewound)
        self._put(stored, found)
        return ReadResult(Change(stored, found), rewound)

    def forget(self, namespace: str) -> tuple[ObjectMeta, ...]:
        """Drop a scope that has no reflector any more, and return its objects.

        Order: its reflector takes in nothing more; a list that is being taken in ends here. No
            write there is in progress whose response could come.
        """
        for taking in (self._incoming, self._replacing):
            taking.pop(namespace, None)
        dropped = self._in_scope(namespace)
        for stored in dropped:
            self._remove(stored)
        self._versions.pop(namespace, None)
        return dropped

    def version(self, namespace: str | None) -> str | None:
        """Return the version of the scope that covers `namespace`; None before its first list."""
        return self._versions.get(self._scope_of(namespace))

    def synced(self, namespace: str | None) -> bool:
        """Return whether a first complete list covers `namespace` (None = all of them)."""
        return self.version(namespace) is not None

    def get(self, namespace: str, name: str) -> ObjectMeta | None:
        return self._objects.get(namespace, {}).get(name)

    def namespaces(self) -> frozenset[str]:
        """Return the namespaces that hold at least one object."""
        return frozenset(self._objects)

    def within(self, namespace: str) -> tuple[ObjectMeta, ...]:
        """Return a namespace's objects, a frozen copy."""
        return tuple(self._objects.get(namespace, {}).values())

    def snapshot(self) -> tuple[ObjectMeta, ...]:
        """Return every object, a frozen copy. Cost: O(objects)."""
        return tuple(meta for named in self._objects.values() for meta in named.values())

    def __len__(self) -> int:
        return sum(map(len, self._objects.values()))

    def __repr__(self) -> str:
        state = f"{len(self._versions)} synced" if self._versions else "not synced"
        return f"<{type(self).__name__} {self.kind} {len(self)} objects, {state}>"

    def _apply_deletion(self, stored: ObjectMeta | None, last: ObjectMeta) -> Change | None:
        """Remove the object of a DELETED event, which may not be the stored one any more.

        Same UID: it left the selection, even if a write response is newer than the event. If the
        write brought it back, its own ADDED event follows. If it was kept and the write did not
        bring it back, no event would remove it. Another UID: an older event is about its
        predecessor.
        """
        if stored is None:
            return None
        if stored.uid != last.uid and is_newer(stored.version, last.version):
            return None
        self._remove(stored)
        return Change(stored, None)

    def _passed(self, namespace: str) -> str | None:
        """Return the version at which an object that is absent was absent."""
        scope = self._scope_of(namespace)
        return self._incoming.get(scope, self._versions.get(scope))

    def _scope_of(self, namespace: str | None) -> str | None:
        return namespace if namespace in self._versions else None

    def _in_scope(self, namespace: str | None) -> tuple[ObjectMeta, ...]:
        return self.snapshot() if namespace is None else self.within(namespace)

    def _put(self, old: ObjectMeta | None, new: ObjectMeta) -> None:
        self._objects.setdefault(new.namespace, {})[new.name] = new

    def _remove(self, old: ObjectMeta) -> None:
        named = self._objects[old.namespace]
        del named[old.name]
        if not named:
            del self._objects[old.namespace]


class IndexedStore(Store):
    """A store with an index by session; without the label an object belongs to no session.

    Only pods need one: a Secret is found by its name. It has 0.2 KB a session.

    >>> store = IndexedStore("pods")
    >>> pod = ObjectMeta("team-a", "runner-1", "uid-1", "7", "s1", "p1", 0.0, False)
    >>> changes = list(store.replace([pod], version="9", namespace=None))
    >>> [meta.name for meta in store.by_session(SessionKey("team-a", "s1"))]
    ['runner-1']
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self._sessions: dict[SessionKey, str | tuple[str, ...]] = {}
        """One name as a text: nearly all sessions have one pod, and a tuple has 64 bytes."""

    def by_session(self, key: SessionKey) -> tuple[ObjectMeta, ...]:
        """Return the session's objects, by name; frozen, usually one."""
        names = self._sessions.get(key, ())
        if isinstance(names, str):
            return (self._objects[key.namespace][names],)
        return tuple(self._objects[key.namespace][name] for name in names)

    def has_session(self, key: SessionKey) -> bool:
        return key in self._sessions

    def session_keys(self) -> tuple[SessionKey, ...]:
        """Return the key of each session with an object: the index's own keys, a frozen copy.

        Who keeps one of them for each session keeps no second copy of it.
        Cost: O(sessions).
        """
        return tuple(self._sessions)

    def _put(self, old: ObjectMeta | None, new: ObjectMeta) -> None:
        super()._put(old, new)
        if old is None or old.session_id != new.session_id:
            if old is not None:
                self._unindex(old)
            if new.session_id:
                self._index(new.key, (*self._names(new.key), new.name))

    def _remove(self, old: ObjectMeta) -> None:
        super()._remove(old)
        self._unindex(old)

    def _unindex(self, meta: ObjectMeta) -> None:
        if meta.session_id:
            names = self._names(meta.key)
            self._index(meta.key, tuple(name for name in names if name != meta.name))

    def _names(self, key: SessionKey) -> tuple[str, ...]:
        names = self._sessions.get(key, ())
        return (names,) if isinstance(names, str) else names

    def _index(self, key: SessionKey, names: tuple[str, ...]) -> None:
        if names:
            self._sessions[key] = names[0] if len(names) == 1 else tuple(sorted(names))
        else:
            del self._sessions[key]


def is_rewound(change: Change, reached: str | None) -> bool:
    """Return whether a list shows an object at a version that the stream had passed without it.

    Args:
        change: One of `Store.replace`.
        reached: The scope's version before that. In the same history every object with a lower
            version was in the store.
    """
    if reached is None or change.new is None:
        return False
    return has_reached(reached, change.new.version)


def _same(one: ObjectMeta, other: ObjectMeta) -> bool:
    return one.version == other.version and one.uid == other.uid


def _is_older(version: str, than: str | None) -> bool:
    return than is not None and is_newer(than, version)


def _survives(stored: ObjectMeta, reached: str | None, listed: str) -> bool:
    """Return whether a stored object is a write response newer than a list of version `listed`."""
    if not is_newer(stored.version, listed):
        return False
    return reached is None or (is_newer(stored.version, reached) and has_reached(listed, reached))
