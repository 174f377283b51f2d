"""Issuer and platform get the trace ID of a request; without a trace they get none."""

from random import Random

import aiohttp
import pytest

from reconciler.errors import IssuerError, PlatformError
from reconciler.telemetry.trace import Tracer, span
from reconciler.tokens.oidc import ClientCredentials, TokenEndpoint
from tests.lab.platform_client import client_of, projects
from tests.lab.scripted_server import answer, scripted
from tests.support import ManualClock


async def test_the_request_to_the_issuer_names_the_step_that_asks() -> None:
    clock = ManualClock()
    tracer = Tracer(clock, Random(1))
    async with scripted(*[answer(500)] * 2) as issuer, aiohttp.ClientSession() as session:
        endpoint = TokenEndpoint(
            f"{issuer.url}/token?tenant=hidden",
            session=session,
            credentials=lambda: ClientCredentials("fake-id", "obviously-fake-secret"),
            clock=clock,
        )
        with tracer.begin("reconcile") as trace, span("token_request"), pytest.raises(IssuerError):
            await endpoint.request_token()
        with pytest.raises(IssuerError):
            await endpoint.request_token()
    [mint, post] = trace.spans
    assert post.parent is mint
    assert (post.name, post.url, post.status) == ("POST", f"{issuer.url}/token", 500)
    inside, outside = issuer.requests
    assert inside.headers["traceparent"] == f"00-{trace.hex_id}-{post.span_id:016x}-00"
    assert "traceparent" not in outside.headers


async def test_the_request_to_the_platform_names_the_page_that_is_asked_for() -> None:
    tracer = Tracer(ManualClock(), Random(1))
    tracer.on_end(lambda trace: None)
    async with scripted(*[answer(404)] * 2) as platform, client_of(platform.url) as client:
        with tracer.begin("resync") as trace, pytest.raises(PlatformError):
            await projects(client)
        with pytest.raises(PlatformError):
            await projects(client)
    [page] = trace.spans
    assert (page.name, page.status) == ("GET", 404)
    assert "/api/ambient/v1/projects?" in page.url
    inside, outside = platform.requests
    assert inside.headers["traceparent"] == f"00-{trace.hex_id}-{page.span_id:016x}-01"
    assert "traceparent" not in outside.headers
