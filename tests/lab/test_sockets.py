"""A client that is closed leaves no connection behind, whatever was under way on it."""

import asyncio
import gc
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
import uvloop

from reconciler import sockets
from reconciler.sockets import Connector, Resolver
from tests.lab.scripted_server import answer, scripted
from tests.lab.tls import make_certificate, serving

TURNS = 25
"""Of the loop, that a request over TLS takes here, and some more."""

PAUSE_S = 0.002
"""In which the server's answer arrives, so that each turn brings the request one step on."""

Loops = Callable[[], asyncio.AbstractEventLoop]
both_loops = pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@contextmanager
def server(certificates: tuple[Path, Path]) -> Iterator[str]:
    """Serve on a loop of its own, which takes its time to see a client leave; give the URL."""
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
    """Cancel a request after so many turns of the loop, and close its client."""
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
    """What it would leave is an error of the loop's end, of its log, or a ResourceWarning."""
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
    monkeypatch.setattr(sockets, "GRACE_S", 0.01)
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
