"""A pair of reflectors for each namespace, started and stopped at run time."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog

from reconciler.controller.runtime import Runtime, Stores
from reconciler.controller.triggers.event_handler import EventHandler
from reconciler.informer.reflector import ObjectHandlers, Reflector
from reconciler.informer.store import Store
from reconciler.kube.api import ApiResource, Kube, ListOptions, ObjectMeta
from reconciler.kube.list_slots import ListSlots
from reconciler.naming import LIVE_PODS
from reconciler.net.circuit_breaker import CircuitBreaker

log = structlog.get_logger()

FAST_RETRY_S = 5.0
"""Time between tries in a new namespace: its role binding may be created after it."""

FAST_RETRIES = 24
"""Two minutes of tries. Source: the tenant operator's guide: it creates the role binding some 20-60
s after the namespace; after a 403 the reflector alone retries every 30-60 s."""

CACHE_SYNC_TIMEOUT_S = 15.0
"""How long namespaces with lists wait for those without: a list of ten thousand objects takes a few
seconds, and tokens have 90 s or more left at a start."""


class InformerPair(NamedTuple):
    """The reflectors of one namespace, one for each store."""

    pods: Reflector
    secrets: Reflector


class NamespaceInformers:
    """Makes and runs the pairs: the configured ones, or one pair (None) for all namespaces.

    `NamespaceDiscovery`, if there is one, adds and removes others.

    Args:
        evict: Removes a namespace from the stores and the queue.
    """

    def __init__(
        self,
        *,
        kube: Kube,
        breaker: CircuitBreaker,
        stores: Stores,
        event_handler: EventHandler,
        evict: Callable[[str], None],
        runtime: Runtime,
    ) -> None:
        config = runtime.config
        self._kube = kube
        self._breaker = breaker
        self._stores = stores
        self._event_handler = event_handler
        self._evict = evict
        self._runtime = runtime
        all_namespaces = () if config.finds_namespaces else (None,)
        names: Sequence[str | None] = config.namespaces or all_namespaces
        self._pairs = {name: self._make_pair(name) for name in names}
        self._added_later: set[str | None] = set()
        self._tasks: dict[str | None, asyncio.Task[None]] = {}
        self._unstarted: list[str | None] = [*self._pairs]
        self._changed = asyncio.Event()
        self.all_initialized = False
        """True once `wait_initialized` has returned."""

    @property
    def reflectors(self) -> tuple[Reflector, ...]:
        """All reflectors that run now; may be read from another thread."""
        return tuple(reflector for pair in tuple(self._pairs.values()) for reflector in pair)

    async def run(self) -> None:
        """Run every pair, later ones included, until cancelled.

        Raises:
            ExceptionGroup: A defect in this program.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                unstarted, self._unstarted = self._unstarted, []
                for name in unstarted:
                    pair = self._pairs.get(name)
                    if pair is not None and name not in self._tasks:
                        late = name in self._added_later
                        self._tasks[name] = group.create_task(_run_pair(pair, secrets_first=late))
                await self._changed.wait()

    def add(self, names: Iterable[str]) -> None:
        """Watch these namespaces from now on; those already watched do not change."""
        for name in names:
            if name in self._pairs:
                continue
            self._pairs[name] = self._make_pair(name)
            if self.all_initialized:
                self._added_later.add(name)
            self._unstarted.append(name)
        self._changed.set()

    def remove(self, names: Iterable[str]) -> None:
        """Stop watching these namespaces and evict them; only after `wait_initialized`."""
        for name in names:
            del self._pairs[name]
            self._added_later.discard(name)
            if (task := self._tasks.pop(name, None)) is not None:
                task.cancel()
            self._evict(name)

    def mute(self, names: Collection[str]) -> None:
        """Log failures quietly in these namespaces only, which are about to be removed."""
        for name, pair in self._pairs.items():
            for reflector in pair:
                reflector.mute(on=name in names)

    def retry_forbidden(self, name: str | None) -> None:
        """Retry failed requests of a namespace (None: of all) at once."""
        pairs = self._pairs if name is None else {name: self._pairs.get(name)}
        for pair in pairs.values():
            for reflector in pair or ():
                if reflector.stats().protocol.failures:
                    reflector.retry_now()

    def is_forbidden(self, name: str) -> bool:
        """Return whether the API server forbids listing a namespace's pods."""
        pair = self._pairs.get(name)
        return pair is not None and pair.pods.is_forbidden

    async def wait_initialized(self) -> None:
        """Return once each present pair has its lists or a 403.

        Pairs that are added later are not waited for. A pair that fails to list for
        `CACHE_SYNC_TIMEOUT_S`, while another has both lists, counts as one that was added later.
        """
        while self.uninitialized():
            with suppress(TimeoutError):
                async with asyncio.timeout(CACHE_SYNC_TIMEOUT_S):
                    for reflector in self.reflectors:
                        await reflector.wait_initialized()
            if any(_is_synced(pair) for pair in self._pairs.values()):
                self._added_later |= {
                    name for name, pair in self._pairs.items() if not _is_initialized(pair)
                }
        self.all_initialized = True

    async def relist(self) -> None:
        """Return once each present reflector has a consistent list that started after this call.

        A few start at one time: a watch is closed only when its list can start, and a namespace
        with requests that hang delays the others by one turn at most.

        Cancel: lists that have started continue.
        """
        slots = ListSlots()
        async with asyncio.TaskGroup() as group:
            for reflector in self.reflectors:
                group.create_task(_relist(reflector, slots))

    def distrust(self, namespace: str, why: str) -> None:
        """List everything again: the API server has lost a part of its history, in all namespaces.

        Args:
            namespace: Where an object was read that is older than what was known.
            why: What was read, and what was known before.
        """
        if self._runtime.log_dedup.should_log("history_rewound"):
            log.warning("history_rewound", namespace=namespace, error=why)
        for reflector in self.reflectors:
            reflector.distrust()

    def uninitialized(self) -> list[str]:
        """Return the names of reflectors that are waited for and have neither a list nor a 403.

        May be called from another thread.
        """
        return [
            reflector.name
            for name, pair in tuple(self._pairs.items())
            if name not in self._added_later
            for reflector in pair
            if not reflector.is_initialized
        ]

    def _make_pair(self, namespace: str | None) -> InformerPair:
        stores, events = self._stores, self._event_handler
        selector = self._runtime.config.names.selector()
        pods = self._make_reflector(
            stores.pods,
            stores.pod_resource,
            ListOptions(namespace, selector, LIVE_PODS),
            ObjectHandlers(events.pod_changed),
        )
        secrets = self._make_reflector(
            stores.secrets,
            stores.secret_resource,
            ListOptions(namespace, selector),
            ObjectHandlers(events.secret_changed, events.secret_seen),
        )
        return InformerPair(pods, secrets)

    def _make_reflector(
        self,
        store: Store,
        resource: ApiResource[ObjectMeta],
        scope: ListOptions,
        handlers: ObjectHandlers,
    ) -> Reflector:
        return Reflector(
            self._kube,
            resource,
            scope,
            store,
            clock=self._runtime.clock,
            random=self._runtime.random,
            breaker=self._breaker,
            handlers=handlers,
        )


def _is_initialized(pair: InformerPair) -> bool:
    return all(reflector.is_initialized for reflector in pair)


def _is_synced(pair: InformerPair) -> bool:
    return all(reflector.stats().synced for reflector in pair)


async def _run_pair(pair: InformerPair, *, secrets_first: bool) -> None:
    """Run one namespace's reflectors, after the start of work the Secrets' before the pods'.

    A pod with a Secret that is not listed yet looks like a pod with a deleted Secret.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(pair.secrets.run())
        if secrets_first:
            group.create_task(_retry_fast(pair))
            await pair.secrets.wait_initialized()
        group.create_task(pair.pods.run())


async def _relist(reflector: Reflector, slots: ListSlots) -> None:
    async with slots.slot():
        await reflector.relist()


async def _retry_fast(pair: InformerPair) -> None:
    for _ in range(FAST_RETRIES):
        await asyncio.sleep(FAST_RETRY_S)
        waiting = [reflector for reflector in pair if not reflector.stats().synced]
        if not waiting:
            return
        for reflector in waiting:
            reflector.retry_now()
