"""The lease rules row by row: what was seen and when, and what is to be done now."""

import pytest
from msgspec.structs import replace

from reconciler.clock import NEVER, Instant
from reconciler.leadership.election_rules import (
    Acquire,
    Decision,
    Lost,
    ObservedLease,
    Renew,
    Wait,
    decide,
    observe,
)
from reconciler.leadership.lease import RELEASED_S, Identity, LeaseRecord
from reconciler.leadership.lease_timing import (
    DRIFT,
    MAX_LEASE_S,
    SLEW,
    ElectionTiming,
    LeaseHold,
    expires_at,
    hold_from,
)

TIMING = ElectionTiming(15, 10.0, 2.0)
ME = Identity("replica-0", "pod-0", "me")
OTHER = "replica-1_pod-1_other"
PREDECESSOR = "replica-0_pod-0_before"
FOREIGN_S = 40
NOW = Instant(1000)


def record(
    holder: str, duration_s: int = FOREIGN_S, *, version: str = "7", count: int = 3
) -> LeaseRecord:
    return LeaseRecord("uid", version, holder, duration_s, "", count)


def seen(
    *versions: LeaseRecord | None, at: Instant = NOW, apart_s: float = 2.0, settled: bool = False
) -> ObservedLease:
    """Look at one version after the other, the last of them at `at`; None is an absence.

    An absence has the version after the one before it.
    """
    observed: ObservedLease | None = None
    first_at = at - apart_s * (len(versions) - 1)
    for index, found in enumerate(versions):
        version = found.version if found is not None else "1"
        if found is None and observed is not None:
            version = str(int(observed.version) + 1)
        is_last = index == len(versions) - 1
        observed = observe(
            observed,
            found,
            version,
            first_at + apart_s * index,
            me=ME,
            timing=TIMING,
            authoritative=settled and is_last,
        )
    assert observed is not None
    return observed


def decided(
    observed: ObservedLease | None, after_s: float = 0.0, *, spread_s: float = 0.0
) -> Decision:
    return decide(observed, None, NOW + after_s, me=ME, timing=TIMING, jitter_s=spread_s)


HELD, RENEWED = record(OTHER), record(OTHER, version="8")
MARKED = replace(HELD, renewed="2026-01-01T00:00:00.000000Z")
OURS = record(str(ME), 15)
RELEASED = record("", RELEASED_S, version="8")
EMPTIED = record("", FOREIGN_S, version="8")
NOTHING = LeaseRecord("uid", "7", "", 0, "", 0)


class TestStandby:
    def test_nothing_is_done_before_the_first_look(self) -> None:
        assert decided(None) == Wait(NEVER)

    @pytest.mark.parametrize(
        ("versions", "free_after_s", "transitions"),
        [
            ([None], 0.0, 0),
            ([NOTHING], 0.0, 1),
            ([record("", RELEASED_S)], 0.0, 4),
            ([record("")], FOREIGN_S, 4),
            ([HELD], FOREIGN_S, 4),
            ([record(OTHER, 0)], 15.0, 4),
            ([record(OTHER, 2**31 - 1)], MAX_LEASE_S, 4),
            ([HELD, RENEWED], FOREIGN_S, 4),
            ([MARKED, replace(MARKED, version="8")], FOREIGN_S - 2.0, 4),
            ([MARKED, replace(MARKED, version="8"), None], FOREIGN_S - 4.0, 4),
            ([HELD, RELEASED], 0.0, 4),
            ([HELD, EMPTIED], FOREIGN_S - 2.0, 4),
            ([HELD, replace(NOTHING, version="8")], FOREIGN_S - 2.0, 1),
            ([HELD, None], FOREIGN_S - 2.0, 4),
            ([HELD, None, None], FOREIGN_S - 4.0, 4),
            ([HELD, replace(RENEWED, duration_s=1)], FOREIGN_S - 2.0, 4),
            ([OURS], 0.0, 3),
            ([HELD, replace(OURS, version="8")], 0.0, 3),
            ([OURS, None], 0.0, 4),
            ([OURS, replace(EMPTIED, duration_s=15)], 0.0, 4),
            ([record(PREDECESSOR)], 0.0, 4),
            ([HELD, record(PREDECESSOR, version="8")], FOREIGN_S, 4),
            ([record(PREDECESSOR), record(PREDECESSOR, version="8")], FOREIGN_S, 4),
        ],
        ids=[
            "absent",
            "empty spec",
            "released",
            "found emptied",
            "held, by its own duration",
            "held without a duration",
            "held for an absurd duration",
            "renewed",
            "annotated by another client",
            "annotated and deleted",
            "released while we look",
            "emptied by hand while held",
            "its whole spec removed while held",
            "deleted while held",
            "absent still",
            "duration shortened by hand",
            "ours",
            "ours after another's",
            "ours, deleted",
            "ours, emptied by hand",
            "a predecessor's at the first look",
            "a predecessor's at a later look",
            "a predecessor that still renews",
        ],
    )
    def test_a_lease_is_left_alone_until_no_replica_can_hold_it(
        self, versions: list[LeaseRecord | None], free_after_s: float, transitions: int
    ) -> None:
        observed = seen(*versions)
        if free_after_s:
            assert decided(observed, free_after_s - 0.001) == Wait(NOW + free_after_s)
        assert decided(observed, free_after_s) == Acquire(observed.record, transitions)

    def test_a_jitter_delays_only_what_runs_out(self) -> None:
        assert decided(seen(HELD), FOREIGN_S, spread_s=0.3) == Wait(NOW + FOREIGN_S + 0.3)
        for free in (seen(HELD, RELEASED), seen(record(PREDECESSOR)), seen(OURS)):
            assert isinstance(decided(free, spread_s=0.3), Acquire)

    def test_no_write_is_sent_before_the_pause_after_a_failure(self) -> None:
        observed = seen(record("", RELEASED_S))
        decision = decide(observed, None, NOW, me=ME, timing=TIMING, try_at=NOW + 0.5)
        assert decision == Wait(NOW + 0.5)


