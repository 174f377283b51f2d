"""A pair of reflectors for each namespace, begun and ended while we run."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import NamedTuple

from reconciler.informer.reflector import Reflector
from reconciler.kube.list_slots import ListSlots

FAST_RETRY_S = 5.0
"""Between tries in a namespace that is new: its rights may come after it."""

FAST_RETRIES = 24
"""Two minutes of them. Source: the tenant operator binds its account some 20-60 s after it made a
namespace, as its guide says; the reflector's own pace after a refusal is 30-60 s."""

CACHE_SYNC_TIMEOUT_S = 15.0
"""How long those that have their lists wait for those that do not: a list of ten thousand objects
takes a few seconds, and what tokens have left at a start is 90 s or more."""


class InformerPair(NamedTuple):
    """What keeps one namespace's part of both stores."""

    pods: Reflector
    secrets: Reflector


class NamespaceInformers:
    """Runs the pairs; who decides which there are is `NamespaceDiscovery`, or nobody.

    Args:
        make: Makes a namespace's pair (None: the one for all namespaces).
        forget: Drops what the stores and the queue hold of a namespace.
    """

    def __init__(
        self,
        names: Iterable[str | None],
        *,
        make: Callable[[str | None], InformerPair],
        forget: Callable[[str], None],
    ) -> None:
        self._make = make
        self._forget = forget
        self._pairs: dict[str | None, InformerPair] = {name: make(name) for name in names}
        self._late: set[str | None] = set()
        self._tasks: dict[str | None, asyncio.Task[None]] = {}
        self._unstarted: list[str | None] = [*self._pairs]
        self._news = asyncio.Event()
        self.all_settled = False
        """True once `wait_settled` has returned."""

    @property
    def reflectors(self) -> tuple[Reflector, ...]:
        """All that run now; may be asked for from another thread."""
        return tuple(reflector for pair in tuple(self._pairs.values()) for reflector in pair)

    async def run(self) -> None:
        """Run every pair, those that come too, for ever.

        Raises: ExceptionGroup for a defect of ours.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                self._news.clear()
                unstarted, self._unstarted = self._unstarted, []
                for name in unstarted:
                    pair = self._pairs.get(name)
                    if pair is not None and name not in self._tasks:
                        late = name in self._late
                        self._tasks[name] = group.create_task(_run(pair, late=late))
                await self._news.wait()

    def begin(self, names: Iterable[str]) -> None:
        """Have these watched from now on; a name that is watched already is left alone."""
        for name in names:
            if name in self._pairs:
                continue
            self._pairs[name] = self._make(name)
            if self.all_settled:
                self._late.add(name)
            self._unstarted.append(name)
        self._news.set()

    def end(self, names: Iterable[str]) -> None:
        """Stop watching these, and forget what was seen there; only once all have settled."""
        for name in names:
            del self._pairs[name]
            self._late.discard(name)
            if (task := self._tasks.pop(name, None)) is not None:
                task.cancel()
            self._forget(name)

    def mute(self, names: Collection[str]) -> None:
        """Have failures told quietly in these namespaces, which are on their way out, alone."""
        for name, pair in self._pairs.items():
            for reflector in pair:
                reflector.mute(on=name in names)

    def retry_forbidden(self, name: str | None) -> None:
        """Have what is refused in a namespace (None: in any) asked for at once."""
        pairs = self._pairs if name is None else {name: self._pairs.get(name)}
        for pair in pairs.values():
            for reflector in pair or ():
                if reflector.stats().protocol.failures:
                    reflector.retry_now()

    def is_forbidden(self, name: str) -> bool:
        """Tell whether the API server refuses to show a namespace's pods."""
        pair = self._pairs.get(name)
        return pair is not None and pair.pods.is_forbidden

    async def wait_initialized(self) -> None:
        """Return once each pair that is here by now has its list or a refusal.

        What begins later is awaited by nobody; nor is a pair any longer whose lists keep failing
        while another has both of its own: it goes on as one that begins later.
        """
        while self.missing():
            with suppress(TimeoutError):
                async with asyncio.timeout(CACHE_SYNC_TIMEOUT_S):
                    for reflector in self.reflectors:
                        await reflector.wait_initialized()
            if any(_is_synced(pair) for pair in self._pairs.values()):
                self._late |= {
                    name for name, pair in self._pairs.items() if not _is_initialized(pair)
                }
        self.all_settled = True

    async def relist(self) -> None:
        """Return once each of those that run now has a consistent list that began after this call.

        They begin a few at one time: a watch is cut only when its list can begin, and what hangs in
        one namespace delays the others by a turn at most.

        Cancel: what has begun is made nevertheless.
        """
        slices = ListSlots()

        async def relist(reflector: Reflector) -> None:
            async with slices.slot():
                await reflector.relist()

        async with asyncio.TaskGroup() as group:
            for reflector in self.reflectors:
                group.create_task(relist(reflector))

    def missing(self) -> list[str]:
        """Return what has neither list nor refusal, of the pairs that are awaited.

        May be asked for from another thread.
        """
        return [
            reflector.name
            for name, pair in tuple(self._pairs.items())
            if name not in self._late
            for reflector in pair
            if not reflector.is_initialized
        ]


def _is_initialized(pair: InformerPair) -> bool:
    return all(reflector.is_initialized for reflector in pair)


def _is_synced(pair: InformerPair) -> bool:
    return all(reflector.stats().synced for reflector in pair)


async def _run(pair: InformerPair, *, late: bool) -> None:
    """Keep one namespace; where work goes on already, Secrets come before pods.

    A pod whose Secret is not yet known looks like one whose Secret is gone.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(pair.secrets.run())
        if late:
            group.create_task(_retry_fast(pair))
            await pair.secrets.wait_initialized()
        group.create_task(pair.pods.run())


async def _retry_fast(pair: InformerPair) -> None:
    for _ in range(FAST_RETRIES):
        await asyncio.sleep(FAST_RETRY_S)
        waiting = [reflector for reflector in pair if not reflector.stats().synced]
        if not waiting:
            return
        for reflector in waiting:
            reflector.retry_now()
