"""Certificates that are rotated under each of our four clients: no restart, no gap, one line."""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler.breaker import Breaker
from reconciler.errors import RemoteError
from reconciler.http import open_session
from reconciler.kube.client import HttpKube
from reconciler.kube.credentials import InClusterCredentials, find_credentials
from reconciler.names import Names
from reconciler.observe.otlp import metric_sender, span_sender
from reconciler.platform.client import PlatformClient
from reconciler.rotation import LOOK_S
from reconciler.tokens.oidc import Credentials, TokenEndpoint
from tests.lab.scripted_server import Scripted, answer, scripted
from tests.lab.tls import Certificate, make_certificate, serving
from tests.support import ManualClock
from tests.unit.tokens.support import jwt

TOKEN = "obviously-fake-token-of-ours"
MANY = 1000

BODY = json.dumps(
    {
        "access_token": jwt(iat=1_767_225_600, exp=1_767_226_500),
        "token_type": "Bearer",
        "expires_in": 900,
        "items": [],
        "page": 1,
        "size": 0,
        "total": 0,
    }
).encode()
"""What pleases each of the clients."""

Ask = Callable[[], Awaitable[bool]]
"""Sends one request on a connection of its own and returns whether it was answered."""


@dataclass
class Peer:
    """A server over TLS, the bundle by which we believe it, and one client of it."""

    server: Scripted
    tls: ssl.SSLContext
    bundle: Path
    clock: ManualClock
    ask: Ask

    async def later(self) -> bool:
        """Let time pass for two looks at the files, and return whether the second was answered."""
        self.clock.advance(LOOK_S)
        await self.ask()
        self.clock.advance(LOOK_S)
        return await self.ask()


@asynccontextmanager
async def _issuer(url: str, bundle: Path, clock: ManualClock) -> AsyncIterator[Ask]:
    async with open_session(url, clock, what="issuer") as session:
        endpoint = TokenEndpoint(
            f"{url}/token",
            session=session,
            credentials=lambda: Credentials("fake-id", TOKEN),
            clock=clock,
        )
        yield lambda: _is_answered(endpoint.ask)


@asynccontextmanager
async def _platform(url: str, bundle: Path, clock: ManualClock) -> AsyncIterator[Ask]:
    async def bearer(_: bool) -> str:
        return TOKEN

    async with open_session(url, clock, what="platform") as session:
        breaker = Breaker("platform", clock, Random(1))
        client = PlatformClient(session, url, bearer, clock, breaker)
        yield lambda: _is_answered(client.probe)


@asynccontextmanager
async def _pod(url: str, bundle: Path, clock: ManualClock) -> AsyncIterator[Ask]:
    (bundle.parent / "token").write_text(TOKEN)
    os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"] = url.removeprefix(
        "https://"
    ).split(":")
    credentials = InClusterCredentials(clock, folder=bundle.parent)
    async with HttpKube(credentials, Names(), connections=2) as kube:
        yield lambda: _is_answered(kube.ready)


@asynccontextmanager
async def _kubeconfig(url: str, bundle: Path, clock: ManualClock) -> AsyncIterator[Ask]:
    path = bundle.parent / "config"
    path.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [
                    {"name": "k", "cluster": {"server": url, "certificate-authority": str(bundle)}}
                ],
                "users": [{"name": "u", "user": {"token": TOKEN}}],
            }
        )
    )
    async with HttpKube(find_credentials(str(path), clock), Names(), connections=2) as kube:
        yield lambda: _is_answered(kube.ready)


def _otlp(*, named: bool, traces: bool) -> Callable[..., object]:
    @asynccontextmanager
    async def opened(url: str, bundle: Path, clock: ManualClock) -> AsyncIterator[Ask]:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
        if named:
            os.environ["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(bundle)
        os.environ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "0.3"
        send: Callable[[Any], bool] = (
            span_sender("r", os.environ, clock) if traces else metric_sender("r", os.environ, clock)
        )
        batch: list[Any] = [] if traces else [[]]

        async def ask() -> bool:
            return await asyncio.to_thread(send, batch)

        yield ask

    return opened


async def _is_answered(ask: Callable[[], Awaitable[object]]) -> bool:
    try:
        await ask()
    except RemoteError:
        return False
    return True


CLIENTS = {
    "issuer": _issuer,
    "platform": _platform,
    "kube, in a pod": _pod,
    "kube, kubeconfig": _kubeconfig,
    "otlp, traces": _otlp(named=True, traces=True),
    "otlp, metrics": _otlp(named=False, traces=False),
}


@pytest.fixture
def first(tmp_path: Path) -> Certificate:
    return _certificate(tmp_path / "first")


@pytest.fixture
def second(tmp_path: Path) -> Certificate:
    return _certificate(tmp_path / "second")


def _certificate(folder: Path) -> Certificate:
    folder.mkdir()
    return make_certificate(folder)


@pytest.fixture(params=CLIENTS)
async def peer(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    first: Certificate,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Peer]:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.setenv(name, "")
    for name in ("ENDPOINT", "CERTIFICATE", "TIMEOUT"):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", "")
    bundle = tmp_path / "ca.crt"
    bundle.write_bytes(first[0].read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "nowhere"))
    tls, clock = serving(first), ManualClock()
    turns = [answer(200, BODY, headers="Connection: close\r\n")] * MANY
    async with (
        scripted(*turns, tls=tls) as server,
        CLIENTS[request.param](server.url, bundle, clock) as ask,  # type: ignore[attr-defined]
    ):
        yield Peer(server, tls, bundle, clock, ask)


async def test_a_rotated_ca_is_read_again_and_the_old_one_no_more_believed(
    peer: Peer, first: Certificate, second: Certificate
) -> None:
    assert await peer.ask()
    peer.bundle.write_bytes(second[0].read_bytes())
    peer.tls.load_cert_chain(*second)
    with capture_logs() as lines:
        assert await peer.later()
    assert [line["event"] for line in lines if "rotated" in line["event"]] == ["rotated_file_read"]
    heard = len(peer.server.requests)
    peer.tls.load_cert_chain(*first)
    assert not await peer.later()
    assert len(peer.server.requests) == heard


@pytest.mark.parametrize("half", [b"", b"#\n", None, "cut"], ids=["empty", "text", "gone", "cut"])
async def test_a_bundle_that_is_half_written_keeps_the_last_good_one_with_one_line(
    peer: Peer, half: bytes | str | None, second: Certificate
) -> None:
    assert await peer.ask()
    whole = peer.bundle.read_bytes()
    with capture_logs() as lines:
        if half is None:
            peer.bundle.unlink()
        else:
            cut = second[0].read_bytes() + second[0].read_bytes()[:300]
            peer.bundle.write_bytes(cut if isinstance(half, str) else half)
        for _ in range(3):
            assert await peer.later()
        [kept] = [line for line in lines if "rotated" in line["event"]]
        assert (kept["event"], kept["log_level"]) == ("rotated_file_kept", "warning")
        assert str(peer.bundle) in kept["why"]
        peer.bundle.write_bytes(whole + second[0].read_bytes())
        peer.tls.load_cert_chain(*second)
        assert await peer.later()
