"""Each answer of the issuer is a token response or exactly one error, without its body."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import EpochTime, Instant
from reconciler.errors import InvalidToken, IssuerError, IssuerRefused, IssuerUnavailable
from reconciler.tokens.token_response import (
    RawResponse,
    error_code,
    is_refusal,
    is_success,
    more_specific,
    parse_token_response,
)

TOKEN = "an-opaque-token-of-some-issuer"
GOOD = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 900}


def _answer(body: object, status: int = 200) -> RawResponse:
    data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
    return RawResponse(
        status, data, sent_at=Instant(1), received_at=Instant(2), date_s=EpochTime(3)
    )


@pytest.mark.parametrize(
    ("member", "seconds"),
    [
        (900, 900.0),
        (899.5, 899.5),
        ("900", 900.0),
        (" 900 ", 900.0),
        ("-1", -1.0),
        (0, 0.0),
        (None, None),
        ("soon", None),
        ("1e9", None),
        ("", None),
        (True, None),
        ([900], None),
        (10**40, None),
    ],
)
def test_expires_in_is_a_number_or_a_string_of_one(member: object, seconds: float | None) -> None:
    response = parse_token_response(_answer(GOOD | {"expires_in": member}), request="x")
    assert response.expires_in_s == seconds


def test_a_good_answer_is_a_token_response_with_its_times() -> None:
    response = parse_token_response(_answer(GOOD), request="x")
    assert (response.value, response.token_type) == (TOKEN, "Bearer")
    assert (response.sent_at, response.received_at, response.date_s) == (
        Instant(1),
        Instant(2),
        EpochTime(3),
    )


@pytest.mark.parametrize(
    ("status", "body", "error", "reason"),
    [
        (401, {"error": "invalid_client"}, IssuerRefused, "invalid_client"),
        (400, {"error": "invalid_client"}, IssuerRefused, "invalid_client"),
        (400, {"error": "unauthorized_client"}, IssuerRefused, "unauthorized_client"),
        (400, {"error": "invalid_scope"}, IssuerRefused, "invalid_scope"),
        (401, b"Unauthorized", IssuerRefused, ""),
        (400, {"error": TOKEN}, IssuerRefused, ""),
        (403, b"<html>", IssuerRefused, ""),
        (200, {"error": "invalid_client"} | GOOD, IssuerRefused, "invalid_client"),
        (200, {"error": "server_error"} | GOOD, IssuerUnavailable, "server_error"),
        (200, {"error": {"code": 1}} | GOOD, IssuerUnavailable, ""),
        (400, {"error": "temporarily_unavailable"}, IssuerUnavailable, "temporarily_unavailable"),
        (500, {"error": "invalid_client"}, IssuerUnavailable, "invalid_client"),
        (503, b"upstream", IssuerUnavailable, ""),
        (429, {"error": "invalid_request"}, IssuerUnavailable, "invalid_request"),
        (302, b"", IssuerUnavailable, ""),
        (404, b"no such page", IssuerUnavailable, ""),
        (200, b"<html>log in</html>", IssuerUnavailable, "not_json"),
        (200, b"", IssuerUnavailable, "not_json"),
        (200, [TOKEN], IssuerUnavailable, "not_json"),
        (200, b"[" * 60_000, IssuerUnavailable, "not_json"),
        (200, b'{"access_token": "\xff\xfe"}', IssuerUnavailable, "not_json"),
        (200, {}, InvalidToken, "malformed"),
        (200, {"access_token": None}, InvalidToken, "malformed"),
        (200, {"access_token": [TOKEN]}, InvalidToken, "malformed"),
        (200, None, InvalidToken, "huge"),
        (500, None, IssuerUnavailable, ""),
    ],
)
def test_any_other_answer_is_one_error(
    status: int, body: object, error: type[IssuerError], reason: str
) -> None:
    with pytest.raises(IssuerError) as caught:
        parse_token_response(_answer(body, status), request="token request")
    assert type(caught.value) is error
    assert caught.value.reason == reason
    assert TOKEN not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (401, b"", True),
        (401, {"error": "invalid_client"}, True),
        (400, {"error": "invalid_request"}, True),
        (400, b"bad", True),
        (200, {"error": "invalid_client"}, True),
        (400, {"error": "invalid_scope"}, True),
        (400, {"error": "invalid_target"}, True),
        (403, b"", True),
        (429, {"error": "invalid_client"}, False),
        (500, {"error": "invalid_client"}, False),
        (503, b"", False),
        (302, b"", False),
        (200, GOOD, False),
    ],
)
def test_a_refusal_is_what_another_style_of_credentials_may_change(
    status: int, body: object, refused: bool
) -> None:
    assert is_refusal(_answer(body, status)) is refused


@pytest.mark.parametrize(
    ("first", "second", "reported"),
    [
        ("invalid_client", "invalid_scope", "invalid_scope"),
        ("invalid_scope", "invalid_client", "invalid_scope"),
        ("invalid_client", "unauthorized_client", "invalid_client"),
        ("invalid_request", "invalid_target", "invalid_target"),
    ],
)
def test_of_two_refusals_the_one_that_is_not_about_the_client_is_reported(
    first: str, second: str, reported: str
) -> None:
    answers = (_answer({"error": first}, 401), _answer({"error": second}, 400))
    assert error_code(more_specific(*answers)) == reported


def test_the_other_refusal_is_named_after_the_one_that_is_reported() -> None:
    basic = _answer({"error": "invalid_client"}, 401)
    for code, message in [
        ("invalid_request", "401 invalid_client; with the credentials sent the other way 400 "
         "invalid_request"),
        ("invalid_scope", "400 invalid_scope; with the credentials sent the other way 401 "
         "invalid_client"),
    ]:  # fmt: skip
        with pytest.raises(IssuerRefused) as caught:
            parse_token_response(
                more_specific(basic, _answer({"error": code}, 400)), request="token request"
            )
        assert str(caught.value) == f"token request: answered {message}"
    with pytest.raises(IssuerRefused) as caught:
        parse_token_response(more_specific(basic, basic), request="token request")
    assert str(caught.value) == "token request: answered 401 invalid_client"


@given(status=st.integers(100, 599), body=st.one_of(st.none(), st.binary(max_size=200)))
def test_any_bytes_are_a_token_response_or_an_issuer_error(status: int, body: bytes | None) -> None:
    answer = _answer(body, status)
    try:
        parse_token_response(answer, request="x")
    except IssuerError:
        return
    assert is_success(answer)
