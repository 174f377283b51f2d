"""One open watch: the pending events of a selection after a version."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reconciler.lab.apiserver.kinds import Kind, Object
from reconciler.lab.apiserver.selectors import Predicate
from reconciler.lab.apiserver.store import StoreChange, stamped

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]

BACKLOG_LIMIT = 20_000
"""A watch with more pending events ends; the real server does the same to slow clients."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event; `object` is a Status for ERROR, and has only metadata for BOOKMARK."""

    type: EventType
    object: Object


class WatchFeed:
    """Events of one kind that match one predicate, in order of their versions.

    Args:
        after: Changes up to this version are left out.
        wake: Called at each event, synchronously, inside the write that caused it.
    """

    def __init__(
        self, kind: Kind, predicate: Predicate, *, after: int, wake: Callable[[], None]
    ) -> None:
        self.kind = kind
        self.ended = False
        """No event follows the pending ones."""
        self._passes = predicate
        self._after = after
        self._wake = wake
        self._pending: deque[WatchEvent] = deque()

    def __repr__(self) -> str:
        return f"<Feed {self.kind.plural} after {self._after}, {len(self._pending)} pending>"

    def offer(self, change: StoreChange) -> None:
        """Add the event of a change, if the change matches this feed."""
        if self.ended or change.kind is not self.kind or change.version <= self._after:
            return
        event = self._event(change)
        if event is not None:
            self.push(event)

    def push(self, event: WatchEvent) -> None:
        """Append an event."""
        self._pending.append(event)
        self.ended = self.ended or len(self._pending) > BACKLOG_LIMIT
        self._wake()

    def may_bookmark(self, version: int) -> bool:
        """Whether a bookmark of that version may be sent: not below the watch's first version.

        Source: apiserver `cacher/cache_watcher.go`, process; observed with a restored etcd.
        """
        return version >= self._after

    def end(self) -> None:
        """End it after the pending events."""
        self.ended = True
        self._wake()

    def next(self) -> WatchEvent | None:
        """Return the oldest pending event, or None."""
        return self._pending.popleft() if self._pending else None

    def _event(self, change: StoreChange) -> WatchEvent | None:
        """Return the event of a change as the selection sees it, or None.

        An object that no longer matches is DELETED: its last matching state, with the new version.
        Source: apiserver `cacher/cache_watcher.go`.
        """
        was = change.old is not None and self._passes(change.old)
        now = change.new is not None and self._passes(change.new)
        if now and change.new is not None:
            return WatchEvent("MODIFIED" if was else "ADDED", change.new)
        if was and change.old is not None:
            return WatchEvent("DELETED", stamped(change.old, change.version))
        return None


def bookmark(kind: Kind, version: int, *, initial_end: bool = False) -> WatchEvent:
    """Return a bookmark: everything up to `version` was sent."""
    metadata: dict[str, object] = {"resourceVersion": str(version)}
    if initial_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    item = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return WatchEvent("BOOKMARK", item)
