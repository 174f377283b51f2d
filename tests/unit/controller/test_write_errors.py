"""How long a failed session waits: by the class of its failure, and at most a part of its life."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import backoff, errors
from reconciler.controller.decide.write_errors import (
    MAX_WAIT_FRACTION,
    STALE_CONFLICTS,
    classify,
    max_retry_after_s,
    max_wait_s,
    needs_fresh_read,
)


@pytest.mark.parametrize(
    ("slack_s", "left_s", "bound_s"),
    [
        pytest.param(270.0, 360.0, 67.5, id="slack"),
        pytest.param(1.0, 91.0, 91.0 / 16, id="a-slack-that-runs-out-ends-in-no-storm"),
        pytest.param(-54.0, 36.0, 9.0, id="no-slack-and-36-s-of-life"),
        pytest.param(-90.0, 0.0, None, id="expired-now"),
        pytest.param(-400.0, -310.0, None, id="expired-long-ago"),
        pytest.param(-90.0, -math.inf, None, id="unknown"),
        pytest.param(300.0, math.inf, 75.0, id="no-expiry"),
        pytest.param(-90.0, math.inf, None, id="no-expiry-and-no-slack"),
    ],
)
def test_the_wait_is_a_fraction_of_what_is_left(
    slack_s: float, left_s: float, bound_s: float | None
) -> None:
    assert max_retry_after_s(slack_s, left_s) == bound_s


@given(left_s=st.floats(0.01, 1e6), gone_s=st.floats(0.0, 1e3))
def test_a_retry_always_comes_while_most_of_the_life_is_left(left_s: float, gone_s: float) -> None:
    bound_s = max_retry_after_s(left_s - gone_s, left_s)
    assert bound_s is not None
    assert 0 < bound_s <= MAX_WAIT_FRACTION * left_s


@pytest.mark.parametrize(
    ("error", "policy"),
    [
        (errors.TransportError("reset"), backoff.TRANSIENT),
        (errors.ServerError("500", status=500), backoff.TRANSIENT),
        (errors.Conflict("409", status=409), backoff.CONFLICT),
        (errors.TooManyRequests("429", status=429), backoff.THROTTLED),
        (errors.AuthorizerNotReady("403", status=403), backoff.STARTING),
        (errors.Forbidden("403", status=403), backoff.DENIED),
        (errors.AdmissionDenied("403", status=403), backoff.DENIED),
        (errors.Invalid("a wrong field", status=422), backoff.DENIED),
        (errors.QuotaExceeded("403", status=403), backoff.THROTTLED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.name,
)
def test_a_failure_has_the_policy_of_its_class(
    error: errors.KubeError, policy: backoff.BackoffPolicy
) -> None:
    assert classify(error, 1).policy is policy


@pytest.mark.parametrize(
    ("policy", "longest_s"), [(backoff.TRANSIENT, 67.5), (backoff.MISCONFIGURED, None)]
)
def test_what_a_person_must_correct_is_not_tried_faster_towards_the_end(
    policy: backoff.BackoffPolicy, longest_s: float | None
) -> None:
    assert max_wait_s(policy, 270.0, 360.0) == longest_s


def test_a_server_that_has_just_started_is_asked_again_within_5_seconds_at_most() -> None:
    waits_s = [
        backoff.STARTING.delay_s(attempt, fraction_of_life_s=None, rand=0.999)
        for attempt in (1, 2, 20)
    ]
    assert waits_s == pytest.approx([0.1, 0.2, 5.0], rel=0.01)


REPLACED = errors.Invalid(
    "another object",
    status=422,
    causes=(errors.Cause("FieldValueInvalid", "field is immutable", "metadata.uid"),),
)


@pytest.mark.parametrize(
    ("error", "attempt", "is_needed"),
    [
        (errors.NotFound("gone", status=404), 1, True),
        (errors.Conflict("stale", status=409), STALE_CONFLICTS - 1, False),
        (errors.Conflict("stale", status=409), STALE_CONFLICTS, True),
        (REPLACED, STALE_CONFLICTS - 1, False),
        (REPLACED, STALE_CONFLICTS, True),
        (errors.Invalid("a wrong field", status=422), STALE_CONFLICTS, False),
        (errors.ServerError("broken", status=500), STALE_CONFLICTS, False),
    ],
)
def test_a_secret_is_read_again_where_the_store_has_an_old_one(
    error: errors.RemoteError, attempt: int, is_needed: bool
) -> None:
    assert needs_fresh_read(error, attempt) is is_needed
