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


def test_a_search_begins_with_the_seed_that_is_known() -> None:
    def played(first: int) -> list[int]:
        drawn: list[int] = []

        class Machine(RuleBasedStateMachine):
            @rule(number=st.integers(0, 2**32))
            def note(self, number: int) -> None:
                drawn.append(number)

        search(Machine, 3 * SERIES, steps=1, first=first)
        return drawn

    usual, known = played(0), played(2)
    assert usual != known
    assert known in [usual[-count:] + usual[:-count] for count in range(1, len(usual))]
