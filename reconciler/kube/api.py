"""The interface to Kubernetes: five verbs over metadata-only objects.

It has two implementations: the HTTP client, and the lab's API server called directly on virtual
time. The code above this room does not know which one it has.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec

from reconciler.clock import EpochTime
from reconciler.naming import NO_ANNOTATIONS, Annotations, SessionKey

T = TypeVar("T")

Body = Mapping[str, Any]
"""A JSON object to send."""

Permit = Callable[[], None]
"""Called synchronously as a write's bytes are handed to the socket; raises `NotLeaderError` to stop
it there."""


class ObjectMeta(msgspec.Struct, frozen=True, gc=False):
    """The metadata that we keep of a pod or a Secret: names and times, never a value.

    `field_managers` are those that own the token's key in a Secret (empty for a pod). `created_s`
    is seconds since the epoch. Where another manager than we owns the key, `foreign_s` is the time
    of the last write of such a manager to any field, and `own_s` that of our last write: whole
    seconds by the API server's clock, None where the server gives no time or, for `own_s`, where we
    never wrote.
    """

    namespace: str
    name: str
    uid: str
    version: str
    session_id: str
    project_id: str
    created_s: EpochTime
    is_deleting: bool
    annotations: Annotations = NO_ANNOTATIONS
    field_managers: tuple[str, ...] = ()
    foreign_s: EpochTime | None = None
    own_s: EpochTime | None = None

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.namespace, self.session_id)


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list; `version` is the list's own, `skipped` counts undecodable items.

    `length` is that of the answer, in bytes; 0 where unknown.
    """

    items: list[T]
    version: str
    continue_token: str
    skipped: int
    length: int = 0


MAX_ITEMS = 500_000
"""Most objects of one list: five times the sessions that one replica is measured with. A shard
counts its own alone."""

MAX_PAGES = 50_000
"""Most pages of one list: `MAX_ITEMS` in pages of the smallest size that lists are made with."""


def is_endless(page: Page[Any], token: str, *, pages: int, items: int) -> bool:
    """Return whether a list does not end: its continue token repeats, or it is longer than any.

    Args:
        page: The last page.
        token: The continue token that it was requested with.
        pages: The number of pages until now.
        items: The number of their objects.
    """
    is_over = pages >= MAX_PAGES or items > MAX_ITEMS
    return bool(page.continue_token) and (page.continue_token == token or is_over)


EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "SKIPPED"]


class Event(msgspec.Struct, Generic[T], frozen=True):
    """One watch event. `object` is None for BOOKMARK and for SKIPPED (type or object unreadable,
    version readable); `version` is where a later watch may resume."""

    type: EventType
    version: str
    object: T | None


@dataclass(frozen=True)
class ApiResource(Generic[T]):
    """A kind and how its bytes become objects.

    Args:
        plural: Path segment (`pods`).
        group: API group, "" for core.
        partial: Ask the server for metadata only, in every answer, a write's included.
        decode: One object's bytes -> T. Raises `ProtocolError`.
        decode_page: A list's bytes -> `Page[T]`. Raises `ProtocolError`.
        decode_event: One watch line -> `Event[T]`. Raises `ProtocolError`, or the `KubeError` that
            an ERROR event carries.
    """

    plural: str
    group: str
    version: str
    partial: bool
    decode: Callable[[bytes], T]
    decode_page: Callable[[bytes], Page[T]]
    decode_event: Callable[[bytes], Event[T]]


class ListOptions(msgspec.Struct, frozen=True):
    """The objects of a kind to list: a namespace (None = all) and the server-side filters."""

    namespace: str | None = None
    labels: str = ""
    fields: str = ""


class Watch(Protocol[T]):
    """An open watch."""

    async def receive(self, *, idle_s: float) -> Event[T] | None:
        """Return the next event, or None when the server ended the watch cleanly.

        Args:
            idle_s: Longest silence to accept, in seconds.

        Raises:
            TransportError: Silent for `idle_s`, reset, or ended in the middle of a line.
            ProtocolError: A line is not JSON or names no version.
            KubeError: The server sent an ERROR event.
        Cancel: An event that was not returned is not lost: resume from the last version.
        """
        ...


class Kube(Protocol):
    """The verbs. Each ends within `limit_s`; each failure is a `KubeError` or a `ProtocolError`."""

    async def list(
        self,
        resource: ApiResource[T],
        scope: ListOptions,
        *,
        limit: int = 0,
        continue_token: str = "",
        version: str = "",
        limit_s: float = 30.0,
    ) -> Page[T]:
        """Return one page.

        Args:
            limit: Items a page, 0 = all.
            continue_token: From the page before; then `version` is not sent.
            version: "" = most recent, "0" = anything, "N" = not older than N.
        """
        ...

    def watch(
        self, resource: ApiResource[T], scope: ListOptions, *, version: str, timeout_s: int
    ) -> AbstractAsyncContextManager[Watch[T]]:
        """Open a watch with bookmarks after `version`; the server ends it after `timeout_s`.

        Opening ends within a limit of the implementation's own, 15 s or less, as `TransportError`
        if the server does not answer by then. Leaving the context drops the connection at once.
        """
        ...

    async def get(
        self, resource: ApiResource[T], namespace: str, name: str, *, limit_s: float = 10.0
    ) -> T: ...

    async def create(
        self,
        resource: ApiResource[T],
        namespace: str,
        body: Body,
        *,
        limit_s: float = 10.0,
        permit: Permit | None = None,
    ) -> T: ...

    async def patch(
        self,
        resource: ApiResource[T],
        namespace: str,
        name: str,
        body: Body,
        *,
        limit_s: float = 10.0,
        permit: Permit | None = None,
    ) -> T:
        """Send a JSON merge patch (RFC 7386); preconditions ride in `metadata`.

        Cancel: may or may not have been applied.
        """
        ...

    async def ready(self, *, limit_s: float = 5.0) -> None:
        """Return if the server answers and does not refuse us; raises `KubeError` otherwise."""
        ...


def is_newer(version: str, than: str) -> bool:
    """Return True where both are well-formed and `version` is the greater; False if unknown.

    Source: apimachinery `pkg/util/resourceversion`: digits without a leading zero are comparable
    within one kind (KEP-5504), other versions are opaque. As plain text "9" would be above "10".
    """
    left, right = _order(version), _order(than)
    return left is not None and right is not None and left > right


def has_reached(version: str, target: str) -> bool:
    """Return True where `version` is known to be `target` or newer."""
    return version == target or is_newer(version, target)


def _order(version: str) -> tuple[int, str] | None:
    """Return a key with the order of the number; int() refuses more than 4,300 digits."""
    if not (version.isascii() and version.isdigit()) or version[0] == "0":
        return None
    return len(version), version
