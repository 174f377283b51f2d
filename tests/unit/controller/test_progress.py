"""What is remembered of our writes, and what it keeps from being written again."""

import math
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.clock import NEVER, EpochTime, Instant
from reconciler.controller.decide.evidence import (
    CLOCK_TOLERANCE_S,
    MAX_HELD,
    MAX_UNANSWERED,
    MIN_GAIN,
    ROTATION_TOLERANCE_S,
    Evidence,
    Owner,
    TokenLife,
    WriteRecord,
    WriteRecords,
    is_edited,
    is_unanswered,
    last_applied,
    life_of,
    owner_of,
    response_of,
    undone,
    wait_s,
)
from reconciler.errors import Conflict
from reconciler.kube.api import ObjectMeta
from tests.unit.controller.build import KEY, NAMES, NOW_S, TERM, secret

US = NAMES.field_manager
EVIDENCE = Evidence(TERM)


def written(at: str, *, version: str = "20", **changes: Any) -> ObjectMeta:
    """Return a Secret that shows our write of one instant."""
    annotations = {NAMES.refreshed_at: at, NAMES.refreshed_by: TERM}
    return secret(age_s=None, annotations=annotations, version=version, **changes)


def sent(
    at: str, *, expires_s: EpochTime = NOW_S + 900, evidence: Evidence = EVIDENCE
) -> WriteRecord:
    life = life_of(expires_s, ttl_s=900.0, remaining_s=900.0)
    return WriteRecord("secret-uid", (at, TERM, None, None), evidence, *life, Instant(100))


def answered(at: str, **changes: Any) -> WriteRecord:
    return sent(at).record_response(written(at, **changes), now_at=Instant(100.1))


def ask(
    record: WriteRecord, held: ObjectMeta, life: TokenLife | None = None, **changes: Any
) -> float:
    owner = owner_of(held, US, record.response)
    plain: dict[str, Any] = {"term": TERM}
    evidence = Evidence(**(plain | changes))
    return wait_s(record, held, owner, evidence, life=life)


LATER = life_of(NOW_S + 901, ttl_s=900.0, remaining_s=900.0)


def test_an_unchanged_secret_is_not_written_again_at_any_version() -> None:
    record = answered("a")
    assert ask(record, written("a"), LATER) == pytest.approx(900 * MIN_GAIN - 1)
    assert ask(record, written("a", version="99"), LATER) > 0
    assert ask(record, written("b", version="99"), LATER) == 0


@pytest.mark.parametrize(
    "news",
    [
        {"term": "replica-1/2"},
        {"generation": 1},
        {"rotated_s": NOW_S},
        {"requests": frozenset({"s:1"})},
    ],
    ids=["term", "replaced", "rotated", "request"],
)
def test_new_evidence_is_a_reason(news: dict[str, Any]) -> None:
    assert ask(answered("a"), written("a"), LATER, **news) == 0


def test_one_key_rotation_that_is_estimated_twice_is_no_second_one() -> None:
    record = replace(answered("a"), evidence=Evidence(TERM, rotated_s=NOW_S))
    assert ask(record, written("a"), LATER, rotated_s=NOW_S + ROTATION_TOLERANCE_S / 2) > 0
    assert ask(record, written("a"), LATER, rotated_s=NOW_S + 2 * ROTATION_TOLERANCE_S) == 0


@pytest.mark.parametrize(
    ("ttl_s", "remaining_s", "gain_s"),
    [
        (900.0, 900.0, 900 * MIN_GAIN),
        (900.0, 450.0, 900 * MIN_GAIN),  # it came with half of its life, and is as long as any
        (900.0, 100.0, 100 * MAX_HELD),  # held back for longer, it would cost a token
        (60.0, 60.0, 60 * MIN_GAIN),
        (900.0, -1.0, 0.0),
    ],
)
def test_a_token_gains_a_part_of_its_whole_life(
    ttl_s: float, remaining_s: float, gain_s: float
) -> None:
    record, ends_s = answered("a"), NOW_S + 900
    for later_s, is_missing in ((gain_s - 0.1, True), (gain_s + 0.1, False)):
        life = life_of(ends_s + later_s, ttl_s=ttl_s, remaining_s=remaining_s)
        assert (ask(record, written("a"), life) > 0) == is_missing


def test_a_token_gains_by_the_shorter_of_both_lives() -> None:
    record = answered("a")
    assert ask(record, written("a"), LATER) > 0
    assert ask(record, written("a"), TokenLife(LATER.expires_s, 1.0)) == 0
    assert ask(record, written("a"), None) == math.inf
    endless = WriteRecord(
        "secret-uid", ("a", TERM, None, None), EVIDENCE, NEVER, math.inf, Instant(100)
    )
    assert ask(endless, written("a"), TokenLife(NEVER, math.inf)) == math.inf


def test_a_write_whose_answer_was_lost_is_the_last_one_as_soon_as_it_shows() -> None:
    first, second = answered("a"), sent("b")
    both = second.following(first)
    assert last_applied(both, written("b")) == both
    assert ask(both, written("b"), LATER) > 0
    assert last_applied(both, written("a")) == first
    assert ask(first, written("a"), LATER) > 0
    assert last_applied(both, written("c")) == first


def test_so_many_lost_answers_are_remembered_and_no_more() -> None:
    record = answered("0")
    for number in range(1, 3 * MAX_UNANSWERED):
        record = sent(str(number)).following(record)
    depth, seen = 0, record.previous
    while seen is not None:
        depth, seen = depth + 1, seen.previous
    assert depth == MAX_UNANSWERED


@pytest.mark.parametrize(
    ("held", "what"),
    [
        (None, "secret"),
        (written("a", uid="another"), "secret"),
        (written("a", version="21", writers=("kubectl",)), "token"),
        (written("b", version="21"), "annotations"),
        (written("a", version="21"), ""),
    ],
    ids=["deleted", "made again", "overwritten", "annotated", "labelled"],
)
def test_what_another_has_undone_is_named(held: ObjectMeta | None, what: str) -> None:
    record = answered("a")
    owner = Owner.UNOWNED if held is None else owner_of(held, US, record.response)
    assert undone(record, held, owner) == what
    assert undone(sent("a"), held, owner) == ""


def test_records_are_bounded_and_end_with_the_term() -> None:
    records = WriteRecords(max_sessions=2)
    for number in range(3):
        with records.sending(KEY._replace(session_id=str(number)), sent("a")):
            pass
    assert len(records) == 2
    records.clear()
    assert len(records) == 0


@pytest.mark.parametrize(
    ("own_s", "foreign_s", "owner"),
    [
        (100.0, 100.0 - CLOCK_TOLERANCE_S, Owner.OURS),
        (100.0, 101.0 - CLOCK_TOLERANCE_S, Owner.UNCLEAR),
        (100.0, 100.0, Owner.UNCLEAR),
        (100.0, 100.0 + CLOCK_TOLERANCE_S, Owner.FOREIGN),
        (None, 100.0, Owner.FOREIGN),
        (100.0, None, Owner.FOREIGN),
    ],
)
def test_without_an_answer_times_show_the_owner(
    own_s: EpochTime | None, foreign_s: EpochTime | None, owner: Owner
) -> None:
    held = written("a", writers=("platform",), own_s=own_s, foreign_s=foreign_s)
    assert owner_of(held, US, None) is owner


def test_an_answer_is_better_evidence_than_times() -> None:
    equal: dict[str, Any] = {"writers": ("platform",), "own_s": 100.0, "foreign_s": 160.0}
    first = response_of(written("a", **equal), None, sent_at=Instant(50), now_at=Instant(50.1))
    assert owner_of(written("a", **equal), US, first) is Owner.OURS
    later = written("a", version="21", **equal)
    assert owner_of(later, US, first) is Owner.UNCLEAR
    second = response_of(
        later, first, sent_at=Instant(50.1 + CLOCK_TOLERANCE_S), now_at=Instant(53)
    )
    assert owner_of(written("a", version="22", **equal), US, second) is Owner.OURS
    overwritten = written("a", version="22", **(equal | {"foreign_s": 161.0}))
    assert owner_of(overwritten, US, second) is Owner.FOREIGN
    assert owner_of(written("a", uid="other", **equal), US, second) is Owner.FOREIGN


def test_an_owner_is_ours_and_no_owner_is_unowned() -> None:
    assert owner_of(written("a"), US, None) is Owner.OURS
    assert owner_of(written("a", writers=("kubectl", US)), US, None) is Owner.OURS
    assert owner_of(written("a", writers=()), US, None) is Owner.UNOWNED


def test_the_event_of_a_write_is_known_only_while_its_response_is_outstanding() -> None:
    event = written("a")
    assert is_unanswered(sent("a"), event)
    assert not is_unanswered(sent("a"), written("b"))
    assert not is_unanswered(answered("a"), event)
    assert not is_unanswered(None, event)


def test_an_edit_that_the_watch_shows_before_the_answer_is_none_of_ours() -> None:
    records = WriteRecords()
    annotations = {
        NAMES.refreshed_at: "a",
        NAMES.refreshed_by: TERM,
        NAMES.expires_at: "2030-01-01T00:00:00Z",
    }
    edited = secret(age_s=None, annotations=annotations, version="21")
    with suppress(Conflict), records.sending(KEY, sent("a")):
        records.record_seen(edited, now_at=Instant(100.1))
        raise Conflict("the request was repeated", status=409)
    record = records.get(KEY)
    assert record is not None
    assert record.response is not None
    assert is_edited(record, edited)
    assert not is_edited(record, written("a"))
