"""A closed client leaves no connection, even with a request in progress."""

import asyncio
import gc
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from reconciler.net import connector
from reconciler.net.connector import Connector, Resolver
from tests.lab.scripted_server import answer, scripted
from tests.lab.tls import make_certificate, serving

TURNS = 25
"""Iterations of the loop for a request over TLS here, and some more."""

PAUSE_S = 0.002
"""Time in which the server's answer arrives: each iteration advances the request one step."""

Loops = Callable[[], asyncio.AbstractEventLoop]
both_loops = pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@contextmanager
def server(certificates: tuple[Path, Path]) -> Iterator[str]:
    """Serve in another loop, which detects a closed client late; yield the URL."""
    url: Future[str] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        async with scripted(*[answer()] * TURNS, tls=serving(certificates)) as scripted_server:
            url.set_result(scripted_server.url)
            await stop.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield url.result()
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def cancelled(url: str, trust: ssl.SSLContext, *, after: int) -> None:
    """Cancel a request after this many iterations of the loop, and close its client."""
    async with aiohttp.ClientSession(connector=Connector(ssl=trust)) as session:
        request = asyncio.create_task(get(session, url))
        for _ in range(after):
            await asyncio.sleep(0)
            time.sleep(PAUSE_S)  # noqa: ASYNC251 - the server has a thread, and needs a core
        request.cancel()
        await asyncio.wait([request])


async def get(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(url) as response:
        await response.read()


@both_loops
def test_a_request_that_is_cancelled_at_any_moment_leaves_nothing(
    certificates: tuple[Path, Path], loops: Loops, caplog: pytest.LogCaptureFixture
) -> None:
    """A leftover connection causes an error of the loop, a log line, or a ResourceWarning."""
    trust = ssl.create_default_context(cafile=str(certificates[0]))
    with server(certificates) as url:
        for turns in range(TURNS):
            with asyncio.Runner(loop_factory=loops) as runner:
                runner.run(cancelled(url, trust, after=turns))
    gc.collect()
    assert caplog.records == []


@both_loops
def test_a_peer_that_never_answers_is_left_in_the_end(
    loops: Loops, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "GRACE_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        trust = ssl.create_default_context()
        with asyncio.Runner(loop_factory=loops) as runner:
            runner.run(cancelled(url, trust, after=TURNS))
        heard, _ = silent.accept()
        with heard:
            heard.settimeout(10)
            while heard.recv(4096):
                pass
    gc.collect()
    assert caplog.records == []


@both_loops
def test_a_name_server_that_never_answers_keeps_no_loop_from_its_end(
    loops: Loops, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def wait(*_: object, **__: object) -> list[object]:
        asked.set()
        answered.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    with asyncio.Runner(loop_factory=loops) as runner:
        trust = ssl.create_default_context()
        runner.run(cancelled("https://obviously.fake/", trust, after=TURNS))
    assert asked.is_set()
    assert not answered.is_set()
    answered.set()
    gc.collect()
    assert caplog.records == []


async def test_a_name_that_is_known_is_resolved_and_another_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    resolver = Resolver()
    found = await resolver.resolve("localhost", 80, socket.AF_UNSPEC)
    assert {(one["hostname"], one["port"]) for one in found} == {("localhost", 80)}
    assert {one["host"] for one in found} & {"127.0.0.1", "::1"}
    with pytest.raises(ValueError, match="label"):
        await resolver.resolve("a" * 70, 80, socket.AF_UNSPEC)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(socket.gaierror, match="not known"):
        await resolver.resolve("obviously.fake", 80, socket.AF_UNSPEC)


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
        while servers.most[host] < connector.NAME_THREADS:
            await asyncio.sleep(0)


@both_loops
def test_a_name_that_no_server_answers_for_stops_no_other(
    loops: Loops, name_servers: NameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server's, the issuer's and the platform's client each have a resolver."""
    monkeypatch.setattr(connector, "LOOK_AGAIN_S", 0.0)
    name_servers.silent = {"issuer.test", "platform.test"}

    async def scenario() -> None:
        resolvers = [Resolver() for _ in range(4)]
        for host in name_servers.silent:
            await asked_for(name_servers, host, resolvers)
        for _ in range(20):
            for resolver in resolvers:
                [found] = await resolver.resolve("api.test", 443)
                assert found["host"] == "127.0.0.1"
        assert name_servers.most["issuer.test"] == connector.NAME_THREADS
        assert name_servers.most["platform.test"] == connector.NAME_THREADS

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(scenario())


@both_loops
def test_a_name_that_is_answered_again_is_not_held_up_by_look_ups_that_were_not(
    loops: Loops, name_servers: NameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "LOOK_AGAIN_S", 0.0)
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
    monkeypatch.setattr(connector, "LOOK_AGAIN_S", 0.0)
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
