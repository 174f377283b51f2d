"""Reading `exp` and `iat`: a table of what breaks, and properties over any bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import EpochTime
from reconciler.errors import InvalidToken
from reconciler.tokens.claims import MAX_TOKEN_BYTES, Claims, read_claims
from reconciler.tokens.token_response import MAX_TTL_S, lifetime
from tests.unit.tokens.support import jwt, jwt_of

NOW_S = EpochTime(1_767_225_600)
OPAQUE = "ya29.an-opaque-token-of-some-issuer"


@pytest.mark.parametrize(
    ("value", "claims"),
    [
        pytest.param(jwt(iat=10, exp=20), Claims(EpochTime(10), EpochTime(20)), id="integers"),
        pytest.param(
            jwt(iat=10.25, exp=20.5), Claims(EpochTime(10.25), EpochTime(20.5)), id="fractions"
        ),
        pytest.param(jwt(exp=20), Claims(None, EpochTime(20)), id="no-iat"),
        pytest.param(jwt(iat=10), Claims(EpochTime(10), None), id="no-exp"),
        pytest.param(jwt(sub="x", realm_access={"roles": ["a"]}), Claims(), id="neither"),
        pytest.param(jwt(iat=None, exp=None), Claims(), id="null"),
        pytest.param(OPAQUE, Claims(), id="opaque"),
        pytest.param("eyJhbGciOiJSU0EtT0FFUCJ9.k.iv.text.tag", Claims(), id="encrypted"),
        pytest.param("b64-of-something-else====", Claims(), id="padded"),
        pytest.param("aaaaaaaaa.a.aaaaaaaaaaaaa", Claims(), id="opaque-with-two-dots"),
        pytest.param("eyJ1c2VyIjoxfQ.ZmFrZQ.ZmFrZS1zaWc", Claims(), id="a-header-without-alg"),
        pytest.param("eyJpdiI6ImZha2UiLCJtYWMiOiJ4In0", Claims(), id="json-in-one-part"),
    ],
)
def test_claims_are_read_as_the_token_says(value: str, claims: Claims) -> None:
    assert read_claims(value) == claims


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param("", "malformed", id="empty"),
        pytest.param("short.token", "malformed", id="shorter-than-the-platform-takes"),
        pytest.param("x" * (MAX_TOKEN_BYTES + 1), "huge", id="huge"),
        pytest.param("<html><body>log in</body></html>", "malformed", id="html"),
        pytest.param(OPAQUE + "\n", "malformed", id="line-end"),
        pytest.param(OPAQUE + "\u00e9", "malformed", id="not-ascii"),
        pytest.param(jwt(iat=10, exp=20).rpartition(".")[0], "malformed", id="cut-off"),
        pytest.param("eyJhbGciOiJSUzI1NiJ9eyJ", "malformed", id="cut-off-in-the-header"),
        pytest.param(jwt_of(b"not json at all"), "malformed", id="claims-not-json"),
        pytest.param(jwt_of(b"[1, 2]"), "malformed", id="claims-a-list"),
        pytest.param(jwt_of(b"\xff\xfe"), "malformed", id="claims-not-utf8"),
        pytest.param(jwt_of(b"[" * 5000), "malformed", id="claims-nested"),
        pytest.param(jwt(exp=20).replace(".", ".!", 1), "malformed", id="claims-not-base64"),
        pytest.param(jwt(exp="20"), "malformed", id="exp-a-string"),
        pytest.param(jwt(exp=True), "malformed", id="exp-a-boolean"),
        pytest.param(jwt_of(b'{"exp":NaN}'), "malformed", id="exp-nan"),
        pytest.param(jwt_of(b'{"exp":1e999}'), "malformed", id="exp-infinite"),
        pytest.param(jwt(exp=-1), "malformed", id="exp-negative"),
        pytest.param(jwt(iat=-1.5, exp=20), "malformed", id="iat-negative"),
        pytest.param(jwt(exp=float(NOW_S) * 1000), "malformed", id="exp-in-milliseconds"),
        pytest.param(jwt_of(b'{"exp":1%s}' % (b"0" * 400)), "malformed", id="exp-enormous"),
    ],
)
def test_what_cannot_be_read_has_a_named_reason(value: str, reason: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        read_claims(value)
    assert caught.value.reason == reason
    assert caught.value.__context__ is None
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    ("claims", "expires_in_s", "issued_s", "expires_s"),
    [
        pytest.param(Claims(NOW_S, NOW_S + 900), 60.0, NOW_S, NOW_S + 900, id="exp-counts"),
        pytest.param(Claims(None, NOW_S + 900), None, NOW_S, NOW_S + 900, id="no-iat"),
        pytest.param(Claims(), 300.0, NOW_S, NOW_S + 300, id="opaque"),
        pytest.param(Claims(NOW_S - 9), 300.0, NOW_S, NOW_S + 300, id="jwt-without-exp"),
        pytest.param(Claims(NOW_S + 7200, NOW_S + 8100), None, NOW_S + 7200, NOW_S + 8100,
                     id="issuer-ahead-of-its-date"),
    ],
)  # fmt: skip
def test_a_life_comes_from_exp_or_else_from_expires_in(
    claims: Claims, expires_in_s: float | None, issued_s: EpochTime, expires_s: EpochTime
) -> None:
    life = lifetime(claims, now_s=NOW_S, expires_in_s=expires_in_s)
    assert life == (issued_s, expires_s)


@pytest.mark.parametrize(
    ("claims", "expires_in_s", "reason"),
    [
        pytest.param(Claims(), None, "no_expiry", id="nothing-says"),
        pytest.param(Claims(NOW_S), None, "no_expiry", id="iat-alone"),
        pytest.param(Claims(NOW_S, NOW_S), 900.0, "malformed", id="exp-is-iat"),
        pytest.param(Claims(NOW_S, NOW_S - 5), 900.0, "malformed", id="exp-before-iat"),
        pytest.param(Claims(None, NOW_S - 5), 900.0, "expired", id="dead-without-iat"),
        pytest.param(Claims(), 0.0, "expired", id="opaque-dead"),
        pytest.param(Claims(), -3.0, "expired", id="opaque-negative"),
        pytest.param(Claims(NOW_S, NOW_S + MAX_TTL_S + 1), None, "malformed", id="ten-years"),
    ],
)
def test_an_impossible_life_has_a_named_reason(
    claims: Claims, expires_in_s: float | None, reason: str
) -> None:
    with pytest.raises(InvalidToken) as caught:
        lifetime(claims, now_s=NOW_S, expires_in_s=expires_in_s)
    assert caught.value.reason == reason


def _outcome(value: str) -> Claims | str:
    """Return the claims, or the reason for which there are none."""
    try:
        return read_claims(value)
    except InvalidToken as error:
        return error.reason


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_by_name(value: str) -> None:
    outcome = _outcome(value)
    assert isinstance(outcome, Claims) or outcome == "malformed"


@given(st.binary(max_size=300))
def test_any_payload_is_read_or_refused_by_name(payload: bytes) -> None:
    outcome = _outcome(jwt_of(payload))
    assert isinstance(outcome, Claims) or outcome == "malformed"


@pytest.mark.parametrize(
    ("value", "claims"),
    [
        pytest.param(jwt(iat=10, exp="20"), Claims(EpochTime(10), None), id="exp-a-string"),
        pytest.param(jwt(iat="x", exp=20), Claims(None, EpochTime(20)), id="iat-a-string"),
        pytest.param(
            jwt(iat=10, exp=float(NOW_S) * 1000),
            Claims(EpochTime(10), None),
            id="exp-in-milliseconds",
        ),
        pytest.param(jwt(iat=10, exp=True), Claims(EpochTime(10), None), id="exp-a-boolean"),
        pytest.param(jwt(iat=10, exp=-1), Claims(EpochTime(10), None), id="exp-negative"),
        pytest.param(jwt_of(b"[1, 2]"), Claims(), id="claims-a-list"),
        pytest.param(jwt_of(b"\xff\xfe"), Claims(), id="claims-not-utf8"),
    ],
)
def test_claims_that_cannot_be_read_count_as_none_where_the_answer_tells_the_life(
    value: str, claims: Claims
) -> None:
    found = read_claims(value, lenient=True)
    assert (found.issued_s, found.expires_s) == (claims.issued_s, claims.expires_s)
    assert found.warning
    assert value not in found.warning


def test_a_key_is_known_by_its_kid_alone() -> None:
    one, other = (jwt_of(b"{}", header=b'{"alg":"RS256","kid":"%s"}' % kid) for kid in (b"1", b"2"))
    assert len({_key(one), _key(other), ""}) == 3
    assert _key(one) == _key(jwt_of(b'{"x":1}', header=b'{"alg":"ES256","kid":"1"}'))
    without = jwt_of(b"{}"), jwt_of(b"{}", header=b'{"alg":"x","kid":1}'), OPAQUE, "a.b." + "c" * 20
    assert {_key(value) for value in without} == {""}


def _key(value: str) -> str:
    return read_claims(value).signing_key


_instants = st.one_of(
    st.integers(min_value=-(10**30), max_value=10**30), st.floats(allow_nan=False)
)


@given(iat=_instants, exp=_instants, now_s=st.floats(0, 4e9), expires_in=st.floats(-1e9, 1e9))
def test_a_life_that_is_accepted_is_finite_positive_and_below_ten_years(
    iat: float, exp: float, now_s: EpochTime, expires_in: float
) -> None:
    try:
        claims = read_claims(jwt(iat=iat, exp=exp))
        issued_s, expires_s = lifetime(claims, now_s=now_s, expires_in_s=expires_in)
    except InvalidToken:
        return
    assert 0 < expires_s - issued_s <= MAX_TTL_S
