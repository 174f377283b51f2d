"""Answers of issuer and platform that are large, compressed or with a BOM, and their messages."""

import json

import pytest

from reconciler.clock import SystemClock
from reconciler.errors import IssuerUnavailable
from reconciler.net.client_pool import MAX_HEADER_BYTES, MAX_HEADERS
from reconciler.net.client_session import BIG_HEADERS, ENCODED, open_session
from reconciler.platform.models import PlatformProject, decode
from reconciler.tokens.oidc import ClientCredentials, TokenEndpoint
from tests.lab.scripted_server import Turn, answer, scripted

TOKEN = "obviously-fake-opaque-token-of-an-issuer"
BODY = json.dumps({"access_token": TOKEN, "expires_in": 900}).encode()
BOM = b"\xef\xbb\xbf"


async def ask(turn: Turn) -> str:
    """Return the token that an issuer gives with this answer."""
    async with scripted(turn) as issuer, open_session(issuer.url, SystemClock()) as session:
        endpoint = TokenEndpoint(
            f"{issuer.url}/token",
            session=session,
            credentials=lambda: ClientCredentials("fake-client", "obviously-fake"),
            clock=SystemClock(),
        )
        return (await endpoint.request_token()).value


@pytest.mark.parametrize(
    "turn",
    [
        answer(200, BODY, headers=f"Set-Cookie: {'a' * (MAX_HEADER_BYTES - 1000)}\r\n"),
        answer(200, BODY, headers="".join(f"X-{n}: a\r\n" for n in range(MAX_HEADERS - 10))),
        answer(200, BOM + BODY),
        answer(200, BODY, headers="Content-Encoding: identity\r\n"),
    ],
    ids=["long header", "many headers", "byte order mark", "not compressed"],
)
async def test_an_answer_that_is_odd_and_whole_is_taken(turn: Turn) -> None:
    assert await ask(turn) == TOKEN


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (answer(200, BODY, headers=f"X: {'a' * (MAX_HEADER_BYTES + 1)}\r\n"), BIG_HEADERS),
        (
            answer(200, BODY, headers="".join(f"X-{n}: a\r\n" for n in range(MAX_HEADERS + 1))),
            BIG_HEADERS,
        ),
        *(
            (answer(200, BODY, headers=f"Content-Encoding: {encoding}\r\n"), ENCODED)
            for encoding in ("gzip", "br", "zstd", "deflate")
        ),
    ],
)
async def test_an_answer_that_is_too_odd_is_named_by_its_cause(turn: Turn, words: str) -> None:
    with pytest.raises(IssuerUnavailable, match="token request to") as caught:
        await ask(turn)
    assert words in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_the_platforms_words_may_have_a_byte_order_mark() -> None:
    assert decode(PlatformProject, BOM + b'{"id": "team-a"}').id == "team-a"
