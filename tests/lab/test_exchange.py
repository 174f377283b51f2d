"""Requests on aiohttp's connections: what arrives, once, and by which way."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from multidict import CIMultiDict

from reconciler.net.client_pool import ClientPool, Connection, PooledClient
from reconciler.net.exchange import Answer
from tests.lab.scripted_server import Peer, answer, raw, scripted, silence
from tests.lab.tls import make_certificate, serving


class Fixed:
    """A peer whose address and TLS never change."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def version(self, *, fresh: bool = False) -> str:
        return self._connection.identity

    async def connection(self) -> Connection:
        return self._connection


@asynccontextmanager
async def client_of(connection: Connection) -> AsyncIterator[PooledClient]:
    headers = {"User-Agent": "a-test/1"}
    async with ClientPool(Fixed(connection), what="", connections=1, headers=headers) as pool:
        yield await pool.open()


def to(url: str) -> Connection:
    return Connection(url, None, None, "one")


async def patch(client: PooledClient, target: str = "/api/x?y=%20") -> Answer:
    headers = CIMultiDict(
        [("Accept", "a/b"), ("Impersonate-Group", "g"), ("Impersonate-Group", "h")]
    )
    return await client.exchanges.send("PATCH", target, headers, b"{}", max_bytes=2**20)


async def test_every_byte_of_a_request_is_as_prepared() -> None:
    async with scripted(answer(201, b"[]", headers="X-Y: z\r\n")) as server:
        async with client_of(to(f"{server.url}/k8s/c1")) as client:
            found = await patch(client)
        assert (found.status, found.headers["x-y"], found.body) == (201, "z", b"[]")
        lines = server.raw.decode().split("\r\n")
    assert lines == [
        "PATCH /k8s/c1/api/x?y=%20 HTTP/1.1",
        "Content-Length: 2",
        f"Host: {server.url.removeprefix('http://')}",
        "User-Agent: a-test/1",
        "Accept-Encoding: gzip, deflate",
        "Accept: a/b",
        "Impersonate-Group: g",
        "Impersonate-Group: h",
        "",
        "{}",
    ]


async def test_an_informational_answer_is_not_the_answer() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with scripted(raw(early + final)) as server, client_of(to(server.url)) as client:
        assert (await patch(client)).body == b"ok"


async def test_a_header_with_a_line_break_sends_nothing() -> None:
    async with scripted(answer()) as server, client_of(to(server.url)) as client:
        for value in ("a\r\nB: c", "a\nb", "a\rb", "a\0b"):
            with pytest.raises(ValueError, match="line break"):
                await client.exchanges.send("PATCH", "/", {"Accept": value}, b"{}", max_bytes=0)
        assert server.requests == []


async def test_a_target_that_is_not_encoded_sends_nothing() -> None:
    async with scripted(answer()) as server, client_of(to(server.url)) as client:
        for target in ("/a b", "/a HTTP/1.1\r\nB: c\r\nD: ", "/a\n", "/a\0", "/\u00e9"):
            with pytest.raises(ValueError, match="not encoded"):
                await patch(client, target)
        assert server.requests == []


@pytest.mark.parametrize("method", ["PATCH", "GET"])
async def test_an_answer_to_no_request_is_not_the_next_ones(method: str) -> None:
    arrived = asyncio.Event()

    async def twice(peer: Peer) -> None:
        await answer(body=b"first")(peer)
        await arrived.wait()
        await answer(body=b"extra")(peer)

    third = answer(body=b"third")
    async with scripted(twice, third) as server, client_of(to(server.url)) as client:
        await patch(client)
        [waiting] = client.session.connector._conns.values()  # type: ignore[union-attr]
        arrived.set()
        while not waiting[0][0].should_close:
            await asyncio.sleep(0)
        if method == "PATCH":
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await patch(client)
            assert (await patch(client)).body == b"third"
        else:  # aiohttp's session asks again by itself
            async with client.session.get(server.url) as response:
                assert await response.read() == b"third"


async def test_a_lost_connection_is_an_error_and_no_request_is_sent_again() -> None:
    async def reset(peer: Peer) -> None:
        peer.reset()

    async with scripted(answer(), reset, answer()) as server, client_of(to(server.url)) as client:
        await patch(client, "/one")
        with pytest.raises(aiohttp.ClientError):
            await patch(client, "/two")
        await patch(client, "/three")
        assert [each.line.split()[1] for each in server.requests] == ["/one", "/two", "/three"]


async def test_a_cancelled_request_gives_up_its_connection() -> None:
    async with scripted(silence(), answer()) as server, client_of(to(server.url)) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await patch(client)
        assert (await patch(client)).status == 200  # the pool has one connection


async def test_a_proxy_without_a_tunnel_gets_the_whole_url_and_its_password() -> None:
    async with scripted(answer()) as proxy:
        by_proxy = replace(to("http://api.example"), proxy=proxy.url.replace("//", "//u:p@"))
        async with client_of(by_proxy) as client:
            await patch(client, "/x")
        [request] = proxy.requests
        assert proxy.raw.count(b"\r\nProxy-Authorization: ") == 1
    assert request.line == "PATCH http://api.example/x HTTP/1.1"
    assert request.headers["host"] == "api.example"
    assert request.headers["proxy-authorization"] == "Basic dTpw"


async def test_a_tunnel_of_a_proxy_hides_the_request(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, name="DNS:localhost")
    trusted = ssl.create_default_context(cafile=certificate[0])
    async with scripted(answer(200, b"in"), tls=serving(certificate)) as server:
        asked: list[bytes] = []

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            port = int(server.url.rpartition(":")[2])
            far = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_copy(reader, far[1]), _copy(far[0], writer))

        async with await asyncio.start_server(relay, "127.0.0.1", 0) as proxy:
            port = proxy.sockets[0].getsockname()[1]
            found = Connection(
                "https://localhost:1", trusted, f"http://127.0.0.1:{port}", "one", None
            )
            async with client_of(found) as client:
                assert (await patch(client, "/x")).body == b"in"
        assert [each.line for each in server.requests] == ["PATCH /x HTTP/1.1"]
    assert asked[0].startswith(b"CONNECT localhost:1 ")
    assert b"Impersonate" not in asked[0]


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
    finally:
        target.close()
