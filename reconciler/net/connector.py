"""The sockets below our HTTP clients: they notice a dead peer, and none outlives its client."""

import asyncio
import math
import socket
import threading
import time
from contextlib import suppress
from typing import Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

GRACE_S = 1.0
"""How long a connection that nobody waits for any more may take to be made before it is cut off."""

NAME_THREADS = 4
"""Look-ups of one name under way at one time: silent name servers hold each for up to 45 s."""

LOOK_AGAIN_S = 5.0
"""A look-up that has no answer after this long is not waited for alone: another begins for whoever
asks. Source: resolv.conf(5), the wait for one server."""


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector, but for what a cancelled request leaves behind.

    There a connection over TLS takes leave and waits for the peer's, up to 30 s, known to nobody:
    on uvloop it goes on to read, and whoever ends the loop before gets errors. Here a connection
    is made to its end although nobody waits for it any more, and every one is closed at once.

    Args:
        options: As of `aiohttp.TCPConnector`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(socket_factory=_keepalive_socket, resolver=Resolver(), **options)
        self._unwanted: set[asyncio.Task[None]] = set()

    async def _create_connection(self, *args: Any) -> ResponseHandler:
        connecting = asyncio.create_task(super()._create_connection(*args), name="connect")
        try:
            made = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            task = asyncio.create_task(_drop(connecting), name="drop_connection")
            self._unwanted.add(task)
            task.add_done_callback(self._unwanted.discard)
            raise
        made.close = made.abort  # type: ignore[method-assign]  # to take leave is what would linger
        return made

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close every connection, those included that nobody waits for; takes up to `GRACE_S`."""
        await super().close(abort_ssl=abort_ssl)
        if self._unwanted:
            await asyncio.wait(self._unwanted)


class Resolver(AbstractResolver):
    """getaddrinfo, in threads that nobody waits for; each name has its own.

    The loop's own threads are waited for at its end, for as long as all name servers are silent:
    45 s with three of them, well beyond a pod's grace period. They are also few, and shared by all
    names: one that no server answers for would stop the others.

    A name has `NAME_THREADS` at most in this process, of whatever loop. Who asks while one is under
    way waits for its answer.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            OSError: There are none.
            ValueError: That is no name.
        Cancel: the thread goes on, for others who ask.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop, loop.create_future())
        lookup = _join(_Name(host, port, family), waiter)
        try:
            return await waiter.found
        finally:
            with _lock:
                lookup.waiters.discard(waiter)

    async def close(self) -> None:
        """Hold nothing, and so leave nothing."""


class _Name(NamedTuple):
    host: str
    port: int
    family: socket.AddressFamily


class _Waiter(NamedTuple):
    loop: asyncio.AbstractEventLoop
    found: asyncio.Future[list[ResolveResult]]

    def settle(self, answer: list[ResolveResult] | Exception) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self.loop.call_soon_threadsafe(_settle, self.found, answer)


class _Lookup:
    """The threads that look one name up, and who waits for any of them."""

    def __init__(self) -> None:
        self.threads = 0
        self.begun_at = -math.inf
        self.waiters: set[_Waiter] = set()


_lookups: dict[_Name, _Lookup] = {}
"""By name, while a thread is under way; guarded by `_lock`, since the elector has its own loop."""

_lock = threading.Lock()


def _join(name: _Name, waiter: _Waiter) -> _Lookup:
    """Have a waiter get the name's next answer; begin a look-up if none is under way lately."""
    now_at = time.monotonic()
    with _lock:
        lookup = _lookups.setdefault(name, _Lookup())
        lookup.waiters.add(waiter)
        is_late = now_at - lookup.begun_at >= LOOK_AGAIN_S
        if lookup.threads and not (is_late and lookup.threads < NAME_THREADS):
            return lookup
        lookup.threads += 1
        lookup.begun_at = now_at
    try:
        threading.Thread(target=_look, args=(name, lookup), name="resolve", daemon=True).start()
    except RuntimeError as error:  # the process has as many threads as it may
        _end(name, lookup, OSError(f"{name.host}: no thread to look it up: {error}"))
    return lookup


def _look(name: _Name, lookup: _Lookup) -> None:
    answer: list[ResolveResult] | Exception
    try:
        answer = _addresses(*name)
    except Exception as error:  # a thread ends unseen otherwise
        answer = error
    _end(name, lookup, answer)


def _end(name: _Name, lookup: _Lookup, answer: list[ResolveResult] | Exception) -> None:
    """Give an answer to all; an error only where no other thread may still have a better one."""
    with _lock:
        lookup.threads -= 1
        if not lookup.threads:
            _lookups.pop(name, None)
        elif isinstance(answer, Exception):
            return
        waiters, lookup.waiters = lookup.waiters, set()
    for waiter in waiters:
        waiter.settle(answer)


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=int(address[1]),
            family=found,
            proto=proto,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for found, _, proto, _, address in infos
    ]


def _settle(
    found: asyncio.Future[list[ResolveResult]], answer: list[ResolveResult] | Exception
) -> None:
    if found.done():
        return
    if isinstance(answer, Exception):
        found.set_exception(answer)
    else:
        found.set_result(list(answer))


async def _drop(connecting: asyncio.Task[ResponseHandler]) -> None:
    await asyncio.wait([connecting], timeout=GRACE_S)
    connecting.cancel()
    await asyncio.wait([connecting])
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().abort()


def _keepalive_socket(address: Any) -> socket.socket:
    """Make a socket that notices a dead peer in about a minute.

    Source: client-go's HTTP/2 pings find it in 45 s; HTTP/1.1 has none, and load balancers drop an
    idle flow without a word after four minutes.
    """
    family, kind, proto, *_ = address
    sock = socket.socket(family, kind, proto)
    with suppress(OSError):  # a sandboxed kernel may know none of them; none is worth a failure
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", 30),
            ("TCP_KEEPINTVL", 10),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", 60_000),
        ):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock
