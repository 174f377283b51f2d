"""The token type keeps its value to itself and its time on our clock."""

import copy
import math
import pickle
import traceback

import pytest

from reconciler.clock import EpochTime, Instant
from reconciler.tokens.token import Token

VALUE = "eyJhbGciOiJSUzI1NiJ9.secret-of-the-fleet.signature"


def _token(value: str = VALUE, *, ttl_s: float = 900.0, age_s: float = 0.0) -> Token:
    return Token(
        value,
        issued_s=EpochTime(100),
        expires_s=EpochTime(100.0 + ttl_s),
        received_at=Instant(50),
        age_at_receipt_s=age_s,
    )


def test_only_reveal_gives_the_value() -> None:
    assert _token().reveal() == VALUE


@pytest.mark.parametrize(
    "show", [repr, str, "{}".format, "{!r:>60}".format, "{:>60}".format, lambda t: f"{[t]}"]
)
def test_no_text_form_shows_the_value(show: object) -> None:
    assert callable(show)
    text = show(_token())
    assert "redacted" in text
    assert "secret" not in text


def test_a_token_is_neither_pickled_nor_copied() -> None:
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            attempt(_token())
        assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_tokens_compare_by_identity_not_by_value() -> None:
    first, second = _token(), _token()
    assert first != second
    assert len({first, second}) == 2


def test_a_token_takes_no_new_attributes_and_has_no_dict() -> None:
    assert not hasattr(_token(), "__dict__")


def test_life_runs_on_our_clock_from_the_age_at_receipt() -> None:
    token = _token(age_s=100.0)
    assert token.remaining_s(Instant(50)) == 800.0
    assert token.remaining_s(Instant(850)) == 0.0
    assert token.remaining_s(Instant(851)) < 0


def test_a_token_without_expiry_never_ends() -> None:
    token = _token(ttl_s=math.inf)
    assert token.remaining_s(Instant(1e12)) == math.inf
    assert "never" in repr(token)
