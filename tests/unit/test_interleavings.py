"""How hypothesis is used: no limit on time, and a search that tries more than one seed."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.interleavings import SERIES, search


def test_no_example_has_a_limit_on_its_time() -> None:
    assert settings().deadline is None


def test_a_search_goes_on_with_other_seeds() -> None:
    drawn: set[int] = set()

    class Machine(RuleBasedStateMachine):
        @rule(number=st.integers(0, 2**32))
        def note(self, number: int) -> None:
            drawn.add(number)

    search(Machine, 3 * SERIES, steps=1)
    assert len(drawn) > SERIES
