"""The list/watch loop's I/O: sends the protocol's requests and executes its effects.

`ListWatchProtocol` decides about versions, lists and waits; nothing here does.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from random import Random
from typing import Any, NamedTuple

import msgspec
import structlog

from reconciler.clock import Clock, Instant
from reconciler.errors import (
    AuthorizerNotReady,
    Forbidden,
    KubeError,
    ProtocolError,
    ServerError,
    TransportError,
)
from reconciler.informer.messages import (
    Apply,
    Bookmark,
    Effect,
    ListRequest,
    ListWatchStats,
    LogEvent,
    Replace,
    WatchRequest,
)
from reconciler.informer.protocol import FIRST_LIMIT, ListWatchProtocol
from reconciler.informer.store import Change, Store, is_rewound
from reconciler.kube.api import ApiResource, Event, Kube, ListOptions, ObjectMeta
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.time_slice import TimeSlice

LIST_S = 60.0
"""Time limit for one page of a LIST."""

START_S = 20.0
"""Time limit for a watch to open, above the client's own: no implementation of `Kube` may block
us."""

OVERTIME_S = 30.0
"""Longest time that a watch may stay open after the end that the server was asked for."""

YIELD_EVERY = 20
"""Events handled before other tasks run: reading a burst that is already buffered never waits. Each
step of an urgent write waits for one such turn, a millisecond."""

CRASH_LOG_S = 60.0
"""At most one traceback in this time: a broken callback fails for every object."""

_LOG = structlog.get_logger()


class ReflectorStats(msgspec.Struct, frozen=True):
    """`silent_s` counts seconds since the last answer or event, None before the first one.

    `stuck_s` counts seconds since this loop began its last step or got an answer; each pause, list
    and watch has a time limit. None before the loop runs.
    """

    resource: str
    namespace: str | None
    synced: bool
    silent_s: float | None
    stuck_s: float | None
    callback_crashes: int
    protocol: ListWatchStats
    is_forbidden: bool = False
    """The server refuses the right to list or watch, and nothing has succeeded since."""


class ObjectHandlers(NamedTuple):
    """Called by a reflector, in order.

    A handler that raises is logged and counted, and is not called again for that change. A handler
    that must not lose a change resyncs from the store.

    Args:
        on_change: Gets each change after it is in the store. A relist's deletions come first.
        on_watch_object: Gets every object of a watch event, also one that the store has already
            from `Store.apply_write_response`: our write has come back. Lists do not call it.
    """

    on_change: Callable[[Change], None]
    on_watch_object: Callable[[ObjectMeta], None] | None = None


class Reflector:
    """Keeps one scope of a store equal to the cluster.

    Args:
        store: This reflector alone writes this scope; other scopes may have other reflectors.
        breaker: The API server's, shared; its recovery cuts our back-off short.
    """

    def __init__(
        self,
        kube: Kube,
        resource: ApiResource[ObjectMeta],
        scope: ListOptions,
        store: Store,
        clock: Clock,
        random: Random,
        breaker: CircuitBreaker,
        handlers: ObjectHandlers,
    ) -> None:
        self._kube = kube
        self._resource = resource
        self._scope = scope
        self._store = store
        self._clock = clock
        self._breaker = breaker
        self._handlers = handlers
        self._protocol = ListWatchProtocol(random.uniform, first_limit=FIRST_LIMIT)
        self._log = _LOG.bind(resource=resource.plural, namespace=scope.namespace)
        self._is_synced = False
        self._initialized = asyncio.Event()
        self._retry_now = asyncio.Event()
        self._watch_timeout: asyncio.Timeout | None = None
        self._relists_requested: list[asyncio.Future[None]] = []
        self._relists_begun: list[asyncio.Future[None]] = []
        self._answered_at: Instant | None = None
        self._progress_at: Instant | None = None
        self._crashes = 0
        self._crash_logged_at: Instant | None = None
        self._muted = False

    async def run(self) -> None:
        """List and watch until cancelled.

        Raises: Only for a defect of ours; after every failure of the server it waits and retries.
        Cancel: The store keeps its last state; `run` may be called again and continues from it.
        """
        unsubscribes = [
            self._breaker.on_recovery(self._retry_now.set),
            self._breaker.on_refusal(self._retry_now.set),
        ]
        try:
            while True:
                self._progress_at = self._clock.monotonic()
                await self._step()
        finally:
            for unsubscribe in unsubscribes:
                unsubscribe()

    async def _step(self) -> None:
        await self._pause()
        self._retry_now.clear()
        if self._protocol.fresh_list:
            self._relists_begun += self._relists_requested
            self._relists_requested = []
        request = self._protocol.request(self._clock.monotonic())
        if isinstance(request, ListRequest):
            await self._list(request)
        else:
            await self._watch(request)

    @property
    def name(self) -> str:
        """The kind and the scope in words: `secrets in team-a`."""
        return f"{self._resource.plural} in {self._scope.namespace or 'all namespaces'}"

    @property
    def is_initialized(self) -> bool:
        """True once the store is synced, or the server refused us the right to list."""
        return self._initialized.is_set()

    @property
    def is_forbidden(self) -> bool:
        """True while the server refuses us the right: the store may hold deleted objects."""
        return self._protocol.is_forbidden

    async def wait_initialized(self) -> None:
        """Return once this scope has its first list, or was refused it.

        A missing right may be granted later; the start does not wait for that.
        """
        await self._initialized.wait()

    async def relist(self) -> None:
        """Return once a consistent list that began after this call is in the store.

        It cuts an open watch and a back-off short, but not a wait that the server asked for. It
        does not return while the server is unreachable: the caller sets the time limit.

        Cancel: The list is made nevertheless.
        """
        done = asyncio.get_running_loop().create_future()
        self._relists_requested.append(done)
        self._protocol.request_relist()
        self._interrupt()
        await done

    def distrust(self) -> None:
        """Request a consistent list: a read contradicts the store.

        There is at most one such list per `protocol.DISTRUST_S`, for all callers together.
        """
        if self._protocol.distrust(self._clock.monotonic()):
            self._interrupt()

    def retry_now(self) -> None:
        """Cut a back-off short, but not a wait that the server asked for."""
        self._retry_now.set()

    def mute(self, *, on: bool) -> None:
        """Log failures at level DEBUG, because they are expected."""
        self._muted = on

    def stats(self) -> ReflectorStats:
        now_at = self._clock.monotonic()
        return ReflectorStats(
            resource=self._resource.plural,
            namespace=self._scope.namespace,
            synced=self._is_synced,
            silent_s=None if self._answered_at is None else now_at - self._answered_at,
            stuck_s=None if self._progress_at is None else now_at - self._progress_at,
            callback_crashes=self._crashes,
            protocol=self._protocol.stats(),
            is_forbidden=self._protocol.is_forbidden,
        )

    def __repr__(self) -> str:
        return f"<Reflector {self.name} {self._protocol!r}>"

    def _interrupt(self) -> None:
        """Cut an open watch and a back-off short, but not a wait that the server asked for."""
        self._retry_now.set()
        if self._watch_timeout is not None and not self._watch_timeout.expired():
            self._watch_timeout.reschedule(asyncio.get_running_loop().time())

    async def _pause(self) -> None:
        """Wait as the protocol says; a recovery or a relist ends all but the server's minimum."""
        pause = self._protocol.pause(self._clock.monotonic())
        await asyncio.sleep(pause.server_min_s)
        rest_s = pause.wait_s - pause.server_min_s
        if rest_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._retry_now.wait()

    async def _list(self, request: ListRequest) -> None:
        try:
            page = await self._kube.list(
                self._resource,
                self._scope,
                limit=request.limit,
                continue_token=request.continue_token,
                version=request.version,
                limit_s=LIST_S,
            )
        except (KubeError, ProtocolError) as error:
            await self._failed(error, started=False)
            return
        self._share_known(page.items)
        await self._execute(self._protocol.page(page, self._record_response()))

    def _share_known(self, items: list[ObjectMeta]) -> None:
        """Put the store's own objects in the place of equal ones.

        A relist holds all objects until its last page: without this, twice as many as the store.
        """
        for index, item in enumerate(items):
            if (stored := self._store.get(item.namespace, item.name)) == item:
                items[index] = stored

    async def _watch(self, request: WatchRequest) -> None:
        """Watch until it ends: closed, failed, interrupted, beyond its time, or cancelled."""
        opened = False
        timeout = asyncio.timeout(request.timeout_s + OVERTIME_S)
        try:
            async with timeout, AsyncExitStack() as stack:
                self._watch_timeout = timeout
                opening = self._kube.watch(
                    self._resource,
                    self._scope,
                    version=request.version,
                    timeout_s=request.timeout_s,
                )
                async with asyncio.timeout(START_S):
                    watch = await stack.enter_async_context(opening)
                opened = True
                self._protocol.opened(self._record_response())
                handled = 0
                while (event := await watch.receive(idle_s=self._protocol.idle_s)) is not None:
                    await self._receive(event)
                    if not self._protocol.is_watching:
                        return
                    handled += 1
                    if handled % YIELD_EVERY == 0:
                        await asyncio.sleep(0)
            await self._execute(self._protocol.closed(self._clock.monotonic()))
        except (KubeError, ProtocolError) as error:
            await self._failed(error, started=opened)
        except TimeoutError:
            if timeout.expired():
                self._protocol.interrupted()
            else:
                what = f"watch {self._resource.plural}: no answer in {START_S:.0f} s"
                await self._failed(TransportError(what), started=False)
        finally:
            self._watch_timeout = None

    async def _receive(self, event: Event[ObjectMeta]) -> None:
        await self._execute(self._protocol.event(event, self._record_response()))
        if not self._protocol.is_watching:
            return
        if event.object is not None and self._handlers.on_watch_object is not None:
            self._call(self._handlers.on_watch_object, event.object)

    def _record_response(self) -> Instant:
        """Note that the server answered, and return now."""
        self._breaker.succeeded()
        self._retry_now.clear()
        self._answered_at = self._progress_at = self._clock.monotonic()
        return self._answered_at

    async def _failed(self, error: KubeError | ProtocolError, *, started: bool) -> None:
        """Report a failure to the circuit breaker and to the protocol.

        An error inside a stream comes from a server that is reachable. So does a 500 in one
        namespace of many: one object that the server cannot read is enough for it. A server with an
        authorizer that is not ready is reachable, but is of no use yet: the breaker gets no success
        and no failure.
        """
        if isinstance(error, TransportError):
            self._breaker.failed(error)
        elif isinstance(error, KubeError):
            self._answered_at = self._clock.monotonic()
            is_local = self._scope.namespace is not None and error.status == 500
            if isinstance(error, ServerError) and not started and not is_local:
                self._breaker.failed(error)
            elif not isinstance(error, AuthorizerNotReady):
                self._breaker.succeeded()
        if isinstance(error, Forbidden):
            self._initialized.set()
        await self._execute(self._protocol.failed(error, self._clock.monotonic()))

    async def _execute(self, effects: tuple[Effect, ...]) -> None:
        """Carry out effects; a whole list in turns, as a hundred thousand objects take a second.

        Cancel: The rest is carried out in one turn, as the protocol counts on all of them.
        """
        steps = self._steps(effects)
        turn: TimeSlice | None = None
        try:
            for _ in steps:
                turn = turn or TimeSlice(self._clock)
                await turn.item_done()
        finally:
            for _ in steps:
                pass

    def _steps(self, effects: tuple[Effect, ...]) -> Iterator[None]:
        for effect in effects:
            match effect:
                case Apply():
                    change = self._store.apply(effect.type, effect.object)
                    if change is not None:
                        self._call(self._handlers.on_change, change)
                case Bookmark():
                    self._store.set_resource_version(effect.version, self._scope.namespace)
                case Replace():
                    yield from self._apply_list(effect)
                case LogEvent():
                    is_recovery = effect.name.endswith("_recovered")
                    log = self._log.info if is_recovery else self._log.warning
                    if self._muted:
                        log = self._log.debug
                    log(effect.name, error=effect.error, failures=effect.failures)

    def _apply_list(self, listed: Replace) -> Iterator[None]:
        reached = self._store.version(self._scope.namespace)
        changes = rewound = 0
        for change in self._store.replace(listed.items, listed.version, self._scope.namespace):
            if change is not None:
                changes += 1
                rewound += is_rewound(change, reached)
                self._call(self._handlers.on_change, change)
            yield
        fields = {"objects": len(listed.items), "changes": changes, "rv": listed.version}
        if listed.check:
            self._protocol.found_drift(changes)
            if changes:
                self._log.warning("drift_found", **fields)
            return
        if listed.proof and rewound:
            text = f"{rewound} objects changed below version {reached}: was etcd restored?"
            self._log.warning("history_rewound", error=text, failures=0)
        self._log.info("relisted" if self._is_synced else "listed", **fields)
        self._is_synced = True
        self._initialized.set()
        for done in self._relists_begun:
            if not done.done():
                done.set_result(None)
        self._relists_begun = []

    def _call(self, handler: Callable[[Any], None], argument: object) -> None:
        """Call a handler; an exception in it ends this call alone, never the stream."""
        try:
            handler(argument)
        except Exception:
            self._crashes += 1
            now_at = self._clock.monotonic()
            logged_at = self._crash_logged_at
            if logged_at is None or now_at - logged_at >= CRASH_LOG_S:
                self._crash_logged_at = now_at
                self._log.exception("callback_crashed", crashes=self._crashes)