class TestObservations:
    def test_the_same_version_again_dates_from_the_first_look(self) -> None:
        observed = seen(HELD)
        assert observe(observed, HELD, "7", NOW + 9.0, me=ME, timing=TIMING) is observed

    @pytest.mark.parametrize("version", ["6", "1", "7"])
    def test_an_older_version_is_no_news(self, version: str) -> None:
        observed = seen(HELD)
        late = record("", RELEASED_S, version=version)
        assert observe(observed, late, version, NOW, me=ME, timing=TIMING) is observed

    def test_versions_are_numbers_not_text(self) -> None:
        observed = seen(record(OTHER, version="9"), record("", RELEASED_S, version="10"))
        assert observed.version == "10"

    def test_an_absence_of_long_ago_is_no_news(self) -> None:
        observed = seen(HELD)
        assert observe(observed, None, "5", NOW, me=ME, timing=TIMING) is observed

    def test_versions_that_are_no_numbers_are_all_news(self) -> None:
        observed = seen(record(OTHER, version="x1"), RELEASED)
        assert observed.version == "8"

    def test_transitions_outlive_a_deletion(self) -> None:
        assert seen(HELD, None, None).transitions == HELD.transitions


class TestRestoredFromABackup:
    """A settled read that shows an older version: the history that we saw is undone."""

    @pytest.mark.parametrize(
        "restored",
        [
            record(OTHER, version="4"),
            replace(OURS, version="4"),
            record("", RELEASED_S, version="4"),
            None,
        ],
        ids=["held", "ours", "released", "absent"],
    )
    def test_the_last_holder_is_still_waited_for(self, restored: LeaseRecord | None) -> None:
        observed = seen(HELD)
        back = observe(observed, restored, "4", NOW + 1.0, me=ME, timing=TIMING, authoritative=True)
        assert back.version == "4"
        assert decided(back, FOREIGN_S - 0.001) != Acquire(restored, 4)
        assert isinstance(decided(back, FOREIGN_S + 1.0), Acquire)

    def test_a_holder_that_is_still_in_it_renews_the_version_that_is_there(self) -> None:
        observed = seen(replace(OURS, version="90"))
        restored = replace(OURS, version="50")
        back = observe(observed, restored, "50", NOW, me=ME, timing=TIMING, authoritative=True)
        hold = hold_from(3, NOW - 2.0, TIMING)
        assert decide(back, hold, NOW, me=ME, timing=TIMING) == Renew(restored)


class TestHolder:
    TENURE = hold_from(3, NOW, TIMING)

    def kept(
        self, observed: ObservedLease | None, after_s: float, *, try_after_s: float = 2.0
    ) -> Decision:
        return decide(
            observed,
            self.TENURE,
            NOW + after_s,
            me=ME,
            timing=TIMING,
            try_at=NOW + try_after_s,
        )

    @pytest.mark.parametrize(
        ("after_s", "try_after_s", "wanted"),
        [
            (0.0, 2.0, Wait(NOW + 2.0)),
            (2.0, 2.0, Renew(OURS)),
            (9.9, 2.0, Renew(OURS)),
            (9.9, 10.5, Wait(NOW + 10.0)),
            (10.0, 10.5, Lost("not renewed for 10.0 s")),
            (10.0, 2.0, Lost("not renewed for 10.0 s")),
            (60.0, 2.0, Lost("not renewed for 60.0 s")),
        ],
        ids=["early", "due", "last moment", "paused", "deadline", "deadline, due", "thawed"],
    )
    def test_it_is_renewed_until_the_deadline(
        self, after_s: float, try_after_s: float, wanted: Decision
    ) -> None:
        assert self.kept(seen(OURS), after_s, try_after_s=try_after_s) == wanted

    @pytest.mark.parametrize(
        ("found", "why"),
        [
            (record(OTHER, version="8"), f"held by {OTHER}"),
            (record(PREDECESSOR, version="8"), f"held by {PREDECESSOR}"),
            (EMPTIED, "its holder was emptied"),
            (None, "the Lease was deleted"),
        ],
        ids=["another", "another of our pod", "emptied", "deleted"],
    )
    def test_it_is_lost_at_once_when_the_lease_says_so(
        self, found: LeaseRecord | None, why: str
    ) -> None:
        assert self.kept(seen(OURS, found), 0.0) == Lost(why)

    def test_it_ends_before_the_lease_by_what_two_clocks_may_be_off(self) -> None:
        assert LeaseHold(3, NOW, NOW + 15 - 2 * SLEW * 15, NOW + 15 - 2 * DRIFT * 15) == self.TENURE
        assert expires_at(self.TENURE, TIMING) == NOW + 10.0

    def test_a_deadline_close_to_the_lease_does_not_outlast_it(self) -> None:
        close = ElectionTiming(10, 9.95, 2.0)
        hold = hold_from(3, NOW, close)
        assert expires_at(hold, close) == hold.expires_at == pytest.approx(NOW + 10 - 2 * SLEW * 10)


def test_two_requests_fit_into_the_deadline() -> None:
    assert 2 * TIMING.request_s <= TIMING.deadline_s
