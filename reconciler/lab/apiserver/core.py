"""The API server's semantics over the store: every verb, independent of the transport.

Pure: no asyncio, no random numbers; time comes from the clock. Returned objects are not copies: a
caller must not change them.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reconciler.clock import Clock, format_utc
from reconciler.lab.apiserver import kinds, status_errors
from reconciler.lab.apiserver.admission import ObjectIdentity, check_types, new_object, next_object
from reconciler.lab.apiserver.deletion import (
    Deleted,
    DeleteOptions,
    check_preconditions,
    is_terminating,
    marked,
    terminating_namespace,
)
from reconciler.lab.apiserver.kinds import Kind, Object
from reconciler.lab.apiserver.managed_fields import is_reset, managed_fields
from reconciler.lab.apiserver.merge_patch import merged
from reconciler.lab.apiserver.paging import (
    Listing,
    ListQuery,
    encode_token,
    parse_version,
    parse_watch_version,
    position_of,
)
from reconciler.lab.apiserver.selectors import Selection
from reconciler.lab.apiserver.store import ObjectStore, OwnerIndex, StoreChange, stamped
from reconciler.lab.apiserver.validation import Undecodable, check_shape
from reconciler.lab.apiserver.watch_cache import WatchEvent, WatchFeed, bookmark
from reconciler.lab.apiserver.write_log import (
    CONTROLLER_MANAGER,
    RESTORER,
    Caller,
    Commit,
    WriteVerb,
)

HISTORY = 50_000
"""Number of changes kept. The real server keeps 75 s at least; at 600 writes/s this is 83 s."""

EVERYTHING = Selection()
NEWEST = ListQuery()
AT_ONCE = DeleteOptions(grace_s=0)

Hook = Callable[[Commit], None]


class Core:
    """Objects, versions, watches. A refused request raises `StatusError` and changes nothing.

    Args:
        seed: Two cores with the same seed and sequence of calls give the same UIDs.
        history: Number of changes kept for watches and continue tokens.
    """

    def __init__(self, clock: Clock, *, seed: str = "", history: int = HISTORY) -> None:
        self.on_commit: list[Hook] = []
        """Called after each committed write, inside the call that made it."""
        self._clock = clock
        self._store = ObjectStore(history=history)
        self._feeds: dict[WatchFeed, None] = {}
        self.owner_index = OwnerIndex()
        """Used by the garbage collector."""
        self._created_total = 0
        self._space = uuid.uuid5(uuid.NAMESPACE_OID, seed)
        for name in ("default", "kube-system"):
            self.create(kinds.NAMESPACES, "", {"metadata": {"name": name}}, by=CONTROLLER_MANAGER)

    def __repr__(self) -> str:
        return f"<Core at {self.version}, {len(self._feeds)} watches>"

    @property
    def version(self) -> int:
        """The version of the newest commit."""
        return self._store.version

    def count(self, kind: Kind) -> int:
        return self._store.count(kind)

    # Reads

    def get(self, kind: Kind, namespace: str, name: str, *, version: str = "") -> Object:
        """Return an object; raises `StatusError` 404, or 504 for a `version` not reached yet."""
        wanted = parse_version(version)
        if wanted > self.version:
            raise status_errors.too_large_version(wanted, self.version)
        item = self._store.get(kind, kind.key(namespace, name))
        if item is None:
            raise status_errors.not_found(kind, name)
        return item

    def peek(self, kind: Kind, key: str) -> Object | None:
        """Return the object with this store key, or None."""
        return self._store.get(kind, key)

    def list(
        self, kind: Kind, selection: Selection = EVERYTHING, query: ListQuery = NEWEST
    ) -> Listing:
        """Return one page, in key order.

        Cost: O(n) of the kind, plus a copy of its index where the page is of an older version.
        """
        passes = selection.compile(kind)
        at = position_of(query, current=self.version, compacted=self._store.compacted)
        shown = at.version or self.version
        prefix = f"{selection.namespace}/" if selection.namespace and kind.namespaced else ""
        found: list[Object] = []
        left = self._store.items(kind, start=max(at.start, prefix), version=at.version)
        for key, item in left:
            if prefix and not key.startswith(prefix):
                break
            if at.limit and len(found) == at.limit:
                return self._page(found, shown, key, selection, 1 + _count(left, prefix))
            if passes(item):
                found.append(item)
        return Listing(found, shown)

    def _page(
        self, found: Sequence[Object], shown: int, key: str, selection: Selection, left: int
    ) -> Listing:
        remaining = left if selection.everything else None
        return Listing(found, shown, encode_token(shown, key), remaining)

    def watch(
        self,
        kind: Kind,
        selection: Selection = EVERYTHING,
        *,
        version: str = "",
        initial: bool | None = None,
        bookmarks: bool = False,
        wake: Callable[[], None] = lambda: None,
    ) -> WatchFeed:
        """Open a watch; `forget` it when done.

        Args:
            version: Events after it; "" and "0" begin with an ADDED for each object.
            initial: Whether the watch begins with these events; None: `version` decides.
            bookmarks: Whether a bookmark marks the end of the initial events.
            wake: Called at each event, inside the write that caused it.

        Returns:
            The feed. For a compacted version its only event is an ERROR.
        """
        passes = selection.compile(kind)
        after = parse_watch_version(version)
        fresh = after == 0 if initial is None else initial
        feed = WatchFeed(kind, passes, after=self.version if fresh else after, wake=wake)
        if not fresh and after < self._store.compacted:
            feed.push(
                WatchEvent("ERROR", status_errors.too_old(after, self._store.compacted).status)
            )
            feed.end()
            return feed
        if fresh:
            for _, item in self._store.items(kind):
                if passes(item):
                    feed.push(WatchEvent("ADDED", item))
            if bookmarks:
                feed.push(bookmark(kind, self.version, initial_end=True))
        else:
            for change in self._store.since(after):
                feed.offer(change)
        self._feeds[feed] = None
        return feed

    def forget(self, feed: WatchFeed) -> None:
        """Close a watch; idempotent."""
        self._feeds.pop(feed, None)

    # Writes

    def create(
        self,
        kind: Kind,
        namespace: str,
        body: Mapping[str, Any],
        *,
        by: Caller = CONTROLLER_MANAGER,
    ) -> Object:
        """Create an object; raises `StatusError` 400, 403, 404 (namespace), 409 or 422."""
        name = str((body.get("metadata") or {}).get("name", ""))
        if kind.namespaced:
            self._check_namespace(kind, namespace, name)
        self._created_total += 1
        birth = ObjectIdentity(str(uuid.uuid5(self._space, str(self._created_total))), self._now())
        item = new_object(kind, namespace, body, birth)
        name = item["metadata"]["name"]
        key = kind.key(namespace, name)
        if self._store.get(kind, key) is not None:
            raise status_errors.already_exists(kind, name)
        self._own(None, item, by, "")
        return self._put("create", kind, key, item, by)

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Mapping[str, Any],
        *,
        by: Caller = CONTROLLER_MANAGER,
        subresource: str = "",
    ) -> Object:
        """Apply a merge patch; its `metadata.resourceVersion` and `.uid` are preconditions.

        Returns:
            The new object; the same object and version if nothing changed.

        Raises:
            StatusError: 400, 404, 409 (version) or 422 (uid, immutable, invalid).
        """
        key = kind.key(namespace, name)
        old = self.get(kind, namespace, name)
        proposed = merged(old, patch)
        proposed["metadata"] = proposed.get("metadata") or {}
        if "stringData" in patch and kind is kinds.SECRETS:
            proposed["stringData"] = patch["stringData"] or {}
        try:
            check_shape(kind, proposed)
        except Undecodable as error:
            raise status_errors.undecodable_patch(str(error)) from error
        self._check_names(proposed, namespace if kind.namespaced else "", name)
        return self._replace("patch", kind, key, old, proposed, by, subresource)

    def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Mapping[str, Any],
        *,
        by: Caller = CONTROLLER_MANAGER,
        subresource: str = "",
    ) -> Object:
        """Replace an object (PUT); without a resourceVersion any version, if the kind allows it."""
        check_types(kind, body)
        body = {**body, "metadata": dict(body.get("metadata") or {})}
        self._check_names(body, namespace if kind.namespaced else "", name)
        try:
            check_shape(kind, body)
        except Undecodable as error:
            named = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}'
            raise status_errors.bad_request(f"{named}: {error}") from error
        key = kind.key(namespace, name)
        old = self.get(kind, namespace, name)
        uid, found = body["metadata"].get("uid") or "", old["metadata"]["uid"]
        if uid and uid != found:
            raise status_errors.put_of_another(kind, key, name, uid, found)
        if not body["metadata"].get("resourceVersion") and not kind.blind_put:
            rule = 'Invalid value: "": must be specified for an update'
            fault = status_errors.FieldError("metadata.resourceVersion", "FieldValueInvalid", rule)
            raise status_errors.invalid(kind, name, [fault])
        return self._replace("update", kind, key, old, body, by, subresource)

    def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        options: DeleteOptions = DeleteOptions(),  # noqa: B008 - frozen
        *,
        by: Caller = CONTROLLER_MANAGER,
    ) -> Deleted:
        """Delete an object, or mark it; raises `StatusError` 404, 403 (a system namespace), 409."""
        if kind is kinds.NAMESPACES and name in ("default", "kube-system"):
            raise status_errors.forbidden(kind, name, "this namespace may not be deleted")
        item = self.get(kind, namespace, name)
        check_preconditions(kind, item, options)
        key, now_s = kind.key(namespace, name), self._clock.wall()
        if kind is kinds.NAMESPACES:
            if is_terminating(item):
                return Deleted(item, removed=False)
            self.owner_index.terminating.add(name)
            item = self._put("delete", kind, key, terminating_namespace(item, now_s), by)
            return Deleted(item, removed=False)
        left = marked(kind, item, options, now_s)
        if left is None:
            return Deleted(self._remove(kind, key, item, by), removed=True)
        if left is not item:
            left = self._put("delete", kind, key, left, by)
        return Deleted(left, removed=False)

    def bind(
        self, namespace: str, name: str, node: str, *, by: Caller = CONTROLLER_MANAGER
    ) -> Object:
        """Assign a pod to a node, as a scheduler does."""
        pod = self.get(kinds.PODS, namespace, name)
        bound = {**pod, "spec": {**pod["spec"], "nodeName": node}}
        return self._put("update", kinds.PODS, kinds.PODS.key(namespace, name), bound, by)

    def finish_namespace(self, name: str) -> None:
        """Remove a terminating namespace; the caller has removed its objects."""
        item = self.get(kinds.NAMESPACES, "", name)
        self.owner_index.terminating.discard(name)
        self._remove(kinds.NAMESPACES, name, item, CONTROLLER_MANAGER)

    @property
    def compacted(self) -> int:
        """The version before which no state is known."""
        return self._store.compacted

    def compact(self, version: int | None = None) -> None:
        """Drop the changes up to `version` (None: all): older watches and tokens get a 410."""
        self._store.compact(self.version if version is None else version)

    def restore(self, version: int) -> None:
        """Return to an earlier version, as after a restore of etcd; every watch ends.

        Hooks get each object that changes, as a write by `RESTORER`. If the UID of an object
        changes, they get the deletion of the former object first. Raises ValueError for a
        compacted version.
        """
        before: dict[tuple[Kind, str], Object | None] = {}
        for change in self._store.restore(version):
            place = change.kind, change.key
            before.setdefault(place, change.new)
            if change.old is None and change.new is not None:
                self.owner_index.remove(change.kind, change.key, change.new)
            elif change.old is not None and change.new is None:
                self.owner_index.add(change.kind, change.key, change.old)
        for feed in list(self._feeds):
            feed.end()
        for (kind, key), was in before.items():
            item = self._store.get(kind, key)
            if item is was:
                continue
            if was is not None and (item is None or _uid(item) != _uid(was)):
                self._report_restored("delete", kind, was, version)
            if item is not None:
                self._report_restored("update", kind, item, version)

    def _report_restored(self, verb: WriteVerb, kind: Kind, item: Object, version: int) -> None:
        at = self._clock.monotonic()
        commit = Commit(verb, kind, item, verb == "delete", version, RESTORER, at)
        for hook in self.on_commit:
            hook(commit)

    # How a write becomes a commit

    def _replace(
        self,
        verb: WriteVerb,
        kind: Kind,
        key: str,
        old: Object,
        proposed: Mapping[str, Any],
        by: Caller,
        subresource: str,
    ) -> Object:
        current = old["metadata"]["resourceVersion"]
        if (proposed["metadata"].get("resourceVersion") or current) != current:
            raise status_errors.conflict(kind, old["metadata"]["name"])
        item = next_object(kind, old, proposed, subresource=subresource)
        self._own(old, item, by, subresource)
        if is_reset(proposed) and not subresource:
            item["metadata"].pop("managedFields", None)
        if item == old:
            return old
        if _is_released(item):
            return self._remove(kind, key, item, by)
        return self._put(verb, kind, key, item, by)

    def _own(self, old: Object | None, item: dict[str, Any], by: Caller, subresource: str) -> None:
        fields = managed_fields(
            old, item, manager=by.manager, subresource=subresource, now=self._now()
        )
        if fields:
            item["metadata"]["managedFields"] = fields

    def _put(self, verb: WriteVerb, kind: Kind, key: str, item: Object, by: Caller) -> Object:
        if by.dry_run:
            return item
        change = self._store.put(kind, key, item)
        new = change.new
        assert new is not None  # noqa: S101 - for the type checker: a put always has a new object
        self.owner_index.add(kind, key, new)
        self._notify(verb, change, new, by)
        return new

    def _remove(self, kind: Kind, key: str, item: Object, by: Caller) -> Object:
        if by.dry_run:
            return item
        change = self._store.remove(kind, key)
        last = stamped(item, change.version)
        self.owner_index.remove(kind, key, last)
        self._notify("delete", change, last, by)
        return last

    def _notify(self, verb: WriteVerb, change: StoreChange, item: Object, by: Caller) -> None:
        for feed in list(self._feeds):
            feed.offer(change)
        commit = Commit(
            verb, change.kind, item, change.new is None, change.version, by, self._clock.monotonic()
        )
        for hook in self.on_commit:
            hook(commit)

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        found = self._store.get(kinds.NAMESPACES, namespace)
        if found is None:
            raise status_errors.not_found(kinds.NAMESPACES, namespace)
        if is_terminating(found):
            raise status_errors.terminating(kind, name, namespace)

    def _check_names(self, body: Mapping[str, Any], namespace: str, name: str) -> None:
        """Source: apiserver `endpoints/handlers/rest.go`, checkName."""
        sent = body["metadata"]
        if sent.setdefault("name", name) != name:
            raise status_errors.bad_request(
                f"the name of the object ({sent['name']}) does not match the name on the URL "
                f"({name})"
            )
        if namespace and (sent.get("namespace") or namespace) != namespace:
            raise status_errors.bad_request(
                f"the namespace of the object ({sent['namespace']}) does not match the namespace "
                f"on the request ({namespace})"
            )

    def _now(self) -> str:
        return format_utc(self._clock.wall())


def _uid(item: Object) -> str:
    return str(item["metadata"]["uid"])


def _is_released(item: Object) -> bool:
    """Whether the last finalizer of a deleted object was removed."""
    metadata = item["metadata"]
    waits = metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds")
    return "deletionTimestamp" in metadata and not waits and not is_terminating(item)


def _count(left: Any, prefix: str) -> int:
    return sum(1 for key, _ in left if key.startswith(prefix))
