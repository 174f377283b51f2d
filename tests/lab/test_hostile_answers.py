"""Answers without end, and changed answers of every peer: bounded memory, and our errors alone."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
import requests

from reconciler.clock import SystemClock
from reconciler.errors import (
    IssuerError,
    KubeError,
    PlatformError,
    ProtocolError,
    TransportError,
)
from reconciler.kube.requests import MAX_OBJECT_BYTES
from reconciler.kube.watch import MAX_LINE_BYTES
from reconciler.net.client_session import Peer as OtlpPeer
from reconciler.net.client_session import open_session
from reconciler.telemetry.otlp_adapter import BoundedAdapter
from reconciler.tokens.oidc import ClientCredentials, TokenEndpoint
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import CORPUS
from tests.lab.platform_client import client_of
from tests.lab.scripted_server import Peer, Turn, answer, raw, scripted
from tests.lab.test_kube_client import ALL, OBJECT, SECRETS, ask, connected
from tests.memory import measured

CHUNK = b"x" * 65536
TIMES = 100
"""Changed answers of each peer."""

LIMIT_S = 60.0


def endless(status: int = 200, chunk: bytes = CHUNK) -> Turn:
    """Answer with a body that does not end."""

    async def turn(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n" % status)
        while True:
            await peer.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    return turn


@pytest.mark.parametrize("verb", ["get", "create", "patch"])
async def test_of_an_answer_without_end_a_bounded_part_is_read(verb: str) -> None:
    async with connected(endless(), answer(200, OBJECT)) as (kube, _, _):
        with measured() as memory, pytest.raises(TransportError, match="too long"):
            await ask(kube, verb)
        assert memory.peak < 2 * MAX_OBJECT_BYTES
        await ask(kube, verb)


async def test_of_a_refused_watch_without_end_a_bounded_part_is_read() -> None:
    async with connected(endless(500)) as (kube, _, _):
        with measured() as memory, pytest.raises(TransportError, match="too long"):
            async with kube.watch(SECRETS, ALL, version="1", timeout_s=9):
                pass
    assert memory.peak < 2 * MAX_OBJECT_BYTES


async def test_a_watch_line_without_end_is_refused() -> None:
    async with (
        connected(endless()) as (kube, _, _),
        kube.watch(SECRETS, ALL, version="1", timeout_s=9) as watch,
    ):
        with measured() as memory, pytest.raises(ProtocolError, match="longer than any object"):
            await watch.receive(idle_s=LIMIT_S)
    assert memory.peak < 3 * MAX_LINE_BYTES


Ask = Callable[[str], Awaitable[object]]


async def ask_issuer(url: str) -> object:
    async with open_session(url, SystemClock()) as session:
        endpoint = TokenEndpoint(
            f"{url}/token",
            session=session,
            credentials=lambda: ClientCredentials("fake-client", "obviously-fake"),
            clock=SystemClock(),
        )
        return await endpoint.request_token()


async def ask_platform(url: str) -> object:
    async with client_of(url) as client:
        return await client.session("2abcDEF", "team-a")


async def export(url: str) -> object:
    request = requests.Request("POST", f"{url}/v1/traces", data=b"x").prepare()

    def send() -> object:
        adapter = BoundedAdapter(OtlpPeer(url, SystemClock()), 5.0)
        try:
            return adapter.send(request)
        finally:
            adapter.close()

    return await asyncio.to_thread(send)


@pytest.mark.parametrize(
    ("peer", "ask_peer", "errors"),
    [
        ("issuer", ask_issuer, (IssuerError,)),
        ("platform", ask_platform, (PlatformError,)),
        ("collector", export, (requests.RequestException,)),
    ],
)
async def test_a_changed_answer_raises_what_the_client_documents(
    peer: str, ask_peer: Ask, errors: tuple[type[Exception], ...]
) -> None:
    sample = (CORPUS.parent / "http" / peer).read_bytes()
    random, failed = Random(peer), 0
    for _ in range(TIMES):
        data = mutated(sample, random)
        async with scripted(*[raw(data)] * 4) as server:
            try:
                await ask_peer(server.url)
            except errors:
                failed += 1
    assert 0 < failed < TIMES


@pytest.mark.parametrize("verb", ["get", "list", "create", "patch", "watch"])
async def test_a_changed_answer_of_the_api_server_raises_our_errors_alone(verb: str) -> None:
    sample = (CORPUS.parent / "http" / ("watch" if verb == "watch" else "api_server")).read_bytes()
    random, failed = Random(verb), 0
    for _ in range(TIMES):
        async with connected(*[raw(mutated(sample, random))] * 4) as (kube, _, _):
            try:
                if verb != "watch":
                    await ask(kube, verb)
                    continue
                async with kube.watch(SECRETS, ALL, version="1", timeout_s=9) as watch:
                    while await watch.receive(idle_s=LIMIT_S) is not None:
                        pass
            except (KubeError, ProtocolError):
                failed += 1
    assert 0 < failed < TIMES
