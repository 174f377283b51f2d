"""`reconciler.kube.api.Kube` directly on the core: no socket, no HTTP, the same bytes.

For simulations on virtual time. The objects are encoded as the HTTP server encodes them and pass
the same decoders; a refused request raises the same error class. Time is the running loop's.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import msgspec

from reconciler.clock import EPOCH, Clock
from reconciler.errors import KubeError, TransportError
from reconciler.kube.api import ApiResource, Body, Event, ListOptions, Page, Permit
from reconciler.kube.status_errors import from_response
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.fault_injection import FaultInjection, InjectedFault
from reconciler.lab.apiserver.kinds import Kind, Object, find_kind
from reconciler.lab.apiserver.paging import ListQuery
from reconciler.lab.apiserver.representations import (
    Representation,
    encode,
    event_bytes,
    list_bytes,
    object_bytes,
)
from reconciler.lab.apiserver.selectors import Selection
from reconciler.lab.apiserver.status_errors import StatusError, no_such_resource
from reconciler.lab.apiserver.watch_cache import WatchFeed, bookmark
from reconciler.lab.apiserver.write_log import Caller

T = TypeVar("T")

BOOKMARK_S = 60.0
"""Source: measured on a real server: the first bookmark of a quiet watch came at 60.2 s."""

CONNECT_LIMIT_S = 10.0
"""Time limit for opening a watch."""


class InProcessWatch(Generic[T]):
    """An open watch. Idle time, bookmarks and the end follow the loop's clock."""

    def __init__(
        self,
        core: Core,
        resource: ApiResource[T],
        faults: FaultInjection,
        *,
        timeout_s: float,
        bookmark_s: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._core = core
        self._resource = resource
        self._faults = faults
        self._now = loop.time
        self._ends_at = loop.time() + timeout_s
        self._bookmark_s = bookmark_s
        self._bookmark_at = loop.time() + bookmark_s
        self._wakeup = asyncio.Event()
        self._dropped = False
        self._closed = False
        self._repeated: bytes | None = None
        self.feed: WatchFeed | None = None

    def wake(self) -> None:
        self._wakeup.set()

    def drop(self) -> None:
        """Reset it: pending events are lost."""
        self._dropped = True
        self.wake()

    def close(self) -> None:
        """End it cleanly after the pending events."""
        self._closed = True
        self.wake()

    async def receive(self, *, idle_s: float) -> Event[T] | None:
        """See `reconciler.kube.api.Watch`."""
        idle_at = self._now() + idle_s
        while True:
            self._wakeup.clear()
            if self._dropped:
                raise TransportError(f"watch {self._resource.plural}: the connection was reset")
            mute = self._faults.mute
            if not mute:
                line = self._next_line()
                if line is not None:
                    if late_s := self._faults.line_lateness_s():
                        await self._hold(line, late_s)
                    return self._resource.decode_event(line)
                if self._is_over():
                    return None
            if self._now() >= idle_at:
                raise TransportError(f"watch {self._resource.plural}: silent for {idle_s:g} s")
            until = idle_at if mute else min(idle_at, self._bookmark_at, self._ends_at)
            await self._wait(until)

    def _is_over(self) -> bool:
        feed_ended = self.feed is None or self.feed.ended
        return self._closed or feed_ended or self._now() >= self._ends_at

    async def _hold(self, line: bytes, late_s: float) -> None:
        """Wait; a receiver that is cancelled meanwhile gets the line with its next call."""
        try:
            await asyncio.sleep(late_s)
        except asyncio.CancelledError:
            self._repeated = line
            raise

    def _next_line(self) -> bytes | None:
        line, self._repeated = self._repeated, None
        if line is None and (line := self._line()) is not None and self._faults.repeats_line():
            self._repeated = line
        return line

    def _line(self) -> bytes | None:
        """Return the next line: an event, or a bookmark that is due, or None."""
        if self.feed is None:
            return None
        event = self.feed.next()
        is_due = self._now() >= self._bookmark_at and not self._is_over()
        if event is None and is_due and not self.feed.may_bookmark(self._core.version):
            self._bookmark_at = self._now() + self._bookmark_s
        elif event is None and is_due:
            event = bookmark(self.feed.kind, self._core.version)
        if event is None:
            return None
        if event.type == "BOOKMARK":
            self._bookmark_at = self._now() + self._bookmark_s
        representation = Representation.PARTIAL if self._resource.partial else Representation.PLAIN
        return event_bytes(self.feed.kind, event, representation, now_s=EPOCH, first=False)

    async def _wait(self, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                await self._wakeup.wait()
        except TimeoutError:
            return


class InProcessKube:
    """Implements `reconciler.kube.api.Kube`.

    Args:
        caller: The client; its field manager owns what it writes.
        latency_s: Seconds from each request to its arrival at the server.
        bookmark_s: Seconds between a watch's bookmarks.
    """

    def __init__(
        self,
        core: Core,
        clock: Clock,
        *,
        caller: Caller,
        faults: FaultInjection | None = None,
        latency_s: float = 0.0,
        bookmark_s: float = BOOKMARK_S,
    ) -> None:
        self.faults = faults or FaultInjection()
        self._core = core
        self._clock = clock
        self._caller = caller
        self._latency_s = latency_s
        self._bookmark_s = bookmark_s

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
        """See the Protocol."""
        query = ListQuery(limit, continue_token, "" if continue_token else version)
        representation = Representation.PARTIAL_LIST if resource.partial else Representation.PLAIN

        def act() -> bytes:
            kind = _kind(resource)
            listing = self._core.list(kind, _selection(scope), query)
            return list_bytes(kind, listing, representation, now_s=self._clock.wall())

        return resource.decode_page(await self._call("list", resource.plural, act, limit_s=limit_s))

    @asynccontextmanager
    async def watch(
        self, resource: ApiResource[T], scope: ListOptions, *, version: str, timeout_s: int
    ) -> AsyncIterator[InProcessWatch[T]]:
        """See the Protocol."""
        opened = InProcessWatch(
            self._core, resource, self.faults, timeout_s=timeout_s, bookmark_s=self._bookmark_s
        )

        def act() -> bytes:
            opened.feed = self._core.watch(
                _kind(resource),
                _selection(scope),
                version=self._first_version(version),
                bookmarks=True,
                wake=opened.wake,
            )
            return b""

        try:
            await self._call("watch", resource.plural, act, limit_s=CONNECT_LIMIT_S)
            self.faults.opened(opened)
            yield opened
        finally:
            self.faults.closed(opened)
            if opened.feed is not None:
                self._core.forget(opened.feed)

    def _first_version(self, version: str) -> str:
        """Return the version after which a watch begins: one earlier while events are repeated."""
        if self.faults.is_repeating and int(version or 0) > self._core.compacted + 1:
            return str(int(version) - 1)
        return version

    async def get(
        self, resource: ApiResource[T], namespace: str, name: str, *, limit_s: float = 10.0
    ) -> T:
        """See the Protocol."""

        def act() -> bytes:
            return self._encoded(resource, self._core.get(_kind(resource), namespace, name))

        return resource.decode(await self._call("get", resource.plural, act, limit_s=limit_s))

    async def create(
        self,
        resource: ApiResource[T],
        namespace: str,
        body: Body,
        *,
        limit_s: float = 10.0,
        permit: Permit | None = None,
    ) -> T:
        """See the Protocol."""
        data = encode(body)

        def act() -> bytes:
            sent = self.faults.admitted(resource.plural, msgspec.json.decode(data))
            item = self._core.create(_kind(resource), namespace, sent, by=self._caller)
            return self._encoded(resource, item)

        answer = await self._call("create", resource.plural, act, limit_s=limit_s, permit=permit)
        return resource.decode(answer)

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
        """See the Protocol."""
        data = encode(body)

        def act() -> bytes:
            sent = self.faults.admitted(resource.plural, msgspec.json.decode(data))
            item = self._core.patch(_kind(resource), namespace, name, sent, by=self._caller)
            return self._encoded(resource, item)

        answer = await self._call("patch", resource.plural, act, limit_s=limit_s, permit=permit)
        return resource.decode(answer)

    async def ready(self, *, limit_s: float = 5.0) -> None:
        """See the Protocol."""
        await self._call("ready", "", lambda: b"", limit_s=limit_s)

    def _encoded(self, resource: ApiResource[T], item: Object) -> bytes:
        representation = Representation.PARTIAL if resource.partial else Representation.PLAIN
        return object_bytes(_kind(resource), item, representation, now_s=self._clock.wall())

    async def _call(
        self,
        verb: str,
        plural: str,
        act: Callable[[], bytes],
        *,
        limit_s: float,
        permit: Permit | None = None,
    ) -> bytes:
        """Reach the server, apply the request's fault, then act in one step of the loop."""
        what = f"{verb} {plural}".strip()
        ends_at = asyncio.get_running_loop().time() + limit_s
        try:
            async with asyncio.timeout_at(ends_at):
                await self.faults.reach()
                fault = self.faults.fault_of(verb, plural)
                if permit is not None:
                    permit()
                delivery = self._deliver(fault, act, what=what, ends_at=ends_at)
                # A request that was sent belongs to the network and the server: a frozen client
                # does not stop it. So it runs outside the client's freezable scope.
                return await asyncio.create_task(delivery, context=contextvars.Context())
        except TimeoutError as error:
            raise TransportError(f"{what}: no answer within {limit_s:g} s") from error

    async def _deliver(
        self, fault: InjectedFault, act: Callable[[], bytes], *, what: str, ends_at: float
    ) -> bytes:
        """Do the part of the network and of the server."""
        async with asyncio.timeout_at(ends_at):
            await asyncio.sleep(self._latency_s + fault.delay_s)
            await self.faults.reach()
        if fault.error is not None and not fault.applied:
            raise fault.error
        if fault.repeated_s is not None:
            with contextlib.suppress(StatusError):  # this answer is lost, too
                act()
            async with asyncio.timeout_at(ends_at):
                await asyncio.sleep(fault.repeated_s)
        try:
            data = act()
        except StatusError as refusal:
            raise _error_of(refusal, what) from refusal
        if fault.error is not None:
            raise fault.error
        if fault.answer_s:
            async with asyncio.timeout_at(ends_at):
                await asyncio.sleep(fault.answer_s)
        return data


def _kind(resource: ApiResource[T]) -> Kind:
    kind = find_kind(resource.group, resource.version, resource.plural)
    if kind is None:
        raise no_such_resource()
    return kind


def _selection(scope: ListOptions) -> Selection:
    return Selection(scope.namespace or "", scope.labels, scope.fields)


def _error_of(refusal: StatusError, what: str) -> KubeError:
    wait_s = float(refusal.retry_after_s) or None
    return from_response(refusal.code, encode(refusal.status), what=what, retry_after_s=wait_s)
