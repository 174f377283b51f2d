"""The list/watch loop's I/O shell: sends what the protocol asks for, feeds the store, reports.

It decides nothing about versions, lists or waits; that is `listwatch`.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import structlog

from reconciler.clock import Clock
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
from reconciler.informer.store import Change, Store, count_rewound
from reconciler.kube.api import ApiResource, Event, Kube, ListOptions, ObjectMeta
from reconciler.net.circuit_breaker import CircuitBreaker

LIST_S = 60.0
"""Limit for one page of a LIST."""

START_S = 20.0
"""Limit for a watch to begin, above the client's own: no seam may hang us."""

OVERTIME_S = 30.0
"""What a watch may last beyond the end that the server was asked for."""

YIELD_EVERY = 100
"""Events handled before other tasks get a turn: a burst that is already buffered never waits."""

CRASH_LOG_S = 60.0
"""At most one traceback a minute: a broken callback fails for every object."""

_LOG = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ReflectorStats:
    """`silent_s` counts seconds since the last answer or event, None before the first one.

    `stuck_s` counts seconds since this loop has gone on, with whatever result: each pause, list and
    watch has a limit of its own. None before it runs.
    """

    resource: str
    namespace: str | None
    synced: bool
    silent_s: float | None
    stuck_s: float | None
    callback_crashes: int
    protocol: ListWatchStats
    refused: bool = False
    """The server refuses the right to list or watch, and nothing has gone well since."""


