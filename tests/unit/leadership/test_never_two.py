"""Never two holders, in any interleaving that hypothesis finds; and that it would find them."""

from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from msgspec.structs import replace

from reconciler.clock import Instant
from reconciler.leadership import lease_timing
from reconciler.leadership.election_rules import ObservedLease
from reconciler.leadership.lease import LeaseRecord
from reconciler.leadership.lease_timing import SLEW, ElectionTiming, LeaseHold
from tests.interleavings import check_overrides, play, search
from tests.unit.leadership.model import Replica, TwoHolders, Write, make_world

MOST = 3
TIMINGS = (ElectionTiming(15, 10.0, 2.0), ElectionTiming(5, 3.0, 0.5), ElectionTiming(1, 0.8, 0.2))

RATES = st.one_of(st.sampled_from([1.0 - SLEW, 1.0 + SLEW]), st.floats(1 - SLEW, 1 + SLEW))
OFFSETS = st.sampled_from([0.0, -3600.0, 86_400.0])
REPLICAS = st.integers(0, MOST - 1)


class Interleaving(RuleBasedStateMachine):
    """One run: who does what next is drawn, and so is what the network does with it."""

    replica_class: ClassVar[type[Replica]] = Replica

    @initialize(
        clocks=st.lists(st.tuples(OFFSETS, RATES), min_size=2, max_size=MOST),
        timings=st.lists(st.sampled_from(TIMINGS), min_size=MOST, max_size=MOST),
        pods=st.sets(REPLICAS),
    )
    def start(
        self, clocks: list[tuple[float, float]], timings: list[ElectionTiming], pods: set[int]
    ) -> None:
        count = len(clocks)
        pod_uids = [f"pod-{index}" if index in pods else "" for index in range(count)]
        self.world = make_world(clocks, timings[:count], pod_uids, make=self.replica_class)
        for replica in self.world.replicas:
            self.world.ask(replica)
            self.world.show(replica)

    def replica(self, index: int) -> Replica:
        return self.world.replicas[index % len(self.world.replicas)]

    @invariant()
    def at_most_one_holds(self) -> None:
        self.world.check()

    @rule(index=REPLICAS)
    def act_and_hear_at_once(self, index: int) -> None:
        self.world.act_at_once(self.replica(index))

    @rule(index=REPLICAS)
    def wait_and_act(self, index: int) -> None:
        """All goes well for one replica until it may do something, and then, too."""
        replica = self.replica(index)
        self.world.watch(replica, len(self.world.server.history))
        self.world.advance_to_decision(replica)
        self.world.act_at_once(replica)

    @rule(index=REPLICAS, arrives=st.booleans())
    def act(self, index: int, arrives: bool) -> None:
        write = self.replica(index).act()
        if write is not None and arrives:
            self.world.arrive(write)

    @rule(index=REPLICAS, choice=st.integers(0, 9))
    def arrive(self, index: int, choice: int) -> None:
        """Any write that was ever sent may arrive now, whether its sender still waits or lives."""
        sent = [write for write in self.replica(index).writes if write.state == "sent"]
        if sent:
            self.world.arrive(sent[choice % len(sent)])

    @rule(index=REPLICAS, choice=st.integers(0, 9))
    def answer(self, index: int, choice: int) -> None:
        replica = self.replica(index)
        arrived = [write for write in replica.writes if write.state == "arrived"]
        if arrived:
            self.world.answer(replica, arrived[choice % len(arrived)])

    @rule(index=REPLICAS)
    def give_up(self, index: int) -> None:
        """The write that is waited for has taken too long."""
        self.replica(index).waiting = None

    @rule(index=REPLICAS, count=st.integers(1, 3))
    def watch(self, index: int, count: int) -> None:
        self.world.watch(self.replica(index), count)

    @rule()
    def annotate(self) -> None:
        """Another client changes the Lease, and nothing of its record."""
        self.world.server.annotate()

    @rule(index=REPLICAS)
    def ask(self, index: int) -> None:
        self.world.ask(self.replica(index))

    @rule(index=REPLICAS)
    def show(self, index: int) -> None:
        self.world.show(self.replica(index))

    @rule(seconds=st.one_of(st.floats(0.0, 2.0), st.floats(0.0, 20.0)))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(index=REPLICAS)
    def advance_to_decision(self, index: int) -> None:
        self.world.advance_to_decision(self.replica(index))

    @rule(index=REPLICAS, arrives=st.booleans())
    def release(self, index: int, arrives: bool) -> None:
        replica = self.replica(index)
        before = len(replica.writes)
        replica.release()
        if arrives:
            for write in replica.writes[before:]:
                self.world.arrive(write)

    @rule(index=REPLICAS)
    def restart(self, index: int) -> None:
        """Kill -9 and a new process, which looks at the Lease first."""
        replica = self.replica(index)
        replica.start()
        self.world.ask(replica)
        self.world.show(replica)


