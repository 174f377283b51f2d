"""A closed client leaves no connection, even with a request in progress.

aiohttp's own connector leaves some; where it closes them, the tests with `TCPConnector` fail, and
that part of `Connector` can go.
"""

import asyncio
import gc
import os
import select
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Self, get_args

import aiohttp
import pytest
import uvloop

from reconciler.net import connector
from reconciler.net.connector import Connector
from tests.lab.scripted_server import answer, scripted
from tests.lab.tls import make_certificate, serving

TURNS = 25
"""Iterations of the loop for a request over TLS here, and some more."""

LIMIT_S = 20.0

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


Moment = Literal["handshake", "request", "response"]
"""When a request is cancelled: its handshake has just ended, it was read, its answer has begun."""

MOMENTS: tuple[Moment, ...] = get_args(Moment)

HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nob"
"""A response that never ends."""


class SilentPeer:
    """A TLS server for one connection; it sends `answer` and never close_notify.

    `asked` is set when it has read a request and has sent its answer.
    """

    def __init__(self, certificates: tuple[Path, Path], answer: bytes) -> None:
        self.asked = asyncio.Event()
        self._answer = answer
        self._tls = serving(certificates)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepted: ssl.SSLSocket | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._accepted is not None:
            with suppress(OSError):  # the client has ended it
                self._accepted.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        if self._accepted is not None:
            self._accepted.close()

    def _serve(self) -> None:
        plain, _ = self._listener.accept()
        self._accepted = self._tls.wrap_socket(
            plain, server_side=True, do_handshake_on_connect=False
        )
        with suppress(OSError):  # the client, or the end of the test, has ended it
            self._accepted.do_handshake()
            self._accepted.recv(4096)
            self._accepted.sendall(self._answer)
            self._loop.call_soon_threadsafe(self.asked.set)


def trusting(certificates: tuple[Path, Path], ended: Callable[[], object]) -> ssl.SSLContext:
    """Return a context that calls `ended` when a handshake has ended, before its transport does."""

    class Observed(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            ended()

    context = ssl.create_default_context(cafile=str(certificates[0]))
    context.sslobject_class = Observed
    return context


def sockets_to(port: int) -> int:
    """Return how many of this process's sockets are connected to a loopback port (proc(5))."""
    peer = f"0100007F:{port:04X}"
    inodes = set()
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, _, _, _, _, _, _, inode, *_ = line.split()
        if remote == peer:
            inodes.add(f"socket:[{inode}]")
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing has been closed
            count += os.readlink(f"/proc/self/fd/{number}") in inodes
    return count


async def left_by(
    make: type[aiohttp.TCPConnector], certificates: tuple[Path, Path], moment: Moment
) -> list[str]:
    """Cancel a request at this moment, close its client, and return what is left of it."""
    left: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: left.append(str(context["message"])))
    begun = asyncio.Event()

    async def get(session: aiohttp.ClientSession, url: str) -> None:
        async with session.get(url) as response:
            begun.set()
            await response.read()

    def cancel() -> None:
        request.cancel()

    trust = trusting(certificates, cancel if moment == "handshake" else lambda: None)
    with SilentPeer(certificates, HALF if moment == "response" else b"") as peer:
        async with aiohttp.ClientSession(connector=make(ssl=trust)) as session:
            request = asyncio.create_task(get(session, f"https://127.0.0.1:{peer.port}/"))
            if moment != "handshake":
                await (begun if moment == "response" else peer.asked).wait()
                cancel()
            await asyncio.wait([request])
        for _ in range(TURNS):  # an aborted connection needs one or two
            await asyncio.sleep(0)
        left += ["a socket"] * sockets_to(peer.port)
    async with asyncio.timeout(LIMIT_S):
        while sockets_to(peer.port):
            await asyncio.sleep(0)
    return left


@both_loops
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_peer_without_close_notify_keeps_no_connection_open(
    certificates: tuple[Path, Path], loops: Loops, moment: Moment
) -> None:
    with asyncio.Runner(loop_factory=loops) as runner:
        assert runner.run(left_by(Connector, certificates, moment)) == []


@both_loops
@pytest.mark.parametrize("moment", MOMENTS)
def test_aiohttp_alone_leaves_that_connection_open(
    certificates: tuple[Path, Path], loops: Loops, moment: Moment
) -> None:
    """If this fails, aiohttp has changed: that part of `Connector` is no longer needed."""
    with asyncio.Runner(loop_factory=loops) as runner:
        assert runner.run(left_by(aiohttp.TCPConnector, certificates, moment))


