"""Which token a pod may still read, from what its Secret and itself say."""

import pytest

from reconciler.clock import LONG_AGO, EpochTime, format_utc, format_utc_millis
from reconciler.controller.decide.annotations import (
    MOUNT_S,
    UNKNOWN,
    UNKNOWN_S,
    ClockStep,
    ReadableToken,
    parse_annotations,
    readable_token,
)
from reconciler.controller.decide.evidence import owner_of
from reconciler.kube.api import ObjectMeta
from tests.unit.controller.build import NAMES, NOW_S, TTL_S, pod, secret

D = 90.0
FRESH_S = NOW_S - 10 + TTL_S
"""End of the token that `written` puts into a Secret ten seconds ago."""


def written(former: str) -> ObjectMeta:
    return secret(
        annotations={
            NAMES.refreshed_at: format_utc_millis(NOW_S - 10),
            NAMES.previous_expires_at: former,
        }
    )


def touched(at_s: EpochTime) -> ObjectMeta:
    return pod(annotations={NAMES.touched_at: format_utc_millis(at_s)})


DEAD, LASTING = format_utc(NOW_S - 300), format_utc(NOW_S + 300)
SEEING: dict[str, tuple[ObjectMeta | None, EpochTime]] = {
    "no pod": (None, NOW_S),
    "a pod on its way out": (pod(is_deleting=True), NOW_S),
    "touched since": (touched(NOW_S - 9.8), NOW_S),
    "made since": (pod(created_s=NOW_S - 10 + MOUNT_S + 1), NOW_S),
    "after the kubelet's own look": (pod(), NOW_S - 10 + D),
}


def ask(
    on: ObjectMeta | None,
    former: str,
    *,
    now_s: EpochTime = NOW_S,
    held: ObjectMeta | None = None,
    steps: tuple[ClockStep, ...] = (),
) -> ReadableToken:
    """Return when what the pod reads ends, and whether it must look."""
    secret = held or written(former)
    facts = parse_annotations(
        secret,
        NAMES,
        owner=owner_of(secret, NAMES.field_manager, None),
        now_s=now_s,
        longest_ttl_s=TTL_S,
        static=False,
        pod=on,
    )
    return readable_token(facts, on, propagation_s=D, now_s=now_s, steps=steps)


STEPS = (ClockStep(NOW_S - 5, 100.0), ClockStep(NOW_S + 98, 200.0))
"""The estimate moves by 100 s five seconds after the write, and by 200 s three seconds later."""


def test_a_write_from_before_a_step_of_the_issuers_time_is_no_older_for_it() -> None:
    later_s = NOW_S + 300
    assert ask(pod(), DEAD, now_s=later_s) == (FRESH_S, False)
    assert ask(pod(), DEAD, now_s=later_s, steps=STEPS) == (NOW_S - 300, True)
    assert ask(pod(), DEAD, now_s=later_s + D, steps=STEPS) == (FRESH_S, False)


def test_a_touch_from_before_a_step_follows_its_write_after_it_too() -> None:
    assert ask(touched(NOW_S - 9.8), DEAD, now_s=NOW_S + 300, steps=STEPS) == (FRESH_S, False)


def test_a_step_before_the_write_changes_nothing() -> None:
    steps = (ClockStep(NOW_S - 11, 100.0),)
    assert ask(pod(), DEAD, steps=steps) == ask(pod(), DEAD)


def test_an_untouched_pod_may_still_read_the_expired_token() -> None:
    assert ask(pod(), DEAD) == (NOW_S - 300, True)


def test_of_an_unknown_one_the_worst_is_assumed() -> None:
    assert ask(pod(), UNKNOWN) == (UNKNOWN_S, True)


def test_one_that_outlives_the_next_sync_asks_for_nothing() -> None:
    assert ask(pod(), LASTING) == (NOW_S + 300, False)


@pytest.mark.parametrize("case", SEEING)
def test_a_pod_that_has_synced_or_never_will_reads_the_secrets_own(case: str) -> None:
    on, now_s = SEEING[case]
    assert ask(on, DEAD, now_s=now_s) == (FRESH_S, False)


def test_a_touch_before_the_write_is_none() -> None:
    assert ask(touched(NOW_S - 11), DEAD) == (NOW_S - 300, True)


@pytest.mark.parametrize("former", ["", "garbage", "2026-01-01T00:00:00"])
def test_a_secret_without_annotations_needs_no_touch(former: str) -> None:
    assert ask(pod(), former) == (FRESH_S, False)


def test_anothers_token_counts_as_expired() -> None:
    assert ask(pod(), "", held=secret(writers=("kubectl",)))[0] == LONG_AGO
