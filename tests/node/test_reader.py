"""The count of expired-token seconds that decides the node tests, with invented reads."""

import pytest

from reconciler.clock import EpochTime
from reconciler.lab.issuer.signing_key import IssuerKey
from tests.node.reader import Ledger, expiry_s

KEY = IssuerKey()


def token(expires_s: EpochTime) -> str:
    return KEY.sign({"exp": expires_s, "iat": 0})


def test_an_expiry_is_read_from_the_token() -> None:
    assert expiry_s(token(EpochTime(1234))) == EpochTime(1234)


@pytest.mark.parametrize(
    ("looks", "expired_s"),
    [
        ([(0.0, 10.0), (5.0, 10.0), (10.0, 10.0)], 0.0),
        ([(0.0, 10.0), (9.0, 20.0), (20.0, 20.0)], 0.0),
        ([(0.0, 10.0), (12.0, 10.0), (13.0, 10.0)], 3.0),
        ([(0.0, 10.0), (12.0, 30.0), (13.0, 30.0)], 2.0),
        ([(0.0, 30.0), (12.0, 10.0), (20.0, 10.0)], 0.0),
        ([(20.0, 10.0), (21.0, 10.0)], 1.0),
    ],
    ids=["alive", "renewed", "left_to_die", "renewed_late", "older_one_comes_back", "born_dead"],
)
def test_time_counts_while_the_newest_token_is_dead(
    looks: list[tuple[float, float]], expired_s: float
) -> None:
    ledger = Ledger(EpochTime(looks[0][0]))
    for now_s, expires_s in looks:
        ledger.look(token(EpochTime(expires_s)), EpochTime(now_s))
    assert ledger.expired_s == expired_s
