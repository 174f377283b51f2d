"""The pause after a refusal: growing, capped, and ended by success."""

from random import Random

import pytest

from reconciler.errors import IssuerRefused, IssuerUnavailable
from reconciler.tokens.rest import LONGEST_S, Rest
from tests.support import ManualClock


class _Longest(Random):
    """Chance always chooses the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_pauses_double_up_to_the_cap_and_start_anew_after_success() -> None:
    rest = Rest(ManualClock(), _Longest())
    pauses = []
    for _ in range(7):
        rest.after_refusal(IssuerRefused("no"))
        pauses.append(rest.remaining_s())
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    rest.end()
    assert (rest.remaining_s(), rest.error) == (0.0, None)
    rest.after_refusal(IssuerRefused("no"))
    assert rest.remaining_s() == 1.0


def test_the_error_stands_exactly_as_long_as_the_pause() -> None:
    clock = ManualClock()
    rest = Rest(clock, _Longest())
    error = IssuerRefused("no")
    rest.after_refusal(error)
    clock.advance(0.9)
    assert rest.error is error
    clock.advance(0.1)
    assert rest.error is None


@pytest.mark.parametrize(
    ("asked_s", "pause_s"), [(None, 0.0), (0.0, 0.0), (7.0, 7.0), (86_400.0, LONGEST_S)]
)
def test_a_retry_after_is_honoured_up_to_the_cap(asked_s: float | None, pause_s: float) -> None:
    rest = Rest(ManualClock(), _Longest())
    rest.as_asked(IssuerUnavailable("busy", status=429, retry_after_s=asked_s))
    assert rest.remaining_s() == pause_s