def _hold_until(write: Write, ends_at: Instant) -> LeaseHold:
    return LeaseHold(write.transitions, write.sent_at, ends_at, ends_at)


class NoMargin(Replica):
    """The whole lease is used: the slow clock of a holder outlasts a follower's fast one."""

    def hold_of(self, write: Write) -> LeaseHold:
        return _hold_until(write, write.sent_at + self.timing.lease_s)


class HalfTheMargin(Replica):
    """Only one of the two clocks is allowed for."""

    def hold_of(self, write: Write) -> LeaseHold:
        valid_until = write.sent_at + (1 - SLEW) * self.timing.lease_s
        return _hold_until(write, valid_until)


class FromTheAnswer(Replica):
    """client-go's way: validity counts from when the answer came."""

    def hold_of(self, write: Write) -> LeaseHold:
        return lease_timing.hold_from(write.transitions, self.clock.monotonic(), self.timing)


class OwnDuration(Replica):
    """kubernetes#47671: a follower waits for the duration that it would claim itself."""

    def look(self, record: LeaseRecord | None, version: str, *, settled: bool) -> ObservedLease:
        if record is None or not record.holder:
            return super().look(record, version, settled=settled)
        changed = replace(record, duration_s=self.timing.lease_s)
        return replace(super().look(changed, version, settled=settled), record=record)


class FirstClaimOnly(Replica):
    """A renewal that is seen does not prolong the holder's claim."""

    def look(self, record: LeaseRecord | None, version: str, *, settled: bool) -> ObservedLease:
        old, observed = self.observed, super().look(record, version, settled=settled)
        if old is None or old.record is None or observed.record is None:
            return observed
        if old.record.holder != observed.record.holder:
            return observed
        return replace(observed, expires_at=old.expires_at)


class RepeatsItsMark(Replica):
    """A renewal is not distinguished from another client's edit of the former one."""

    def mark_of(self, record: LeaseRecord | None) -> str:
        is_renewal = record is not None and record.holder == str(self.me)
        return record.renewed if record is not None and is_renewal else super().mark_of(record)


class BlindWrites(Replica):
    """A write that is applied at any version."""

    def act(self) -> Write | None:
        write = super().act()
        if write is not None and write.expected is not None:
            write.is_blind = True
        return write


class ReleasesFirst(Replica):
    """client-go's order: the Lease is given up before the work has stopped."""

    def release(self) -> None:
        valid_until = self.hold.expires_at if self.hold is not None else None
        super().release()
        if valid_until is not None:
            self.fence.open(self.name, valid_until, valid_until)


MUTANTS = [
    NoMargin,
    HalfTheMargin,
    FromTheAnswer,
    OwnDuration,
    FirstClaimOnly,
    RepeatsItsMark,
    BlindWrites,
    ReleasesFirst,
]


FOUND_BY = {
    HalfTheMargin: 1,
    FirstClaimOnly: 5,
    RepeatsItsMark: 5,
    BlindWrites: 7,
    ReleasesFirst: 2,
}
"""The seed that finds a mutant, where the first one does not."""


def played_by(replica_class: type[Replica]) -> type[Interleaving]:
    class Chosen(Interleaving):
        pass

    Chosen.replica_class = replica_class
    return Chosen


def test_no_interleaving_has_two_holders() -> None:
    play(played_by(Replica), 700)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_it_finds_the_two_holders_of_wrong_rules(mutant: type[Replica]) -> None:
    check_overrides(mutant)
    with pytest.raises(TwoHolders):
        search(played_by(mutant), 20_000, first=FOUND_BY.get(mutant, 0))
