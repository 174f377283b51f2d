"""Lists, watches and writes have separate connections: none waits for another's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
from aiohttp import web

from reconciler.errors import TransportError
from reconciler.kube import client
from reconciler.kube.api import ListOptions
from reconciler.kube.client import HttpKube
from reconciler.kube.decoding import metadata_resource
from reconciler.kube.list_slots import PARALLEL, ListSlots
from reconciler.naming import Names
from tests.lab.platform_client import scripted
from tests.lab.test_kube_client import FakeCredentials

NAMES = Names()
SECRETS = metadata_resource("secrets", NAMES)
NAMESPACES = [f"team-{number}" for number in range(40)]
LIMIT_S = 0.3


class Server:
    """Answers everything at once, but for lists, which wait for `released`."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.lists = 0
        self.watches = 0
        self.news = asyncio.Condition()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        meta = {"name": "a", "uid": "u", "resourceVersion": "7"}
        if "watch" in request.query:
            self.watches += 1
            response = web.StreamResponse()
            await response.prepare(request)
            await self._changed()
            await self.released.wait()
            return response
        if request.path.endswith("/hangs"):
            await self.released.wait()
        if request.method == "GET" and request.path.endswith("/secrets"):
            if "fieldSelector" not in request.query:
                self.lists += 1
                await self._changed()
                await self.released.wait()
            return web.json_response({"metadata": {"resourceVersion": "7"}, "items": []})
        return web.json_response({"metadata": meta})

    async def _changed(self) -> None:
        async with self.news:
            self.news.notify_all()

    async def wait_for(self, *, lists: int = 0, watches: int = 0) -> None:
        async with self.news:
            await self.news.wait_for(lambda: self.lists >= lists and self.watches >= watches)


@asynccontextmanager
async def serving(*, connections: int = 1) -> AsyncIterator[tuple[HttpKube, Server]]:
    server = Server()

    async def handler(request: web.Request) -> web.Response:
        response = await server.answer(request)
        assert isinstance(response, web.Response | web.StreamResponse)
        return response  # type: ignore[return-value]  # a stream is a response as well

    async with (
        scripted(handler) as url,
        HttpKube(FakeCredentials(url), NAMES, connections=connections) as kube,
    ):
        try:
            yield kube, server
        finally:
            server.released.set()


async def test_lists_and_watches_without_end_keep_no_write_from_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No slot is freed during the test, however slow the machine is.
    monkeypatch.setattr(client, "ListSlots", partial(ListSlots, turn_s=600.0))
    async with serving() as (kube, server), AsyncExitStack() as stack:
        for namespace in NAMESPACES:
            watch = kube.watch(SECRETS, ListOptions(namespace), version="1", timeout_s=60)
            await stack.enter_async_context(watch)
        lists = [asyncio.create_task(kube.list(SECRETS, ListOptions(name))) for name in NAMESPACES]
        await server.wait_for(lists=PARALLEL, watches=len(NAMESPACES))
        assert (await kube.patch(SECRETS, "team", "a", {})).version == "7"
        assert (await kube.get(SECRETS, "team", "a")).version == "7"
        one = ListOptions("team", fields="metadata.name=a")
        assert (await kube.list(SECRETS, one)).version == "7"
        assert server.lists == PARALLEL
        await kube.ready()
        assert not any(task.done() for task in lists)
        server.released.set()
        assert {page.version for page in await asyncio.gather(*lists)} == {"7"}


async def test_the_time_limit_of_a_list_begins_with_its_turn() -> None:
    async with serving() as (kube, server):
        first = [
            asyncio.create_task(kube.list(SECRETS, ListOptions(name))) for name in NAMESPACES[:8]
        ]
        await server.wait_for(lists=PARALLEL)
        waiting = asyncio.create_task(kube.list(SECRETS, ListOptions("late"), limit_s=LIMIT_S))
        # As long as its limit passes, and as long again.
        for _ in range(2):
            with pytest.raises(TransportError):
                await kube.get(SECRETS, "team", "hangs", limit_s=LIMIT_S)
        assert not waiting.done()
        assert server.lists == PARALLEL
        server.released.set()
        assert (await waiting).version == "7"
        await asyncio.gather(*first)