class Reflector:
    """Keeps one scope of a store equal to the cluster.

    Args:
        store: Fed by this reflector alone for this scope; other scopes may have others.
        breaker: The API server's, shared; its recovery cuts our back-off short.
        on_change: Called after the store has changed, in order. A relist's changes come as
            deletions, changes, additions.
        on_seen: Called for every object of a watch event, even one that the store knew already
            from `Store.accept`: a write has come back. Lists do not call it.

    A callback that raises is logged and counted, and its change is not offered again: whoever
    must not lose one resyncs from the store.
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
        on_change: Callable[[Change], None],
        on_seen: Callable[[ObjectMeta], None] | None = None,
    ) -> None:
        self._kube = kube
        self._resource = resource
        self._scope = scope
        self._store = store
        self._clock = clock
        self._breaker = breaker
        self._on_change = on_change
        self._on_seen = on_seen
        self._protocol = ListWatchProtocol(random.uniform, first_limit=FIRST_LIMIT)
        self._log = _LOG.bind(resource=resource.plural, namespace=scope.namespace)
        self._synced = asyncio.Event()
        self._settled = asyncio.Event()
        self._woken = asyncio.Event()
        self._cut: asyncio.Timeout | None = None
        self._relists_wanted: list[asyncio.Future[None]] = []
        self._relists_begun: list[asyncio.Future[None]] = []
        self._heard_at: float | None = None
        self._went_on_at: float | None = None
        self._crashes = 0
        self._crash_logged_at: float | None = None
        self._hushed = False

    async def run(self) -> None:
        """List and watch for ever.

        Raises: Only a defect of ours; every failure of the server is waited out.
        Cancel: The store keeps its last state; `run` may be called again and goes on from it.
        """
        unsubscribes = [
            self._breaker.on_recovery(self._woken.set),
            self._breaker.on_refusal(self._woken.set),
        ]
        try:
            while True:
                self._went_on_at = self._clock.monotonic()
                await self._step()
        finally:
            for unsubscribe in unsubscribes:
                unsubscribe()

    async def _step(self) -> None:
        await self._pause()
        self._woken.clear()
        if self._protocol.fresh_list:
            self._relists_begun += self._relists_wanted
            self._relists_wanted = []
        request = self._protocol.request(self._clock.monotonic())
        if isinstance(request, ListRequest):
            await self._list(request)
        else:
            await self._watch(request)

    async def wait_synced(self) -> None:
        """Return once the first complete list is in the store; an empty one counts."""
        await self._synced.wait()

    @property
    def name(self) -> str:
        """What is reflected, for people: `secrets in team-a`."""
        return f"{self._resource.plural} in {self._scope.namespace or 'all namespaces'}"

    @property
    def is_initialized(self) -> bool:
        """True once the store is synced, or the server refused us the right to list."""
        return self._settled.is_set()

    @property
    def is_forbidden(self) -> bool:
        """True while the server refuses us the right: what the store holds may be long gone."""
        return self._protocol.is_forbidden

    async def wait_initialized(self) -> None:
        """Return once it is known what this scope can give: its list, or a refusal.

        A missing right may be granted later; nobody else has to wait for that.
        """
        await self._settled.wait()

    async def relist(self) -> None:
        """Return once a consistent list that began after this call is in the store.

        It cuts an open watch and a back-off short, but not a wait that the server asked for. While
        the server is away it takes as long as that lasts: the caller sets the limit.

        Cancel: The list is made nevertheless.
        """
        done = asyncio.get_running_loop().create_future()
        self._relists_wanted.append(done)
        self._protocol.request_relist()
        self._interrupt()
        await done

    def distrust(self) -> None:
        """Have a consistent list made, as soon as the server lets us: a read contradicts the store.

        However many ask for it, there is one list per `listwatch.DISTRUST_S`.
        """
        if self._protocol.distrust(self._clock.monotonic()):
            self._interrupt()

    def retry_now(self) -> None:
        """Cut a back-off short, but not a wait that the server asked for."""
        self._woken.set()

    def mute(self, *, on: bool) -> None:
        """Report failures at level DEBUG: somebody expects them."""
        self._hushed = on

    def stats(self) -> ReflectorStats:
        heard_at, went_on_at, now_at = self._heard_at, self._went_on_at, self._clock.monotonic()
        return ReflectorStats(
            resource=self._resource.plural,
            namespace=self._scope.namespace,
            synced=self._synced.is_set(),
            silent_s=None if heard_at is None else now_at - heard_at,
            stuck_s=None if went_on_at is None else now_at - went_on_at,
            callback_crashes=self._crashes,
            protocol=self._protocol.stats(),
            refused=self._protocol.is_forbidden,
        )

    def __repr__(self) -> str:
        return f"<Reflector {self.name} {self._protocol!r}>"

    def _interrupt(self) -> None:
        """Cut an open watch and a back-off short, but not a wait that the server asked for."""
        self._woken.set()
        if self._cut is not None and not self._cut.expired():
            self._cut.reschedule(asyncio.get_running_loop().time())

    async def _pause(self) -> None:
        """Wait as the protocol says; beyond the server's wish, a recovery or relist ends it."""
        pause = self._protocol.pause(self._clock.monotonic())
        await asyncio.sleep(pause.server_min_s)
        rest_s = pause.wait_s - pause.server_min_s
        if rest_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._woken.wait()

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
            self._failed(error, started=False)
            return
        self._carry_out(self._protocol.page(page, self._record_response()))

    async def _watch(self, request: WatchRequest) -> None:
        """Watch until it ends, in one of five ways: closed, failed, cut, overtime, cancelled."""
        opened = False
        cut = asyncio.timeout(request.timeout_s + OVERTIME_S)
        try:
            async with cut, AsyncExitStack() as stack:
                self._cut = cut
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
                    self._receive(event)
                    if not self._protocol.is_watching:
                        return
                    handled += 1
                    if handled % YIELD_EVERY == 0:
                        await asyncio.sleep(0)
            self._carry_out(self._protocol.closed(self._clock.monotonic()))
        except (KubeError, ProtocolError) as error:
            self._failed(error, started=opened)
        except TimeoutError:
            if cut.expired():
                self._protocol.interrupted()
            else:
                what = f"watch {self._resource.plural}: no answer in {START_S:.0f} s"
                self._failed(TransportError(what), started=False)
        finally:
            self._cut = None

    def _receive(self, event: Event[ObjectMeta]) -> None:
        self._carry_out(self._protocol.event(event, self._record_response()))
        if not self._protocol.is_watching:
            return
        if event.object is not None and self._on_seen is not None:
            self._call(self._on_seen, event.object)

    def _record_response(self) -> float:
        """Note that the server answered, and return now."""
        self._breaker.succeeded()
        self._woken.clear()
        self._heard_at = self._went_on_at = self._clock.monotonic()
        return self._heard_at

    def _failed(self, error: KubeError | ProtocolError, *, started: bool) -> None:
        """Tell breaker and protocol; an error inside a stream comes from a server that is there.

        So does a 500 of one namespace of many: one object that the server cannot read is enough.
        One that authorizes nobody yet is there, but is of no use to those who wait for it.
        """
        if isinstance(error, TransportError):
            self._breaker.failed(error)
        elif isinstance(error, KubeError):
            self._heard_at = self._clock.monotonic()
            is_local = self._scope.namespace is not None and error.status == 500
            if isinstance(error, ServerError) and not started and not is_local:
                self._breaker.failed(error)
            elif not isinstance(error, AuthorizerNotReady):
                self._breaker.succeeded()
        if isinstance(error, Forbidden):
            self._settled.set()
        self._carry_out(self._protocol.failed(error, self._clock.monotonic()))

    def _carry_out(self, emits: tuple[Effect, ...]) -> None:
        for emit in emits:
            match emit:
                case Apply():
                    change = self._store.apply(emit.type, emit.object)
                    if change is not None:
                        self._call(self._on_change, change)
                case Bookmark():
                    self._store.set_resource_version(emit.version, self._scope.namespace)
                case Replace():
                    self._replace(emit)
                case LogEvent():
                    over = emit.name.endswith("_recovered")
                    heard = self._log.info if over else self._log.warning
                    say = self._log.debug if self._hushed else heard
                    say(emit.name, error=emit.error, failures=emit.failures)

    def _replace(self, listed: Replace) -> None:
        reached = self._store.version(self._scope.namespace)
        changes = self._store.replace(listed.items, listed.version, self._scope.namespace)
        for change in changes:
            self._call(self._on_change, change)
        found = {"objects": len(listed.items), "changes": len(changes), "rv": listed.version}
        if listed.audit:
            self._protocol.found_drift(len(changes))
            if changes:
                self._log.warning("drift_found", **found)
            return
        if listed.proof and (rewound := count_rewound(changes, reached)):
            text = f"{rewound} objects changed below version {reached}: was etcd restored?"
            self._log.warning("history_rewound", error=text, failures=0)
        self._log.info("relisted" if self._synced.is_set() else "listed", **found)
        self._synced.set()
        self._settled.set()
        for done in self._relists_begun:
            if not done.done():
                done.set_result(None)
        self._relists_begun = []

    def _call(self, callback: Callable[[Any], None], argument: object) -> None:
        """Call back; a crash costs this one call, never the stream."""
        try:
            callback(argument)
        except Exception:
            self._crashes += 1
            now_at = self._clock.monotonic()
            logged_at = self._crash_logged_at
            if logged_at is None or now_at - logged_at >= CRASH_LOG_S:
                self._crash_logged_at = now_at
                self._log.exception("callback_crashed", crashes=self._crashes)
