"""Expired seconds are exact, by table and against naive sampling."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import EpochTime
from reconciler.lab.runners.exposure_ledger import UNREADABLE, ExposureLedger, summarize
from reconciler.naming import SessionKey

ONE = SessionKey("ns", "one")
TWO = SessionKey("ns", "two")

Change = tuple[float, float]


def expired_s(changes: list[Change], *, start_s: float, end_s: float) -> float:
    """Run one container's life through the ledger."""
    accounts = ExposureLedger()
    early = [change for change in changes if change[0] <= start_s]
    late = [change for change in changes if start_s < change[0] <= end_s]
    for at_s, expires_at_s in early:
        accounts.projected("c", at_s=EpochTime(at_s), expires_at_s=EpochTime(expires_at_s))
    accounts.started("c", ONE, at_s=EpochTime(start_s))
    for at_s, expires_at_s in late:
        accounts.projected("c", at_s=EpochTime(at_s), expires_at_s=EpochTime(expires_at_s))
    accounts.ended("c", at_s=EpochTime(end_s))
    return accounts.report(ONE, now_s=EpochTime(end_s), state="ended").expired_token_seconds


@pytest.mark.parametrize(
    ("changes", "expected_s"),
    [
        pytest.param([(0, 200)], 0, id="token-outlives-container"),
        pytest.param([(0, 100)], 0, id="token-dies-with-container"),
        pytest.param([(0, 70)], 30, id="token-dies-before-container"),
        pytest.param([(0, 5)], 90, id="token-was-dead-at-start"),
        pytest.param([], 90, id="no-file-at-all"),
        pytest.param([(40, 200)], 30, id="file-came-late"),
        pytest.param([(0, 30), (50, 200)], 20, id="gap-between-two-tokens"),
        pytest.param([(0, 60), (50, 200)], 0, id="renewed-in-time"),
        pytest.param([(0, 200), (50, 20)], 50, id="replaced-by-a-dead-token"),
        pytest.param([(0, 200), (50, UNREADABLE), (60, 200)], 10, id="unreadable-for-a-while"),
        pytest.param([(0, 20), (30, 40), (70, 80)], 60, id="three-lives"),
        pytest.param([(0, 50), (5, 200)], 0, id="only-the-file-at-the-start-counts"),
    ],
)
def test_expired_seconds_are_the_gaps_from_start_to_end(
    changes: list[Change], expected_s: float
) -> None:
    assert expired_s(changes, start_s=10, end_s=100) == expected_s


instants = st.integers(0, 60)
lives = st.lists(st.tuples(instants, st.integers(-10, 90)), max_size=8, unique_by=lambda c: c[0])


@given(lives, instants, instants)
def test_exact_account_agrees_with_sampling(
    changes: list[tuple[int, int]], one: int, other: int
) -> None:
    changes = sorted(changes)
    start, end = min(one, other), max(one, other)

    def dead(at: float) -> bool:
        return [-math.inf, *(expiry for since, expiry in changes if since <= at)][-1] <= at

    # All instants are whole: half-way between two of them nothing changes.
    sampled = sum(dead(second + 0.5) for second in range(start, end))

    exact = expired_s([(float(a), float(e)) for a, e in changes], start_s=start, end_s=end)

    assert exact == sampled


@given(lives, instants)
def test_asking_for_a_report_changes_nothing(changes: list[tuple[int, int]], asked: int) -> None:
    quiet, asked_often = ExposureLedger(), ExposureLedger()
    for accounts in (quiet, asked_often):
        accounts.started("c", ONE, at_s=EpochTime(0))
    for at_s, expires_at_s in sorted(changes):
        for accounts in (quiet, asked_often):
            accounts.projected("c", at_s=EpochTime(at_s), expires_at_s=EpochTime(expires_at_s))
        asked_often.report(ONE, now_s=EpochTime(at_s + asked), state="running")

    left, right = (
        each.report(ONE, now_s=EpochTime(200), state="running") for each in (quiet, asked_often)
    )

    assert left == right


