"""Our four clients of a server over TLS, with a CA bundle in a file."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from reconciler.errors import RemoteError
from reconciler.kube.auth.credentials import InClusterCredentials, find_credentials
from reconciler.kube.client import HttpKube
from reconciler.naming import Names
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.net.client_session import open_session
from reconciler.platform.client import PlatformClient
from reconciler.telemetry.otlp import span_sender
from reconciler.tokens.oidc import ClientCredentials, TokenEndpoint
from tests.support import ManualClock
from tests.unit.tokens.support import jwt

TOKEN = "obviously-fake-token-of-ours"
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
"""A valid answer for each of the clients."""

Ask = Callable[[], Awaitable[bool]]
"""Sends one request on a new connection and returns whether it was answered."""


Opening = Callable[[str, Path, ManualClock], AbstractAsyncContextManager[Ask]]
"""Opens a client of the server at a URL."""


@asynccontextmanager
async def _issuer(url: str, bundle: Path, clock: ManualClock) -> AsyncIterator[Ask]:
    async with open_session(url, clock, what="issuer") as session:
        endpoint = TokenEndpoint(
            f"{url}/token",
            session=session,
            credentials=lambda: ClientCredentials("fake-id", TOKEN),
            clock=clock,
        )
        yield lambda: _is_answered(endpoint.request_token)


@asynccontextmanager
async def _platform(url: str, bundle: Path, clock: ManualClock) -> AsyncIterator[Ask]:
    async def bearer(_: bool) -> str:
        return TOKEN

    async with open_session(url, clock, what="platform") as session:
        breaker = CircuitBreaker("platform", clock, Random(1))
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


def _otlp(*, named: bool) -> Opening:
    @asynccontextmanager
    async def opened(url: str, bundle: Path, clock: ManualClock) -> AsyncIterator[Ask]:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
        if named:
            os.environ["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(bundle)
        os.environ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "0.3"
        send = span_sender("r", os.environ, clock)

        async def ask() -> bool:
            return await asyncio.to_thread(send, [])

        try:
            yield ask
        finally:
            await asyncio.to_thread(send.close)

    return opened


async def _is_answered(ask: Callable[[], Awaitable[object]]) -> bool:
    try:
        await ask()
    except RemoteError:
        return False
    return True


CLIENTS: dict[str, Opening] = {
    "issuer": _issuer,
    "platform": _platform,
    "kube, in a pod": _pod,
    "kube, kubeconfig": _kubeconfig,
    "otlp, bundle named": _otlp(named=True),
    "otlp, bundle of the system": _otlp(named=False),
}


def believe(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a bundle the only CAs of OpenSSL, and restore the environment afterwards."""
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.setenv(name, "")
    for name in ("ENDPOINT", "CERTIFICATE", "TIMEOUT", "HEADERS"):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", "")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(bundle.parent / "nowhere"))
