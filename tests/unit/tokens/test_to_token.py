"""From a response to a token: its age, and what is not a token."""

import pytest

from reconciler.clock import EpochTime, Instant
from reconciler.errors import InvalidToken
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.oidc import ClientCredentials
from reconciler.tokens.token import Token
from reconciler.tokens.token_response import TokenResponse, to_token
from tests.support import ManualClock
from tests.unit.tokens.support import jwt

NOW_S = EpochTime(1_767_225_600)
VALUE = jwt(iat=NOW_S - 100, exp=NOW_S + 800)


def _response(
    value: str = VALUE,
    *,
    date_s: EpochTime | None = None,
    expires_in_s: float | None = None,
    token_type: str = "Bearer",
) -> TokenResponse:
    return TokenResponse(
        value,
        sent_at=Instant(9),
        received_at=Instant(10),
        token_type=token_type,
        expires_in_s=expires_in_s,
        date_s=date_s,
    )


def _token(response: TokenResponse, *, wall_s: EpochTime = NOW_S) -> Token:
    """Return the token of the first response on a machine with this wall clock."""
    issuer_time = IssuerTime(ManualClock(response.received_at, wall_s))
    return to_token(response, now_s=issuer_time.observe(response.times, response.date_s))


@pytest.mark.parametrize(
    ("date_s", "expires_in_s", "wall_s", "remaining_s"),
    [
        pytest.param(NOW_S, 800.0, NOW_S, 800.0, id="all-agree-that-it-is-100-s-old"),
        pytest.param(NOW_S, 900.0, NOW_S, 800.0, id="date-and-wall-against-a-cached-body"),
        pytest.param(NOW_S, 900.0, NOW_S - 100, 900.0, id="body-and-wall-against-the-date"),
        pytest.param(NOW_S + 9e5, 900.0, NOW_S - 100, 900.0, id="however-far-ahead-the-date-is"),
        pytest.param(NOW_S, 900.0, NOW_S - 50, 900.0, id="three-that-differ-the-body"),
        pytest.param(NOW_S - 5000, 900.0, NOW_S, 900.0, id="a-date-before-iat-is-out"),
        pytest.param(None, 900.0, NOW_S + 9e5, 900.0, id="the-body-against-the-wall"),
        pytest.param(None, 700.0, NOW_S, 700.0, id="no-date-expires-in-says"),
        pytest.param(None, 1000.0, NOW_S - 100, 900.0, id="never-longer-than-its-own-life"),
        pytest.param(NOW_S, None, NOW_S, 800.0, id="no-expires-in-date-and-wall-say"),
        pytest.param(NOW_S, 0.0, NOW_S, 800.0, id="an-expires-in-that-all-contradict"),
    ],
)
def test_age_at_receipt_is_what_most_sources_say(
    date_s: EpochTime | None, expires_in_s: float | None, wall_s: EpochTime, remaining_s: float
) -> None:
    response = _response(date_s=date_s, expires_in_s=expires_in_s)
    assert _token(response, wall_s=wall_s).remaining_s(Instant(10)) == remaining_s


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(_response(date_s=NOW_S + 800), id="by-date-and-wall"),
        pytest.param(_response(expires_in_s=0.0), id="by-expires-in"),
    ],
)
def test_a_token_that_is_expired_when_it_arrives_is_refused(response: TokenResponse) -> None:
    with pytest.raises(InvalidToken) as caught:
        _token(response, wall_s=NOW_S + 800)
    assert caught.value.reason == "expired"


def test_an_opaque_token_lives_from_the_date_for_expires_in() -> None:
    response = _response("an-opaque-token-of-some-issuer", date_s=NOW_S, expires_in_s=300.0)
    token = _token(response, wall_s=EpochTime(0))
    assert (token.issued_s, token.expires_s) == (NOW_S, NOW_S + 300)
    assert token.remaining_s(Instant(10)) == 300.0


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER", ""])
def test_bearer_is_accepted_in_any_case(token_type: str) -> None:
    assert to_token(_response(token_type=token_type), now_s=NOW_S).reveal() == VALUE


@pytest.mark.parametrize("token_type", ["DPoP", "mac", "N_A", "Bearer "])
def test_any_other_type_is_not_bearer(token_type: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        to_token(_response(token_type=token_type), now_s=NOW_S)
    assert caught.value.reason == "not_bearer"


def test_a_response_does_not_show_its_value() -> None:
    assert VALUE not in repr(_response())


def test_client_credentials_show_no_secret() -> None:
    shown = repr(ClientCredentials("fake-id", "obviously-fake-secret"))
    assert "fake-id" in shown
    assert "obviously-fake-secret" not in shown
