"""Look-ups of names in daemon threads: a silent name server delays no other name and no end."""

import asyncio
import socket
import threading
import time
from contextlib import suppress
from typing import NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult

from reconciler.clock import LONG_AGO, Instant

NAME_THREADS = 4
"""Look-ups of one name at one time: silent name servers delay each for up to 45 s."""

LOOK_AGAIN_S = 5.0
"""If a look-up has no answer after this time, the next caller starts another one. Source:
resolv.conf(5), the wait for one server."""


class Resolver(AbstractResolver):
    """getaddrinfo in daemon threads; each name has its own threads.

    The loop waits for its own threads when it ends, for as long as all name servers are silent: 45
    s with three of them, well beyond a pod's grace period. These threads are also few, and shared
    by all names: a name without an answer would block the others.

    A name has `NAME_THREADS` at most in this process, for all loops together. A caller that comes
    during a look-up waits for its answer.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            OSError: There are none.
            ValueError: `host` is no valid name.
        Cancel: the thread continues, for other callers.
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
        """Do nothing: there is nothing to close."""


class _Name(NamedTuple):
    host: str
    port: int
    family: socket.AddressFamily


class _Waiter(NamedTuple):
    loop: asyncio.AbstractEventLoop
    found: asyncio.Future[list[ResolveResult]]

    def settle(self, answer: list[ResolveResult] | Exception) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(_settle, self.found, answer)


class _Lookup:
    """The threads that look up one name, and the callers that wait for them."""

    def __init__(self) -> None:
        self.threads = 0
        self.begun_at: Instant = LONG_AGO
        self.waiters: set[_Waiter] = set()


_lookups: dict[_Name, _Lookup] = {}
"""By name, while a thread runs; guarded by `_lock`, because the elector has its own loop."""

_lock = threading.Lock()


def _join(name: _Name, waiter: _Waiter) -> _Lookup:
    """Add a waiter for the name's next answer; start a look-up unless a recent one runs."""
    now_at = Instant(time.monotonic())
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
    except RuntimeError as error:  # the process has reached its limit of threads
        _end(name, lookup, OSError(f"{name.host}: no thread to look it up: {error}"))
    return lookup


def _look(name: _Name, lookup: _Lookup) -> None:
    answer: list[ResolveResult] | Exception
    try:
        answer = _addresses(*name)
    except Exception as error:  # otherwise no one would see it
        answer = error
    _end(name, lookup, answer)


def _end(name: _Name, lookup: _Lookup, answer: list[ResolveResult] | Exception) -> None:
    """Give an answer to all waiters; an error only where no other thread is still running."""
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
