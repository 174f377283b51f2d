"""A Kubernetes that plays a script: one answer a request, one act after the other in a watch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from reconciler.clock import Instant
from reconciler.errors import KubeError, ProtocolError, TransportError
from reconciler.kube.api import (
    ApiResource,
    Body,
    Event,
    Kube,
    ListOptions,
    ObjectMeta,
    Page,
    Permit,
    Watch,
)

Failure = KubeError | ProtocolError


@dataclass(frozen=True)
class Wait:
    """Be silent for so many seconds."""

    seconds: float


SILENT = Wait(1e9)


@dataclass(frozen=True)
class Call:
    """Do something in the middle of a watch, at its place in the script."""

    do: Callable[[], object]


Act = Event[ObjectMeta] | Failure | Wait | Call
"""What a watch does next; after its last act it ends cleanly."""


@dataclass(frozen=True)
class Stream:
    """An answer to a watch request that begins."""

    acts: Sequence[Act] = ()


@dataclass(frozen=True)
class Asked:
    """One request as it came in; `at` is the loop's time."""

    verb: str
    version: str
    at: Instant
    limit: int = 0
    continue_token: str = ""
    timeout_s: int = 0


class ScriptedWatch(Watch[ObjectMeta]):
    def __init__(self, acts: Sequence[Act]) -> None:
        self._acts = list(acts)

    async def receive(self, *, idle_s: float) -> Event[ObjectMeta] | None:
        while self._acts:
            act = self._acts.pop(0)
            match act:
                case Wait():
                    await asyncio.sleep(min(act.seconds, idle_s))
                    if act.seconds >= idle_s:
                        raise TransportError("watch pods: silent")
                case Call():
                    act.do()
                case Exception():
                    raise act
                case _:
                    return act
        return None


ListAnswer = Page[ObjectMeta] | Failure | Wait
WatchAnswer = Stream | Failure | Wait


@dataclass
class FakeKube(Kube):
    """Plays `lists` and `watches` in order, and then repeats the last answer of each.

    A `Wait` in front of an answer delays it, as a slow server would.
    """

    lists: list[ListAnswer]
    watches: list[WatchAnswer] = field(default_factory=lambda: [Stream([SILENT])])
    asked: list[Asked] = field(default_factory=list)
    open_watches: int = 0

    def verbs(self) -> list[tuple[str, str]]:
        return [(asked.verb, asked.version) for asked in self.asked]

    async def list(
        self,
        resource: ApiResource[Any],
        scope: ListOptions,
        *,
        limit: int = 0,
        continue_token: str = "",
        version: str = "",
        limit_s: float = 30.0,
    ) -> Page[Any]:
        now_at = asyncio.get_running_loop().time()
        self.asked.append(Asked("list", version, Instant(now_at), limit, continue_token))
        while True:
            match self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]:
                case Wait(seconds):
                    await asyncio.sleep(min(seconds, limit_s))
                    if seconds >= limit_s:
                        raise TransportError("list pods: timed out")
                case Exception() as error:
                    raise error
                case answer:
                    return answer

    @asynccontextmanager
    async def watch(
        self, resource: ApiResource[Any], scope: ListOptions, *, version: str, timeout_s: int
    ) -> AsyncIterator[Watch[Any]]:
        now_at = asyncio.get_running_loop().time()
        self.asked.append(Asked("watch", version, Instant(now_at), timeout_s=timeout_s))
        watch = ScriptedWatch(await self._begin())
        self.open_watches += 1
        try:
            yield watch
        finally:
            self.open_watches -= 1

    async def _begin(self) -> Sequence[Act]:
        while True:
            match self.watches.pop(0) if len(self.watches) > 1 else self.watches[0]:
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                case Exception() as error:
                    raise error
                case Stream(acts):
                    return acts

    async def get(
        self, resource: ApiResource[Any], namespace: str, name: str, *, limit_s: float = 10.0
    ) -> Any:
        raise AssertionError("a reflector lists and watches, nothing else")

    async def create(
        self,
        resource: ApiResource[Any],
        namespace: str,
        body: Body,
        *,
        limit_s: float = 10.0,
        permit: Permit | None = None,
    ) -> Any:
        raise AssertionError("a reflector lists and watches, nothing else")

    async def patch(
        self,
        resource: ApiResource[Any],
        namespace: str,
        name: str,
        body: Body,
        *,
        limit_s: float = 10.0,
        permit: Permit | None = None,
    ) -> Any:
        raise AssertionError("a reflector lists and watches, nothing else")

    async def ready(self, *, limit_s: float = 5.0) -> None:
        raise AssertionError("a reflector lists and watches, nothing else")
