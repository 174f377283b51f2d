"""Who wrote what in which leadership term: both histories from the API server."""

import asyncio
import json
from bisect import bisect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from tests.cluster.admin import LIMIT_S, SECRETS, Json, collection
from tests.cluster.world import NAMES, World

LEASES_GROUP = "coordination.k8s.io"


def leases(namespace: str, name: str = "") -> str:
    """Return the path of a namespace's Leases, or of one of them."""
    path = f"/apis/{LEASES_GROUP}/v1/namespaces/{namespace}/leases"
    return f"{path}/{name}" if name else path


class Turn(NamedTuple):
    """A version of the Lease and its holder, "" for none."""

    version: int
    holder: str


class Deed(NamedTuple):
    """A version of a Secret that a controller wrote, and the term of the write."""

    version: int
    term: str


class Deeds:
    """Reads every version of the Lease and of the Secrets from its start.

    Both are ordered by the store's revision, so that the order of a write and a takeover is known
    without a clock.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.turns: list[Turn] = []
        self.writes: list[Deed] = []
        self._open = 0
        self._paths: list[str] = []
        self._read: dict[str, int] = {}
        self._news = asyncio.Condition()

    @property
    def holders(self) -> list[str]:
        """Return the holders in order, each once a term, without releases."""
        found: list[str] = []
        for turn in self.turns:
            if turn.holder and found[-1:] != [turn.holder]:
                found.append(turn.holder)
        return found

    def writers(self) -> list[str]:
        """Return the terms in the order of their first write."""
        return list(dict.fromkeys(deed.term for deed in self.writes))

    def late(self) -> list[Deed]:
        """Return the writes committed without the Lease, or after another holder's acquisition."""
        acquired = [turn for turn in self.turns if turn.holder]
        versions = [turn.version for turn in acquired]
        holders = ["", *(turn.holder for turn in acquired)]
        return [
            deed
            for deed in self.writes
            if not _is_of(deed.term, holders[bisect(versions, deed.version)])
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Deeds"]:
        """Watch until the block ends; enter it before the first replica starts."""
        namespaces = {runner.namespace for runner in self._world.runners}
        self._paths = [leases(self._world.home)]
        self._paths += [collection(namespace, SECRETS) for namespace in namespaces]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._follow(path)) for path in self._paths]
            try:
                async with asyncio.timeout(LIMIT_S), self._news:
                    await self._news.wait_for(lambda: self._open == len(tasks))
                yield self
            finally:
                for task in tasks:
                    task.cancel()

    async def _follow(self, path: str) -> None:
        async with self._world.admin.watch(path) as lines:
            async with self._news:
                self._open += 1
                self._news.notify_all()
            async for line in lines:
                event = json.loads(line)
                if event["type"] in ("ADDED", "MODIFIED"):
                    self._seen(event["object"])
                    async with self._news:
                        self._news.notify_all()

    async def catch_up(self) -> None:
        """Wait until every present version in the cluster was read."""
        admin = self._world.admin
        listed = [(await admin.expect("GET", path))["items"] for path in self._paths]
        wanted = {
            found["metadata"]["uid"]: int(found["metadata"]["resourceVersion"])
            for items in listed
            for found in items
        }
        async with asyncio.timeout(LIMIT_S), self._news:
            await self._news.wait_for(
                lambda: all(self._read.get(uid, 0) >= version for uid, version in wanted.items())
            )

    def _seen(self, item: Json) -> None:
        version = int(item["metadata"]["resourceVersion"])
        self._read[item["metadata"]["uid"]] = version
        if item["kind"] == "Lease":
            self.turns.append(Turn(version, item["spec"].get("holderIdentity") or ""))
            return
        term = item["metadata"].get("annotations", {}).get(NAMES.refreshed_by)
        if term:
            self.writes.append(Deed(version, term))


def _is_of(term: str, holder: str) -> bool:
    """Return whether a term belongs to this holder: both end with the process' nonce."""
    return term.rpartition("-")[2] == holder.rpartition("_")[2]
