"""Rotations are found once a key; issuers with many keys cause no rounds without end."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import LONG_AGO, EpochTime
from reconciler.tokens.signing_keys import SigningKeys


def rotations(keys: str, *, step_s: float = 90.0) -> tuple[str, SigningKeys]:
    """Feed one token a letter, issued `step_s` apart; return the keys that took over."""
    found, watched = "", SigningKeys()
    for number, key in enumerate(keys):
        if watched.observe(key.strip("-"), EpochTime(1000.0 + number * step_s)):
            found += key
    return found, watched


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        pytest.param("aaaa", "", id="one-key"),
        pytest.param("aaab", "b", id="a-rotation"),
        pytest.param("ab", "b", id="right-after-the-start"),
        pytest.param("aabbcc", "bc", id="two"),
        pytest.param("abccc", "bc", id="two-at-once-the-second-when-it-is-seen-twice"),
        pytest.param("abababab", "b", id="two-servers-in-turns"),
        pytest.param("aabbaabbab", "b", id="two-servers-by-chance"),
        pytest.param("abcdefghijk", "b", id="a-key-for-each-token"),
        pytest.param("aabaaa", "b", id="taken-back"),
        pytest.param("----", "", id="no-kid"),
        pytest.param("a-a-b-", "b", id="some-without-kid"),
    ],
)
def test_a_key_takes_anothers_place_once(keys: str, found: str) -> None:
    assert rotations(keys)[0] == found


def test_what_was_issued_before_the_first_token_under_the_new_key_is_older() -> None:
    watched = SigningKeys()
    assert watched.rotated_s == LONG_AGO
    watched.observe("a", EpochTime(1000))
    assert watched.observe("b", EpochTime(1090.75))
    assert watched.rotated_s == EpochTime(1090)
    watched.observe("b", EpochTime(1088.5))  # another server with a clock that is behind
    assert watched.rotated_s == EpochTime(1088)
    watched.observe("b", EpochTime(1200))
    assert watched.rotated_s == EpochTime(1088)


def test_a_candidate_that_is_confirmed_counts_from_its_first_token() -> None:
    found, watched = rotations("abcc")
    assert found == "bc"
    assert watched.rotated_s == EpochTime(1000.0 + 2 * 90.0)


@given(st.lists(st.sampled_from(["", *"abcdefgh"]), max_size=200))
def test_each_key_causes_one_round_at_most_and_no_later_token_is_ever_under_an_old_key(
    keys: list[str],
) -> None:
    watched, found = SigningKeys(), []
    for number, key in enumerate(keys):
        issued_s = EpochTime(1000.0 + 0.4 * number)
        if watched.observe(key, issued_s):
            found.append(key)
        assert EpochTime(math.floor(issued_s)) >= watched.rotated_s
    assert len(found) == len(set(found))
    assert "" not in found
