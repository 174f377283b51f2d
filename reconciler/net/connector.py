"""The sockets of our HTTP clients: they detect a lost peer, and close with their client."""

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from reconciler.net.resolver import Resolver

GRACE_S = 1.0
"""Time that a connection attempt without a waiting request may take before it is aborted."""

ATTEMPTS = 16
"""Attempts of a connector at one time; others wait, without a limit for connecting. A peer that has
just restarted completes a few handshakes sooner than a hundred.
"""

_NO_LIMIT = aiohttp.ClientTimeout(total=None)

_sockets: ContextVar[dict[socket.socket, int]] = ContextVar("sockets")
"""The sockets of the attempt in progress, and their inodes."""


class Connector(aiohttp.TCPConnector):
    """aiohttp's connector, which leaves no connection open when it is closed.

    aiohttp 3.14 aborts the connections that it holds when its connector is closed. It leaves two
    others open for up to 30 s, in which asyncio and uvloop wait for the peer's close_notify: the
    connection of a cancelled request, and an attempt that is cancelled when the TLS handshake has
    just ended (on uvloop the latter logs an error). Here the first is aborted at once; the second
    is finished and then aborted. Source: `tests/lab/test_connector.py`, which also fails when
    aiohttp closes them.

    uvloop closes the transport under the TLS layer when `create_connection` is cancelled in its
    first turn, and the TLS layer then logs a traceback. Here an attempt that takes too long is not
    cancelled but ends by its socket, as if the peer had closed it.

    Args:
        options: Those of `aiohttp.TCPConnector`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(socket_factory=_keepalive_socket, resolver=Resolver(), **options)
        self._unwanted: set[asyncio.Task[None]] = set()
        self._attempts = asyncio.Semaphore(ATTEMPTS)

    async def _create_connection(self, *args: Any) -> ResponseHandler:
        connecting = asyncio.create_task(super()._create_connection(*args), name="connect")
        try:
            made = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            task = asyncio.create_task(_drop(connecting), name="drop_connection")
            self._unwanted.add(task)
            task.add_done_callback(self._unwanted.discard)
            raise
        finally:
            del connecting  # its exception refers to this frame: a cycle
        made.close = made.abort  # type: ignore[method-assign]  # no close_notify
        return made

    async def _wrap_create_connection(
        self, *args: Any, timeout: aiohttp.ClientTimeout, **named: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        async with self._attempts:
            sockets: dict[socket.socket, int] = {}
            _sockets.set(sockets)
            creating = super()._wrap_create_connection(*args, timeout=_NO_LIMIT, **named)
            attempt = asyncio.create_task(creating, name="connect_socket")
            attempt.add_done_callback(lambda _: _detach_closed(sockets))
            try:
                await asyncio.wait([attempt], timeout=timeout.sock_connect)
                if attempt.done():
                    return attempt.result()
                raise TimeoutError
            except (TimeoutError, asyncio.CancelledError):
                attempt.add_done_callback(_discard)
                shut_down = [sock for sock in sockets if _shut_down(sock)]
                if not shut_down:
                    attempt.cancel()
                await asyncio.wait([attempt])
                raise
            finally:
                del attempt  # as above

    async def connect(self, *args: Any, **named: Any) -> aiohttp.connector.Connection:
        """Return a connection on which the peer has sent nothing since its last answer.

        aiohttp takes what an idle connection received for the answer to the next request.

        Raises:
            aiohttp.ServerDisconnectedError: The peer has sent something; nothing was sent to it.
        """
        connection = await super().connect(*args, **named)
        if connection.protocol is not None and connection.protocol.should_close:
            connection.close()
            raise aiohttp.ServerDisconnectedError
        return connection

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close every connection, also those of cancelled requests; takes up to `GRACE_S`."""
        await super().close(abort_ssl=abort_ssl)
        if self._unwanted:
            await asyncio.wait(self._unwanted)


async def _drop(connecting: asyncio.Task[ResponseHandler]) -> None:
    await asyncio.wait([connecting], timeout=GRACE_S)
    connecting.cancel()
    await asyncio.wait([connecting])
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().abort()


def _discard(attempt: asyncio.Task[tuple[asyncio.Transport, ResponseHandler]]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result()[0].abort()


def _shut_down(sock: socket.socket) -> bool:
    """End a connected socket; return whether it was one."""
    try:
        sock.getpeername()
        # For reading only: the first write of the attempt does not fail; see `_detach_closed`.
        sock.shutdown(socket.SHUT_RD)
    except OSError:
        return False
    return True


def _detach_closed(sockets: Mapping[socket.socket, int]) -> None:
    """Make socket objects forget a descriptor that was closed, which another file may have now.

    Where the first write of a connection fails, as after a reset, uvloop closes the descriptor but
    leaves it in the socket object, which would close the number again.
    """
    for sock, inode in sockets.items():
        try:
            is_open = sock.fileno() == -1 or os.fstat(sock.fileno()).st_ino == inode
        except OSError:
            is_open = False
        if not is_open:
            sock.detach()


def _keepalive_socket(address: Any) -> socket.socket:
    """Make a socket that detects a lost peer in about a minute.

    Source: client-go's HTTP/2 pings detect it in 45 s; HTTP/1.1 has no pings, and load balancers
    drop an idle flow silently after four minutes.
    """
    family, kind, proto, *_ = address
    sock = socket.socket(family, kind, proto)
    _sockets.get()[sock] = os.fstat(sock.fileno()).st_ino
    with suppress(OSError):  # a sandboxed kernel may support none of them
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