class EarlyPeer:
    """A TLS peer whose answer is in the socket before the client's hello has left the client.

    So the handshake ends when the loop next polls, before `create_connection` runs again. On a busy
    machine a real peer does the same: it runs while the client does not.
    """

    def __init__(self, certificates: tuple[Path, Path]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.accepted: socket.socket | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = serving(certificates).wrap_bio(self._incoming, self._outgoing, server_side=True)

    def answer(self, hello: bytes) -> None:
        self.accepted, _ = self.listener.accept()
        self._incoming.write(hello)
        with suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self.accepted.sendall(self._outgoing.read())

    def context(self, certificate: Path, ended: Callable[[], object]) -> ssl.SSLContext:
        """Return the client's context, which calls `ended` when a handshake has ended."""
        peer = self

        class Client(ssl.SSLObject):
            hello: ssl.MemoryBIO

            @classmethod
            def _create(
                cls, read: ssl.MemoryBIO, write: ssl.MemoryBIO, *args: Any, **named: Any
            ) -> Any:
                made = super()._create(read, write, *args, **named)  # type: ignore[misc]
                made.hello = write
                return made

            def do_handshake(self) -> None:
                try:
                    super().do_handshake()
                except ssl.SSLWantReadError:
                    if peer.accepted is None:
                        peer.answer(self.hello.read())
                    raise
                ended()

        context = ssl.create_default_context(cafile=str(certificate))
        context.sslobject_class = Client
        return context


@both_loops
def test_an_attempt_whose_time_ends_with_its_handshake_logs_nothing(
    certificates: tuple[Path, Path], loops: Loops, caplog: pytest.LogCaptureFixture
) -> None:
    """uvloop alone logs `Fatal error on SSL protocol`, with a traceback."""
    peer = EarlyPeer(certificates)

    def cancel() -> None:
        [attempt] = [task for task in asyncio.all_tasks() if task.get_name() == "connect"]
        attempt.cancel()

    async def attempt() -> None:
        trust = peer.context(certificates[0], cancel)
        async with aiohttp.ClientSession(connector=Connector(ssl=trust)) as session:
            request = get(session, f"https://127.0.0.1:{peer.listener.getsockname()[1]}/")
            with suppress(asyncio.CancelledError):
                await asyncio.create_task(request)

    with peer.listener:
        with asyncio.Runner(loop_factory=loops) as runner:
            runner.run(attempt())
        assert peer.accepted is not None
        peer.accepted.close()
    gc.collect()
    assert caplog.records == []


@both_loops
@pytest.mark.parametrize("how", ["cancel", "reset"])
def test_an_attempt_that_ends_at_any_moment_closes_its_socket_once(
    how: str, loops: Loops, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A socket object with a number that the loop has closed would close another connection."""
    made: list[socket.socket] = []
    make = connector._keepalive_socket

    def making(address: Any) -> socket.socket:
        made.append(make(address))
        return made[-1]

    monkeypatch.setattr(connector, "_keepalive_socket", making)

    async def attempt(listener: socket.socket, *, turns: int) -> None:
        async with aiohttp.ClientSession(connector=Connector()) as session:
            port = listener.getsockname()[1]
            request = asyncio.create_task(get(session, f"https://127.0.0.1:{port}/"), name="get")
            for _ in range(turns):
                await asyncio.sleep(0)
            await end(listener)
            await asyncio.gather(request, return_exceptions=True)

    async def cancel(_: object) -> None:
        for task in asyncio.all_tasks():
            if task.get_name() in ("connect", "get"):
                task.cancel()

    async def reset(listener: socket.socket) -> None:
        while not select.select([listener], [], [], 0)[0]:
            await asyncio.sleep(0)
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()

    end = {"cancel": cancel, "reset": reset}[how]
    for turns in range(TURNS):
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            asyncio.Runner(loop_factory=loops) as runner,
        ):
            runner.run(attempt(listener, turns=turns))
    assert made
    assert [sock.fileno() for sock in made] == [-1] * len(made)
    gc.collect()
    assert caplog.records == []


@both_loops
def test_more_attempts_than_a_busy_peer_completes_wait_for_their_turn(loops: Loops) -> None:
    """A silent peer has the first of them only, until it closes one."""

    async def attempts() -> None:
        waiting = connector.ATTEMPTS + 5
        async with aiohttp.ClientSession(connector=Connector()) as session:
            with socket.create_server(("127.0.0.1", 0), backlog=waiting) as silent:
                port = silent.getsockname()[1]
                requests = [
                    asyncio.create_task(get(session, f"https://127.0.0.1:{port}/"))
                    for _ in range(waiting)
                ]
                accepted: list[socket.socket] = []
                silent.setblocking(False)
                loop = asyncio.get_running_loop()
                async with asyncio.timeout(LIMIT_S):
                    while len(accepted) < connector.ATTEMPTS:
                        accepted.append((await loop.sock_accept(silent))[0])
                    for _ in range(TURNS):
                        await asyncio.sleep(0)
                    assert sockets_to(port) == connector.ATTEMPTS
                    for _ in range(waiting - connector.ATTEMPTS):
                        accepted[len(accepted) - connector.ATTEMPTS].close()
                        accepted.append((await loop.sock_accept(silent))[0])
                for sock in accepted:
                    sock.close()
                ended = await asyncio.gather(*requests, return_exceptions=True)
                assert all(isinstance(error, aiohttp.ClientConnectorError) for error in ended)

    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(attempts())


@both_loops
def test_a_failed_attempt_keeps_no_task_and_no_place_in_the_pool(loops: Loops) -> None:
    """Nothing waits for the cycle collector, which may come minutes later."""

    async def attempts() -> None:
        made: list[weakref.ref[asyncio.Task[Any]]] = []

        def factory(
            loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **named: Any
        ) -> asyncio.Task[Any]:
            task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **named)
            made.append(weakref.ref(task))
            return task

        asyncio.get_running_loop().set_task_factory(factory)  # type: ignore[arg-type]
        limit = aiohttp.ClientTimeout(sock_connect=0.01)
        async with aiohttp.ClientSession(connector=Connector(limit=1), timeout=limit) as session:
            with socket.create_server(("127.0.0.1", 0)) as silent:
                port = silent.getsockname()[1]
                for _ in range(3):
                    with pytest.raises(aiohttp.ConnectionTimeoutError):
                        await get(session, f"https://127.0.0.1:{port}/")
            with pytest.raises(aiohttp.ClientConnectorError):
                await get(session, f"https://127.0.0.1:{port}/")
        names = [task.get_name() for ref in made if (task := ref()) is not None]
        assert len(made) >= 3
        assert not [name for name in names if name.startswith("connect")]

    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=loops) as runner:
            runner.run(attempts())
    finally:
        gc.enable()
