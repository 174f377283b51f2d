"""What the inputs of a process leave open of the issuer's time."""

from reconciler.clock import EpochTime, Instant
from reconciler.lab.simulation.time_knowledge import TimeKnowledge
from reconciler.tokens.server_clock import TokenTimes

LIFE_S = 900.0
START_S = EpochTime(1_000_000.0)


class Inputs:
    """A process and the answers that it gets; times are seconds since the world's start."""

    def __init__(self) -> None:
        self.knowledge = TimeKnowledge()

    def get(
        self,
        issued_s: float,
        *,
        at_s: float,
        left_s: float | None = None,
        wall_off_s: float = 0.0,
        date_off_s: float | None = None,
        token: str = "",
    ) -> tuple[float, float]:
        """Take in an answer with the token of that second, or with another one.

        Returns: By how much the time may be behind and ahead.
        """
        true_s, token_s, at = START_S + at_s, START_S + issued_s, Instant(at_s)
        token_id = hash((token_s, token))
        answer = TokenTimes(token_s, token_s + LIFE_S, left_s, at, at, token_id=token_id)
        date_s = None if date_off_s is None else true_s + date_off_s
        wall_s = true_s + wall_off_s
        self.knowledge.observe(answer, true_s=true_s, date_s=date_s, wall_s=wall_s)
        return self.knowledge.behind_s, self.knowledge.ahead_s


def test_a_true_answer_leaves_nothing_open() -> None:
    assert Inputs().get(0.0, at_s=100.0, left_s=800.0, wall_off_s=62.0) == (0.0, 0.0)
    assert Inputs().get(100.0, at_s=100.0, wall_off_s=62.0) == (0.0, 0.0)


def test_the_age_of_a_cached_token_is_open_against_one_clock() -> None:
    assert Inputs().get(0.0, at_s=100.0, left_s=LIFE_S) == (100.0, 0.0)
    assert Inputs().get(0.0, at_s=100.0, date_off_s=0.0, wall_off_s=62.0) == (100.0, 0.0)


def test_two_clocks_that_agree_outvote_the_first_answer() -> None:
    assert Inputs().get(0.0, at_s=100.0, left_s=LIFE_S, date_off_s=0.0) == (0.0, 0.0)


def test_two_clocks_that_agree_do_not_outvote_a_second_answer() -> None:
    inputs = Inputs()
    inputs.get(0.0, at_s=100.0)
    assert inputs.get(120.0, at_s=180.0, date_off_s=0.0) == (60.0, 0.0)


def test_a_clock_supports_a_new_token_against_its_expires_in() -> None:
    assert Inputs().get(100.0, at_s=100.0, left_s=450.0) == (0.0, 0.0)
    assert Inputs().get(100.0, at_s=100.0, left_s=450.0, wall_off_s=62.0) == (0.0, 450.0)


def test_a_token_that_has_expired_as_it_comes_is_not_believed() -> None:
    assert Inputs().get(100.0, at_s=100.0, left_s=0.0, wall_off_s=62.0) == (0.0, 0.0)


def test_the_least_age_counts_until_a_true_answer() -> None:
    inputs = Inputs()
    assert inputs.get(0.0, at_s=100.0) == (100.0, 0.0)
    assert inputs.get(0.0, at_s=190.0) == (100.0, 0.0)
    assert inputs.get(200.0, at_s=280.0) == (80.0, 0.0)
    assert inputs.get(200.0, at_s=370.0, left_s=730.0) == (0.0, 0.0)
    assert inputs.get(400.0, at_s=460.0) == (0.0, 0.0)


def test_before_a_proof_an_answer_precedes_what_no_clock_supports() -> None:
    inputs = Inputs()
    for at_s in (0.0, 360.0):
        inputs.get(at_s, at_s=at_s, wall_off_s=62.0)
    assert inputs.get(370.0, at_s=470.0, left_s=400.0, wall_off_s=0.0) == (0.0, 0.0)
    assert inputs.get(370.0, at_s=480.0, left_s=395.0, wall_off_s=62.0) == (0.0, 395.0)
    assert inputs.get(600.0, at_s=600.0, wall_off_s=62.0) == (0.0, 0.0)


def test_after_a_proof_one_answer_does_not() -> None:
    inputs = Inputs()
    for at_s in (0.0, 100.0, 200.0):
        inputs.get(at_s, at_s=at_s, wall_off_s=62.0)
    assert inputs.get(250.0, at_s=350.0, left_s=400.0, wall_off_s=62.0) == (0.0, 0.0)


def test_what_was_known_is_lost_with_three_tokens_that_agree() -> None:
    inputs = Inputs()
    inputs.get(0.0, at_s=0.0)
    assert inputs.get(200.0, at_s=260.0) == (0.0, 0.0)
    assert inputs.get(400.0, at_s=461.0) == (0.0, 0.0)
    assert inputs.get(600.0, at_s=660.0) == (60.0, 0.0)
    assert inputs.get(800.0, at_s=860.0, left_s=840.0) == (60.0, 0.0)
    assert inputs.get(1000.0, at_s=1000.0) == (0.0, 0.0)


def test_a_time_that_was_proven_ahead_needs_three_true_tokens() -> None:
    inputs = Inputs()
    for issued_s in (0.0, 200.0, 400.0):
        inputs.get(issued_s, at_s=issued_s + 50.0, left_s=425.0, wall_off_s=62.0)
    found = [inputs.get(at_s, at_s=at_s, wall_off_s=62.0) for at_s in (600.0, 800.0, 1000.0)]
    assert found == [(0.0, 425.0), (0.0, 425.0), (0.0, 0.0)]


def test_another_token_of_a_known_second_is_one_of_the_three() -> None:
    inputs = Inputs()
    for issued_s in (0.0, 200.0, 400.0):
        inputs.get(issued_s, at_s=issued_s + 50.0, left_s=425.0, wall_off_s=62.0)
    # The issuer's clock was stepped back.
    assert inputs.get(400.0, at_s=400.0, wall_off_s=62.0, token="another") == (0.0, 425.0)
    found = [inputs.get(at_s, at_s=at_s, wall_off_s=62.0) for at_s in (600.0, 800.0)]
    assert found == [(0.0, 425.0), (0.0, 0.0)]


def test_new_tokens_with_a_false_expires_in_mislead_no_process_that_knows_the_time() -> None:
    inputs = Inputs()
    inputs.get(0.0, at_s=0.0)
    for at_s in (100.0, 200.0, 300.0):
        assert inputs.get(at_s, at_s=at_s, left_s=450.0, wall_off_s=62.0) == (0.0, 0.0)
