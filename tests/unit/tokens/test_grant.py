"""From an answer to a token: how old it is, and what is not one."""

import pytest

from reconciler.errors import TokenUnusable
from reconciler.tokens.grant import Grant, token_of
from tests.unit.tokens.support import jwt

NOW_S = 1_767_225_600.0
VALUE = jwt(iat=NOW_S - 100, exp=NOW_S + 800)


def _grant(
    value: str = VALUE,
    *,
    date_s: float | None = None,
    expires_in_s: float | None = None,
    token_type: str = "Bearer",
) -> Grant:
    return Grant(
        value,
        sent_at=9.0,
        received_at=10.0,
        token_type=token_type,
        expires_in_s=expires_in_s,
        date_s=date_s,
    )


@pytest.mark.parametrize(
    ("date_s", "expires_in_s", "remaining_s"),
    [
        pytest.param(NOW_S, 900.0, 800.0, id="date-less-iat"),
        pytest.param(NOW_S - 5000, 900.0, 900.0, id="date-before-iat-counts-as-new"),
        pytest.param(None, 700.0, 700.0, id="no-date-expires-in-says"),
        pytest.param(None, 1000.0, 900.0, id="never-longer-than-its-own-life"),
        pytest.param(None, None, 850.0, id="neither-our-idea-of-the-time"),
    ],
)
def test_age_at_receipt_comes_from_the_best_witness(
    date_s: float | None, expires_in_s: float | None, remaining_s: float
) -> None:
    grant = _grant(date_s=date_s, expires_in_s=expires_in_s)
    assert token_of(grant, now_s=NOW_S - 50).remaining_s(10.0) == remaining_s


@pytest.mark.parametrize(
    "grant",
    [
        pytest.param(_grant(date_s=NOW_S + 800), id="by-the-date"),
        pytest.param(_grant(expires_in_s=0.0), id="by-expires-in"),
        pytest.param(_grant(), id="by-our-idea-of-the-time"),
    ],
)
def test_a_token_that_is_dead_on_arrival_is_expired(grant: Grant) -> None:
    with pytest.raises(TokenUnusable) as caught:
        token_of(grant, now_s=NOW_S + 800)
    assert caught.value.reason == "expired"


def test_an_opaque_token_lives_from_the_date_for_expires_in() -> None:
    grant = _grant("an-opaque-token-of-some-issuer", date_s=NOW_S, expires_in_s=300.0)
    token = token_of(grant, now_s=0.0)
    assert (token.issued_s, token.expires_s) == (NOW_S, NOW_S + 300)
    assert token.remaining_s(10.0) == 300.0


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER", ""])
def test_bearer_is_bearer_in_any_case(token_type: str) -> None:
    assert token_of(_grant(token_type=token_type), now_s=NOW_S).reveal() == VALUE


@pytest.mark.parametrize("token_type", ["DPoP", "mac", "N_A", "Bearer "])
def test_any_other_type_is_not_bearer(token_type: str) -> None:
    with pytest.raises(TokenUnusable) as caught:
        token_of(_grant(token_type=token_type), now_s=NOW_S)
    assert caught.value.reason == "not_bearer"


def test_a_grant_does_not_show_its_value() -> None:
    assert VALUE not in repr(_grant())