def test_running_container_is_counted_up_to_now() -> None:
    accounts = ExposureLedger()
    accounts.projected("c", at_s=EpochTime(0), expires_at_s=EpochTime(10))
    accounts.started("c", ONE, at_s=EpochTime(0))

    seen = [accounts.report(ONE, now_s=EpochTime(now), state="running") for now in (5, 12, 15)]

    assert [report.expired_token_seconds for report in seen] == [0, 2, 5]
    assert seen[0].expires_at_s == EpochTime(10)


def test_each_start_is_an_account_of_its_own_and_the_session_is_their_sum() -> None:
    accounts = ExposureLedger()
    for container, since_s in (("a", 0), ("b", 20)):
        accounts.projected(container, at_s=EpochTime(since_s), expires_at_s=EpochTime(since_s + 5))
        accounts.started(container, ONE, at_s=EpochTime(since_s))
        accounts.ended(container, at_s=EpochTime(since_s + 10))

    report = accounts.report(ONE, now_s=EpochTime(1000), state="ended")

    assert (report.containers, report.expired_token_seconds) == (2, 10)
    assert report.expires_at_s is None


def test_old_and_new_container_of_a_session_are_exposed_beside_each_other() -> None:
    accounts = ExposureLedger()
    for container in ("old", "new"):
        accounts.projected(container, at_s=EpochTime(0), expires_at_s=EpochTime(10))
        accounts.started(container, ONE, at_s=EpochTime(0))

    assert accounts.report(ONE, now_s=EpochTime(13), state="running").expired_token_seconds == 6


def test_wall_clock_that_steps_back_never_subtracts() -> None:
    accounts = ExposureLedger()
    accounts.projected("c", at_s=EpochTime(100), expires_at_s=EpochTime(100))
    accounts.started("c", ONE, at_s=EpochTime(100))
    accounts.projected("c", at_s=EpochTime(104), expires_at_s=EpochTime(90))
    accounts.projected("c", at_s=EpochTime(95), expires_at_s=EpochTime(90))

    assert accounts.report(ONE, now_s=EpochTime(96), state="running").expired_token_seconds == 4


def test_refused_calls_are_booked_by_the_outcome_of_their_retry() -> None:
    accounts = ExposureLedger()
    for accepted in (False, True, False, False):
        accounts.called(ONE, accepted=accepted)
    accounts.refused(ONE, retry_succeeded=True)
    accounts.refused(ONE, retry_succeeded=False)

    report = accounts.report(ONE, now_s=EpochTime(0), state="running")

    assert (report.grpc_calls, report.rejections) == (4, 3)
    assert (report.reauthentications, report.unauthenticated) == (1, 1)


def test_summary_adds_up_and_names_the_worst() -> None:
    accounts = ExposureLedger()
    for container, session, expires_at_s in (("a", ONE, 8.0), ("b", TWO, 3.0)):
        accounts.projected(container, at_s=EpochTime(0), expires_at_s=EpochTime(expires_at_s))
        accounts.started(container, session, at_s=EpochTime(0))
    sessions = tuple(
        accounts.report(s, now_s=EpochTime(10), state="running") for s in accounts.sessions()
    )

    total = summarize(sessions)

    assert math.isclose(total.expired_token_seconds, 9)
    assert total.worst is not None
    assert total.worst.session_id == "two"


def test_fleet_without_harm_has_no_worst() -> None:
    accounts = ExposureLedger()
    accounts.register(ONE)

    total = summarize((accounts.report(ONE, now_s=EpochTime(0), state="pending"),))

    assert total.worst is None
    assert summarize(()).sessions == ()


def test_end_of_all_settles_every_account_once() -> None:
    accounts = ExposureLedger()
    accounts.started("a", ONE, at_s=EpochTime(0))
    accounts.end_all(at_s=EpochTime(4))
    accounts.ended("a", at_s=EpochTime(9))

    assert accounts.report(ONE, now_s=EpochTime(100), state="ended").expired_token_seconds == 4
