"""The decision, by table and by property: nothing here waits, asks or remembers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.clock import NEVER, EpochTime, Instant, format_utc, format_utc_millis
from reconciler.controller.decide.annotations import (
    TOLERANCE_S,
    parse_annotations,
    pending_requests,
)
from reconciler.controller.decide.evidence import Evidence, WriteRecord, content_of, owner_of
from reconciler.controller.decide.refresh_plan import (
    LIST_WAIT_S,
    LOOKUPS_PER_S,
    OTHER_FILE_LAG_S,
    REPLAN_S,
    Action,
    Confirmation,
    Plan,
    SessionState,
    allowance_s,
    plan,
    refresh_at_s,
)
from reconciler.workqueue.items import Priority
from tests.unit.controller.build import (
    NAMES,
    NOW_S,
    TERM,
    TTL_S,
    decision_context,
    pod,
    secret,
    session_state,
)


def decide(seen: SessionState, **changes: object) -> Plan:
    return plan(seen, decision_context(**changes), NOW_S)


def test_a_fresh_token_waits_for_its_instant_on_the_grid() -> None:
    found = decide(session_state(secret=secret(age_s=10)))
    due_s = refresh_at_s(NOW_S - 10, NOW_S - 10 + TTL_S, "pod-uid")
    assert (found.action, found.reason, found.priority) == (
        Action.WAIT,
        "scheduled",
        Priority.ROUTINE,
    )
    assert found.due_s == pytest.approx(min(due_s, NOW_S + REPLAN_S))


def test_a_token_past_its_instant_is_refreshed_without_a_touch() -> None:
    found = decide(session_state(secret=secret(age_s=0.61 * TTL_S)))
    assert (found.action, found.reason, found.touch) == (Action.WRITE, "scheduled", False)


@pytest.mark.parametrize(
    ("age_s", "reason"), [(901, "expired"), (900 - 89, "expiring")], ids=["dead", "allowance"]
)
def test_a_token_that_expires_before_the_next_sync_is_written_first_and_touched(
    age_s: float, reason: str
) -> None:
    found = decide(session_state(secret=secret(age_s=age_s)))
    assert (found.action, found.reason, found.priority) == (Action.WRITE, reason, Priority.EXPIRING)
    assert found.touch
    assert found.slack_s < 0


def test_an_expired_token_is_touched_for_a_pod_that_is_not_observed_yet() -> None:
    found = decide(session_state(pod=None, secret=secret(age_s=901)))
    assert (found.action, found.touch) == (Action.WRITE, True)


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ({}, "expiry_unknown"),
        ({NAMES.expires_at: "soon", NAMES.issued_at: "lately"}, "expiry_unknown"),
        ({NAMES.expires_at: "2026-01-01T00:10:00", NAMES.issued_at: "x"}, "expiry_unknown"),
        (
            {NAMES.expires_at: "2099-01-01T00:00:00Z", NAMES.issued_at: format_utc(NOW_S)},
            "expiry_too_far",
        ),
        (
            {NAMES.expires_at: "2099-01-01T00:15:00Z", NAMES.issued_at: "2099-01-01T00:00:00Z"},
            "expiry_impossible",
        ),
        (
            {NAMES.expires_at: format_utc(NOW_S), NAMES.issued_at: format_utc(NOW_S + 1)},
            "expiry_impossible",
        ),
        (
            {NAMES.expires_at: format_utc(NOW_S + 600), NAMES.issued_at: format_utc(NOW_S - 9e5)},
            "expiry_too_far",
        ),
    ],
    ids=["absent", "garbage", "no zone", "forged", "future", "reversed", "too long a life"],
)
def test_an_invalid_expiry_is_due_now(annotations: dict[str, str], reason: str) -> None:
    found = decide(session_state(secret=secret(age_s=None, annotations=annotations, by=TERM)))
    assert (found.action, found.reason, found.priority) == (Action.WRITE, reason, Priority.EXPIRING)


@pytest.mark.parametrize("life_s", [30.0, 600.0, -5.0], ids=["earlier", "later", "past"])
def test_an_expiry_that_another_client_has_edited_is_due_now(life_s: float) -> None:
    ours = secret(age_s=300.0, by=TERM)
    edited = secret(
        age_s=300.0,
        by=TERM,
        annotations={
            NAMES.issued_at: format_utc(NOW_S - 200),
            NAMES.expires_at: format_utc(NOW_S + life_s),
        },
    )
    sent = content_of(ours)
    record = WriteRecord("secret-uid", sent, Evidence(TERM), NOW_S + 600, 72.0, Instant(100))
    answered = record.record_response(ours, now_at=Instant(100.1))
    for ours_known in (answered, record):  # with its answer, and where that is lost
        found = decide(replace(session_state(secret=edited), record=ours_known))
        assert (found.action, found.reason, found.touch) == (Action.WRITE, "expiry_edited", False)
        assert found.slack_s == 510.0
    unedited = decide(replace(session_state(secret=ours), record=record))
    assert unedited.reason != "expiry_edited"
    of_another = secret(age_s=20.0, by="replica-1/7")
    for held, known in ((edited, None), (of_another, answered), (of_another, record)):
        assert decide(replace(session_state(secret=held), record=known)).reason != "expiry_edited"


@pytest.mark.parametrize(
    ("writers", "reason"),
    [(("ambient-control-plane",), "foreign_writer"), ((), "never_written")],
    ids=["overwritten", "empty"],
)
def test_a_value_that_is_not_ours_is_due_now(writers: tuple[str, ...], reason: str) -> None:
    found = decide(session_state(secret=secret(writers=writers)))
    assert (found.action, found.reason, found.touch) == (Action.WRITE, reason, True)


def test_a_value_that_we_own_with_another_manager_is_ours() -> None:
    found = decide(session_state(secret=secret(writers=("kubectl", "token-reconciler"))))
    assert found.action is Action.WAIT


@pytest.mark.parametrize(
    ("startup", "age_s", "action"),
    [
        ("all", 1, Action.WRITE),
        ("stale", 1, Action.WAIT),
        ("stale", 0.21 * TTL_S, Action.WRITE),
        ("none", 1, Action.WAIT),
    ],
)
def test_a_new_term_refreshes_what_another_term_wrote(
    startup: str, age_s: float, action: Action
) -> None:
    found = decide(session_state(secret=secret(age_s=age_s, by="replica-1/7")), startup=startup)
    assert found.action is action
    if action is Action.WRITE:
        assert (found.reason, found.priority) == ("startup_resync", Priority.STARTUP)


def test_what_another_wrote_since_the_term_began_is_left_alone() -> None:
    held = secret(age_s=10, by="replica-1/7")
    assert decide(session_state(secret=held), term_started_s=NOW_S - 20).action is Action.WAIT
    forged = secret(age_s=-500, ttl_s=1000, by="replica-1/7", annotations=recent(10))
    assert decide(session_state(secret=forged)).action is Action.WRITE


def recent(age_s: float) -> dict[str, str]:
    """Return valid expiry annotations with a refresh time in the future."""
    return {
        NAMES.issued_at: format_utc(NOW_S - age_s),
        NAMES.expires_at: format_utc(NOW_S - age_s + TTL_S),
    }


def test_a_missing_secret_is_created_for_a_confirmed_session() -> None:
    found = decide(session_state(secret=None))
    assert (found.action, found.priority, found.touch) == (Action.CREATE, Priority.EXPIRING, True)


def test_nothing_is_created_for_a_terminating_pod() -> None:
    assert decide(session_state(pod=pod(is_deleting=True), secret=None)).action is Action.BLOCKED


def test_a_pod_in_its_grace_keeps_its_token() -> None:
    found = decide(session_state(pod=pod(is_deleting=True), secret=secret(age_s=901)))
    assert found.action is Action.WRITE


@pytest.mark.parametrize(
    "held",
    [
        None,
        secret(age_s=901),
        secret(writers=()),
        secret(age_s=0.61 * TTL_S),
        secret(by="replica-1/7"),
        secret(annotations={NAMES.requested_at: "now please"}),
    ],
    ids=["none", "expired", "empty", "routine", "another term's", "asked for"],
)
@pytest.mark.parametrize(
    ("confirmation", "action"),
    [
        (Confirmation.UNKNOWN, Action.CONFIRM),
        (Confirmation.NO, Action.BLOCKED),
        (Confirmation.DOUBTED, Action.BLOCKED),
        (Confirmation.REVOKED, Action.REVOKE),
    ],
)
def test_nothing_is_written_for_a_session_that_the_platform_did_not_confirm(
    held: object, confirmation: Confirmation, action: Action
) -> None:
    found = decide(session_state(secret=held, confirmation=confirmation))  # type: ignore[arg-type]  # a Meta
    assert found.action is (action if held or action is Action.CONFIRM else Action.BLOCKED)


@pytest.mark.parametrize(
    "held", [None, secret(age_s=901), secret(writers=())], ids=["none", "expired", "empty"]
)
def test_to_ask_the_platform_is_never_as_urgent_as_a_token_that_expires(held: object) -> None:
    """Everyone with permission to create pods can cause this work."""
    found = decide(session_state(secret=held, confirmation=Confirmation.UNKNOWN))  # type: ignore[arg-type]  # a Meta
    assert found.action is Action.CONFIRM
    assert (found.priority, found.slack_s) == (Priority.CHANGED, math.inf)


def test_a_session_without_a_pod_is_refreshed_while_the_platform_calls_it_running() -> None:
    assert decide(session_state(pod=None, secret=secret(age_s=901))).action is Action.WRITE
    gone = session_state(pod=None, secret=secret(age_s=901), is_running=False)
    assert decide(gone).action is Action.REMOVE
    assert decide(session_state(pod=None, secret=None)).action is Action.REMOVE


@pytest.mark.parametrize("on", ["pod", "secret"])
def test_a_pause_on_either_object_stops_every_write(on: str) -> None:
    paused = {NAMES.paused: "true"}
    seen = session_state(
        pod=pod(annotations=paused if on == "pod" else {}),
        secret=secret(age_s=901, annotations=paused if on == "secret" else {}),
    )
    assert (decide(seen).action, decide(seen).reason) == (Action.BLOCKED, "paused")


@pytest.mark.parametrize("on", ["pod", "secret"])
def test_each_value_of_a_request_is_handled_once(on: str) -> None:
    asked = {NAMES.requested_at: "now please"}
    seen_pod = pod(annotations=asked if on == "pod" else {})
    held = secret(annotations=asked if on == "secret" else {})
    found = decide(session_state(seen_pod, held))
    assert (found.action, found.reason) == (Action.WRITE, "requested")
    honoured = {NAMES.handled_requests: ",".join(found.requests)}
    after = secret(annotations=(asked if on == "secret" else {}) | honoured)
    assert decide(session_state(seen_pod, after)).action is Action.WAIT
    assert pending_requests(after, pod(annotations={NAMES.requested_at: "again"}))


def test_a_secret_of_another_session_with_the_same_name_is_left_alone() -> None:
    found = decide(session_state(secret=secret(age_s=901, session_id="2ABCdef")))
    assert (found.action, found.reason) == (Action.BLOCKED, "secret_name_taken")


def test_a_static_token_is_written_once() -> None:
    held = secret(age_s=None, annotations={NAMES.refreshed_by: TERM})
    assert decide(session_state(secret=held), static=True).action is Action.WAIT
    other = secret(age_s=None, writers=("kubectl",))
    assert decide(session_state(secret=other), static=True).action is Action.WRITE


def test_what_was_written_before_its_token_was_replaced_is_due_once_for_the_leader() -> None:
    before, after = (secret(age_s=None, annotations=static(age_s)) for age_s in (20, 5))
    changed = {"static": True, "replaced_s": NOW_S - 10}
    found = decide(session_state(secret=before), **changed)
    assert (found.action, found.reason, found.priority) == (
        Action.WRITE, "token_replaced", Priority.STARTUP,
    )  # fmt: skip
    assert found.touch
    assert decide(session_state(secret=after), **changed).action is Action.WAIT
    assert decide(session_state(secret=before), startup="none", **changed).action is Action.WAIT
    garbage = secret(age_s=None, annotations=static(5) | {NAMES.refreshed_at: "lately"})
    assert decide(session_state(secret=garbage), **changed).action is Action.WRITE
    assert decide(session_state(secret=garbage), static=True).action is Action.WAIT


@pytest.mark.parametrize("is_answered", [False, True], ids=["answer lost", "restored since"])
def test_a_write_that_the_secret_does_not_show_put_no_replacing_token_there(
    is_answered: bool,
) -> None:
    before, after = (secret(age_s=None, annotations=static(age_s)) for age_s in (20, 0))
    sent = content_of(after)
    evidence = Evidence(TERM, generation=1)
    record = WriteRecord("secret-uid", sent, evidence, NEVER, math.inf, Instant(100))
    if is_answered:
        record = record.record_response(after, now_at=Instant(100.1))
    changed = {"static": True, "generation": 1, "replaced_s": NOW_S - 10}
    found, none = (
        decide(replace(session_state(secret=held), record=record), **changed)
        for held in (before, after)
    )
    assert (found.action, found.reason) == (Action.WRITE, "token_replaced")
    assert none.action is Action.WAIT


@pytest.mark.parametrize("by", [TERM, "replica-1/7"])
def test_what_was_issued_under_an_older_key_is_due_once_by_its_own_urgency(by: str) -> None:
    ages_s = (300.0, 20.0, 10.0, 5.0)
    held = [secret(age_s=age_s, annotations={NAMES.refreshed_by: by}) for age_s in ages_s]
    rotated_s = NOW_S - 10
    oldest, older, first, later = (
        decide(
            session_state(secret=each),
            startup="stale",
            term_started_s=NOW_S - 400,
            rotated_s=rotated_s,
        )
        for each in held
    )
    for found in (oldest, older):
        assert (found.action, found.reason, found.priority) == (
            Action.WRITE, "token_replaced", Priority.STARTUP,
        )  # fmt: skip
        assert found.touch
    assert 0 < oldest.slack_s < older.slack_s
    assert (first.action, later.action) == (Action.WAIT, Action.WAIT)
    follower = decide(session_state(secret=held[0]), startup="none", rotated_s=rotated_s)
    assert follower.action is Action.WAIT


@pytest.mark.parametrize(
    ("age_s", "by", "term_started_s", "action"),
    [
        (OTHER_FILE_LAG_S + 1, TERM, math.inf, Action.WAIT),
        (OTHER_FILE_LAG_S + 1, "replica-1/7", math.inf, Action.WRITE),
        (1, "replica-1/7", math.inf, Action.WAIT),
        (OTHER_FILE_LAG_S + 1, "replica-1/7", NOW_S - 1e4, Action.WAIT),
    ],
    ids=["by us", "by one whose file may lag", "by one long after", "by one beside us"],
)
def test_another_leader_may_have_written_the_previous_token_for_a_while(
    age_s: float, by: str, term_started_s: EpochTime, action: Action
) -> None:
    held = secret(age_s=None, annotations=static(age_s, by))
    since = {"term_started_s": term_started_s, "replaced_s": NOW_S - OTHER_FILE_LAG_S - 60}
    assert (
        decide(session_state(secret=held), static=True, startup="stale", **since).action is action
    )


def static(age_s: float, by: str = TERM) -> dict[str, str]:
    """Return the annotations of a token without an expiry that was written `age_s` ago."""
    return {NAMES.refreshed_by: by, NAMES.refreshed_at: format_utc_millis(NOW_S - age_s)}


WILD = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e5, 1e7))
"""An age and a life, seconds: hardly ever those of a token that can be believed."""

BELIEVABLE = st.floats(2, TTL_S).flatmap(
    lambda ttl_s: st.tuples(st.floats(1 - TOLERANCE_S, 2 * ttl_s), st.just(ttl_s))
)
"""Age and lifetime, seconds, of a valid token, expired or not."""


@given(
    wild=WILD,
    believable=BELIEVABLE,
    propagation_s=st.floats(1, 600),
    alive=st.booleans(),
    ours=st.booleans(),
    paused=st.booleans(),
    confirmation=st.sampled_from(Confirmation),
    garbage=st.text(max_size=20),
    spoil=st.booleans(),
)
def test_whatever_the_annotations_say_a_plan_is_near_or_a_write(
    wild: tuple[float, float],
    believable: tuple[float, float],
    propagation_s: float,
    alive: bool,
    ours: bool,
    paused: bool,
    confirmation: Confirmation,
    garbage: str,
    spoil: bool,
) -> None:
    """Each example has one token of either kind, so that half of the cases are believable."""
    for age_s, ttl_s in (wild, believable):
        annotations = {NAMES.paused: "true"} if paused else {}
        if spoil and (age_s, ttl_s) == wild:
            annotations[NAMES.expires_at] = garbage
        held = secret(
            age_s=age_s,
            ttl_s=ttl_s,
            writers=("token-reconciler",) if ours else ("other",),
            annotations=annotations,
        )
        seen = session_state(pod() if alive else None, held, confirmation=confirmation)
        found = decide(seen, propagation_s=propagation_s)
        assert NOW_S <= found.due_s <= NOW_S + REPLAN_S
        if found.action in (Action.WRITE, Action.CREATE):
            assert confirmation is Confirmation.YES
            assert not paused


@given(
    believable=BELIEVABLE,
    propagation_s=st.floats(1, 600),
    confirmation=st.sampled_from(Confirmation),
)
def test_a_valid_token_is_due_when_its_life_says_so(
    believable: tuple[float, float], propagation_s: float, confirmation: Confirmation
) -> None:
    age_s, ttl_s = believable
    held = secret(age_s=age_s, ttl_s=ttl_s)
    owner = owner_of(held, NAMES.field_manager, None)
    facts = parse_annotations(
        held, NAMES, owner=owner, now_s=NOW_S, longest_ttl_s=TTL_S + 1, static=False
    )
    assert (facts.problem, facts.is_ours) == ("", True)
    assert facts.issued_s is not None  # else `why` would say so
    assert facts.expires_s is not None
    life_s, left_s = facts.expires_s - facts.issued_s, facts.expires_s - NOW_S
    due_s = refresh_at_s(facts.issued_s, facts.expires_s, "pod-uid")
    if left_s <= 0:
        reason = "expired"
    elif left_s < allowance_s(life_s, propagation_s):
        reason = "expiring"
    elif due_s <= NOW_S:
        reason = "scheduled"
    else:
        reason = ""
    found = decide(
        session_state(secret=held, confirmation=confirmation),
        propagation_s=propagation_s,
        longest_ttl_s=TTL_S + 1,
    )
    if confirmation is Confirmation.REVOKED:
        assert (found.action, found.due_s) == (Action.REVOKE, NOW_S)
    elif not reason:
        assert (found.action, found.reason) == (Action.WAIT, "scheduled")
        assert found.due_s == min(due_s, NOW_S + REPLAN_S)
    elif confirmation is Confirmation.YES:
        assert (found.action, found.reason) == (Action.WRITE, reason)
        assert found.slack_s == left_s - propagation_s
    else:
        assert found.action not in (Action.WRITE, Action.CREATE)


@pytest.mark.parametrize(("pods", "last_s"), [(1, 15.1), (1000, 25.0), (10_000, 115.0)])
def test_look_ups_beside_a_list_that_takes_long_are_spread_over_the_sessions(
    pods: int, last_s: float
) -> None:
    asked_s = sorted(
        decide(
            session_state(
                pod(uid=f"pod-{number}"),
                secret(age_s=None),
                confirmation=Confirmation.UNKNOWN,
            ),
            list_started_s=NOW_S,
            pods=pods,
        ).due_s
        - NOW_S
        for number in range(min(pods, 500))
    )
    assert asked_s[0] >= LIST_WAIT_S
    assert asked_s[-1] <= last_s
    assert asked_s[-1] >= 0.95 * last_s
    share = len(asked_s) / pods
    for second in range(int(LIST_WAIT_S), int(last_s)):
        in_second = sum(second <= at_s < second + 1 for at_s in asked_s)
        assert in_second <= 2 * max(LOOKUPS_PER_S * share, 10)
