"""Odd tokens: what a header can carry and whose life is known is written, the rest never is."""

import asyncio
import base64
from collections.abc import Mapping

import msgspec
import pytest

from reconciler.clock import EpochTime
from reconciler.tokens.token_response import TokenResponse
from tests.unit.controller.virtual import World, running, simulate

OPAQUE = "obviously-fake.opaque-token.of-some-issuer"


def jwt(header: Mapping[str, object], claims: object) -> str:
    """Return an unsigned JWT with this header."""
    parts = msgspec.json.encode(header), msgspec.json.encode(claims), b"obviously-fake"
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def issue(world: World, value: str, *, expires_in_s: float | None) -> None:
    """Have the issuer give this token from now on, newly valid at each request."""

    async def ask() -> TokenResponse:
        world.issuer.requests += 1
        sent_at = world.clock.monotonic()
        await asyncio.sleep(0.02)
        return TokenResponse(
            value,
            sent_at,
            world.clock.monotonic(),
            expires_in_s=expires_in_s,
            date_s=EpochTime(int(world.clock.wall())),
        )

    world.source._send_request = ask


RS256 = {"alg": "RS256", "typ": "JWT"}
NOW_S = EpochTime(1_767_225_600)


@pytest.mark.parametrize(
    ("value", "warnings"),
    [
        pytest.param(OPAQUE, 0, id="opaque-with-two-dots"),
        pytest.param("eyJ1c2VyIjoxfQ.ZmFrZQ.ZmFrZS1zaWduYXR1cmU", 0, id="a-signed-cookie"),
        pytest.param(jwt(RS256, {"iat": NOW_S, "exp": "soon"}), 1, id="exp-a-word"),
        pytest.param(jwt(RS256, {"iat": NOW_S, "exp": str(NOW_S + 900)}), 1, id="exp-a-string"),
        pytest.param(jwt(RS256, {"iat": NOW_S, "exp": int(NOW_S + 900) * 1000}), 1, id="exp-in-ms"),
        pytest.param(jwt(RS256, {"iat": "x", "exp": None}), 1, id="iat-a-string-no-exp"),
        pytest.param(jwt(RS256, {"sub": "x"}), 0, id="no-exp"),
        pytest.param(jwt(RS256, ["x"]), 1, id="claims-a-list"),
        pytest.param('obviously-fake|token:with"odd{characters}', 1, id="not-b64token"),
    ],
)
def test_an_odd_token_with_a_known_life_is_written_with_one_warning(
    value: str, warnings: int
) -> None:
    async def scenario(world: World) -> None:
        issue(world, value, expires_in_s=900.0)
        world.add("2Ab0")
        async with running(world):
            await asyncio.sleep(5)
            assert world.token("2Ab0") == value
            await asyncio.sleep(1000)
        said = world.events("token_odd")
        assert len(said) == warnings
        assert all(value not in str(line) for line in world.logs)
        assert world.source.stats().last_error == ""
        assert len(world.secret_writes()) <= 5

    simulate(scenario)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("obviously-fake\r\nX-Injected: yes", id="line-end"),
        pytest.param("obviously-fake-token\n", id="line-end-last"),
        pytest.param("obviously-fake\x00token-of-an-issuer", id="nul"),
        pytest.param("obviously-fake\x7ftoken-of-an-issuer", id="delete"),
        pytest.param("obviously-fake\ttoken-of-an-issuer", id="tab"),
        pytest.param("obviously-fake-t\u00f6ken-of-an-issuer", id="not-ascii"),
        pytest.param(" obviously-fake-token-of-an-issuer", id="space-first"),
        pytest.param("Bearer obviously-fake-token-of-an-issuer", id="with-its-scheme"),
        pytest.param("obviously-fake token of an issuer", id="spaces-inside"),
        pytest.param("<html><h1>obviously-fake</h1></html>", id="a-page"),
        pytest.param(jwt(RS256, {"iat": NOW_S}).rpartition(".")[0], id="cut-off"),
    ],
)
def test_what_no_header_can_carry_is_never_written(value: str) -> None:
    async def scenario(world: World) -> None:
        issue(world, value, expires_in_s=900.0)
        world.add("2Ab0")
        async with running(world):
            await asyncio.sleep(60)
        assert world.secret_writes() == []
        assert all(value not in str(line) for line in world.logs)

    simulate(scenario)


def test_unreadable_claims_without_expires_in_leave_no_life_to_believe() -> None:
    async def scenario(world: World) -> None:
        issue(world, jwt(RS256, {"iat": NOW_S, "exp": "soon"}), expires_in_s=None)
        world.add("2Ab0")
        async with running(world):
            await asyncio.sleep(60)
        assert world.secret_writes() == []
        assert "(malformed)" in world.source.stats().last_error

    simulate(scenario)
