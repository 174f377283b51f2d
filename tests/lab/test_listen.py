"""Connections to our port: who can connect, and how long one may stay without a request."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from reconciler.lab.cluster.ports import free_port
from reconciler.telemetry.http_server import serve_health

LIMIT_S = 20.0


@asynccontextmanager
async def served(host: str, *, first_request_s: float = 10.0) -> AsyncIterator[int]:
    port = free_port()
    async with serve_health(
        f"{host}:{port}", live=lambda: "", ready=lambda: "", first_request_s=first_request_s
    ):
        yield port


async def is_closed(reader: asyncio.StreamReader) -> None:
    """Return when the server has closed the connection without an answer."""
    async with asyncio.timeout(LIMIT_S):
        try:
            assert await reader.read(1000) == b""
        except ConnectionResetError:
            return


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTT", b"GET /livez HTTP/1.1\r\nHost: x\r\n"])
async def test_a_connection_without_a_whole_request_is_closed(sent: bytes) -> None:
    async with served("127.0.0.1", first_request_s=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await is_closed(reader)
        writer.close()


async def test_a_connection_that_has_sent_a_request_is_kept_for_the_next() -> None:
    async with served("127.0.0.1", first_request_s=0.2) as port:
        idle_reader, idle = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"ok\n")
        # The limit has passed for certain once it has closed a connection that sent nothing.
        await is_closed(idle_reader)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"ok\n")
        for one in (idle, writer):
            one.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_an_ipv6_wildcard_takes_ipv4_too() -> None:
    async with served("[::]") as port, aiohttp.ClientSession() as http:
        for host in ("127.0.0.1", "[::1]"):
            async with http.get(f"http://{host}:{port}/livez") as answer:
                assert answer.status == 200
