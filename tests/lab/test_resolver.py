"""A silent name server delays no other name; one look-up serves all callers that wait for it."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from reconciler.net import resolver
from reconciler.net.resolver import Resolver

Loops = Callable[[], asyncio.AbstractEventLoop]
both_loops = pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop])


async def test_a_name_that_is_known_is_resolved_and_another_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    names = Resolver()
    found = await names.resolve("localhost", 80, socket.AF_UNSPEC)
    assert {(one["hostname"], one["port"]) for one in found} == {("localhost", 80)}
    assert {one["host"] for one in found} & {"127.0.0.1", "::1"}
    with pytest.raises(ValueError, match="label"):
        await names.resolve("a" * 70, 80, socket.AF_UNSPEC)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(socket.gaierror, match="not known"):
        await names.resolve("obviously.fake", 80, socket.AF_UNSPEC)


class NameServers:
    """Answers look-ups at once, except those of silent names: these wait until released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.silent: set[str] = set()
        self.let_go = threading.Event()
        self.asked: list[str] = []
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._lock = threading.Lock()
        monkeypatch.setattr(socket, "getaddrinfo", self._look)

    def _look(self, host: str, *_: object, **__: object) -> list[Any]:
        with self._lock:
            self.asked.append(host)
            self.under_way[host] += 1
            self.most[host] = max(self.most[host], self.under_way[host])
        try:
            if host in self.silent:
                assert self.let_go.wait(60)
            if host in self.silent:
                raise socket.gaierror(socket.EAI_AGAIN, "no server answered")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]
        finally:
            with self._lock:
                self.under_way[host] -= 1


@pytest.fixture
def name_servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServers]:
    servers = NameServers(monkeypatch)
    yield servers
    servers.let_go.set()
    for thread in threading.enumerate():
        if thread.name == "resolve":
            thread.join(10)


async def asked_for(servers: NameServers, host: str, resolvers: list[Resolver]) -> None:
    """Cancel many look-ups, until the name has its maximum of threads."""
    for _ in range(50):
        asking = [asyncio.create_task(resolver.resolve(host)) for resolver in resolvers]
        await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
    async with asyncio.timeout(10):
        while servers.most[host] < resolver.NAME_THREADS:
            await asyncio.sleep(0)


@both_loops
def test_a_name_that_no_server_answers_for_stops_no_other(
    loops: Loops, name_servers: NameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server's, the issuer's and the platform's client each have a resolver."""
    monkeypatch.setattr(resolver, "LOOK_AGAIN_S", 0.0)
    name_servers.silent = {"issuer.test", "platform.test"}

    async def scenario() -> None:
        resolvers = [Resolver() for _ in range(4)]
        for host in name_servers.silent:
            await asked_for(name_servers, host, resolvers)
        for _ in range(20):
            for each in resolvers:
                [found] = await each.resolve("api.test", 443)
                assert found["host"] == "127.0.0.1"
        assert name_servers.most["issuer.test"] == resolver.NAME_THREADS
        assert name_servers.most["platform.test"] == resolver.NAME_THREADS

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(scenario())


@both_loops
def test_a_name_that_is_answered_again_is_not_held_up_by_look_ups_that_were_not(
    loops: Loops, name_servers: NameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "LOOK_AGAIN_S", 0.0)
    name_servers.silent = {"issuer.test"}

    async def scenario() -> None:
        waiting = asyncio.create_task(Resolver().resolve("issuer.test"))
        while not name_servers.under_way["issuer.test"]:
            await asyncio.sleep(0)
        name_servers.silent = set()
        async with asyncio.timeout(10):
            [found] = await Resolver().resolve("issuer.test")
        assert found["host"] == "127.0.0.1"
        assert await waiting == [found]
        assert name_servers.under_way["issuer.test"] == 1

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(scenario())


async def test_a_look_up_that_fails_late_is_no_answer_while_another_is_under_way(
    name_servers: NameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "LOOK_AGAIN_S", 0.0)
    name_servers.silent = {"issuer.test"}
    first = name_servers.let_go
    asking = [asyncio.create_task(Resolver().resolve("issuer.test"))]
    async with asyncio.timeout(10):
        while name_servers.under_way["issuer.test"] < 1:
            await asyncio.sleep(0)
        name_servers.let_go = threading.Event()
        asking.append(asyncio.create_task(Resolver().resolve("issuer.test")))
        while name_servers.under_way["issuer.test"] < 2:
            await asyncio.sleep(0)
        first.set()
        while name_servers.under_way["issuer.test"] > 1:
            await asyncio.sleep(0)
        name_servers.silent = set()
        name_servers.let_go.set()
        for [found] in await asyncio.gather(*asking):
            assert found["host"] == "127.0.0.1"


async def test_a_process_without_a_thread_left_says_so_and_looks_again_later(
    name_servers: NameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", full)
        with pytest.raises(OSError, match=r"issuer\.test: no thread"):
            await Resolver().resolve("issuer.test")
    assert name_servers.asked == []
    [found] = await Resolver().resolve("issuer.test")
    assert found["host"] == "127.0.0.1"


@both_loops
def test_who_asks_for_a_name_that_is_looked_up_waits_for_that(
    loops: Loops, name_servers: NameServers
) -> None:
    name_servers.silent = {"issuer.test"}

    async def scenario() -> None:
        asking = [asyncio.create_task(Resolver().resolve("issuer.test")) for _ in range(100)]
        while not name_servers.under_way["issuer.test"]:
            await asyncio.sleep(0)
        name_servers.let_go.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(answer) for answer in answers} == {socket.gaierror}
        assert name_servers.asked == ["issuer.test"]

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(scenario())
