"""Replicas, a linearizable Lease and the network between them: every step is a choice of the test.

Real time moves only by `advance`; each replica has a clock with an offset and a rate.
A replica that is given no step is frozen. A request may reach the server at any later time, or
never, and so may its answer: what a client gave up on is applied if it arrives.
Decisions and intervals are the product's own functions; nothing of them is repeated here.
"""

from dataclasses import dataclass, field

from msgspec.structs import replace

from reconciler.clock import NEVER, EpochTime, Instant
from reconciler.leadership import election_rules, lease_timing
from reconciler.leadership.election_rules import Acquire, Lost, ObservedLease, Renew, Wait
from reconciler.leadership.lease import RELEASED_S, Identity, LeaseRecord
from reconciler.leadership.lease_fence import LeaseFence
from reconciler.leadership.lease_timing import ElectionTiming, LeaseHold


class TwoHolders(AssertionError):
    """Two replicas may write at the same moment."""


@dataclass
class RealTime:
    """Seconds, shared by all; the model reads it only through a `SkewedClock`."""

    now_s: float = 0.0


@dataclass(frozen=True)
class SkewedClock:
    """A `Clock` that is off, and runs fast or slow by a part that stays."""

    real: RealTime
    offset_s: float
    rate: float

    def monotonic(self) -> Instant:
        return Instant(self.offset_s + self.real.now_s * self.rate)

    def wall(self) -> EpochTime:
        return EpochTime(float(self.monotonic()))

    def real_s(self, at: Instant) -> float:
        """Return the real time at which this clock shows `at`."""
        return float(at - self.offset_s) / self.rate


@dataclass
class Server:
    """One Lease; each write names the version that it replaces."""

    history: list[LeaseRecord] = field(default_factory=list)

    @property
    def current(self) -> LeaseRecord | None:
        return self.history[-1] if self.history else None

    @property
    def version(self) -> str:
        return str(len(self.history) + 1)

    def write(self, expected: LeaseRecord | None, write: "Write") -> bool:
        """Apply a create (`expected` None) or a patch of one version; False for a conflict."""
        if expected != self.current:
            return False
        version, count = str(len(self.history) + 2), write.transitions
        self.history.append(
            LeaseRecord("uid", version, write.holder, write.duration_s, "", count, write.mark)
        )
        return True

    def annotate(self) -> None:
        """Let another client change what is no part of the record."""
        if self.current is not None:
            version = str(len(self.history) + 2)
            self.history.append(replace(self.current, version=version))


@dataclass
class Write:
    """A write under way, or done; `state` is what the network did with it so far.

    `mark` is its `renewTime`.
    """

    expected: LeaseRecord | None
    holder: str
    duration_s: int
    transitions: int
    sent_at: Instant
    mark: str
    state: str = "sent"
    made: LeaseRecord | None = None
    is_blind: bool = False


@dataclass
class Reading:
    """A list under way: `found` is what the server showed, once it was asked."""

    settled: bool
    asked: bool = False
    found: LeaseRecord | None = None
    version: str = ""


class Replica:
    """The thinnest elector that the rules allow: no pauses, no limits, nothing forgotten.

    Args:
        pod_uid: "" for a replica with restarts that are not recognised.
    """

    def __init__(
        self,
        name: str,
        server: Server,
        clock: SkewedClock,
        timing: ElectionTiming,
        *,
        pod_uid: str = "",
    ) -> None:
        self.name = name
        self.server = server
        self.clock = clock
        self.timing = timing
        self.pod_uid = pod_uid
        self.lives = 0
        self.writes: list[Write] = []
        self.start()

    def start(self) -> None:
        """Be a new process: all that the old one knew is gone; what it sent is still under way."""
        self.lives += 1
        self.me = Identity(self.name, self.pod_uid, f"life{self.lives}")
        self.fence = LeaseFence(self.clock, self.name)
        self.observed: ObservedLease | None = None
        self.hold: LeaseHold | None = None
        self.waiting: Write | None = None
        self.reading: Reading | None = None
        self.watched = len(self.server.history)

    def decide(self) -> election_rules.Decision:
        now_at = self.clock.monotonic()
        return election_rules.decide(
            self.observed, self.hold, now_at, me=self.me, timing=self.timing
        )

    def act(self) -> Write | None:
        """Do what the rules say now; a write that is still waited for keeps others back."""
        if self.waiting is not None:
            return None
        match self.decide():
            case Acquire(record, transitions):
                return self._send(record, transitions)
            case Renew(record):
                return self._send(record, record.transitions)
            case Lost():
                self.lose()
        return None

    def _send(self, record: LeaseRecord | None, transitions: int) -> Write:
        sent_at = self.clock.monotonic()
        mark = self.mark_of(record)
        self.waiting = Write(record, str(self.me), self.timing.lease_s, transitions, sent_at, mark)
        self.writes.append(self.waiting)
        return self.waiting

    def mark_of(self, record: LeaseRecord | None) -> str:
        """Return what marks the next write, which replaces `record`: none has it yet."""
        return f"{self.me} {len(self.writes)}"

    def answered(self, write: Write) -> None:
        """Take in the answer of the write that is waited for; others come too late to be heard."""
        if write is not self.waiting:
            return
        self.waiting = None
        if write.made is None:
            self.reading = Reading(settled=True)
            return
        self.see(write.made, write.made.version)
        record = self.observed.record if self.observed is not None else None
        if record is not None and record.holder == str(self.me):
            self.hold = self.hold_of(write)
            self.fence.open(self.name, self.hold.expires_at, self.hold.answers_until)

    def hold_of(self, write: Write) -> LeaseHold:
        return lease_timing.hold_from(write.transitions, write.sent_at, self.timing)

    def see(self, record: LeaseRecord | None, version: str, *, settled: bool = False) -> None:
        self.observed = self.look(record, version, settled=settled)
        if self.hold is not None and isinstance(self.decide(), Lost):
            self.lose()

    def look(self, record: LeaseRecord | None, version: str, *, settled: bool) -> ObservedLease:
        now_at = self.clock.monotonic()
        return election_rules.observe(
            self.observed,
            record,
            version,
            now_at,
            me=self.me,
            timing=self.timing,
            authoritative=settled,
        )

    def lose(self) -> None:
        self.fence.close()
        self.hold = None

    def release(self) -> None:
        """Stand down and say so; the process goes on as a follower."""
        hold, record = self.hold, self.observed.record if self.observed is not None else None
        self.lose()
        if hold is None or record is None or record.holder != str(self.me):
            return
        sent_at, mark = self.clock.monotonic(), self.mark_of(record)
        self.writes.append(Write(record, "", RELEASED_S, record.transitions, sent_at, mark))


@dataclass
class World:
    """All of it, and the claim that is checked after every step."""

    replicas: list[Replica]
    server: Server
    real: RealTime

    def check(self) -> None:
        """Raise `TwoHolders` if more than one fence is open at this moment.

        A fence that opens later opens in a separate step, after which this is called, too.
        """
        held = [replica.name for replica in self.replicas if replica.fence.is_open]
        if len(held) > 1:
            raise TwoHolders(f"at {self.real.now_s} s: {held}")

    def advance(self, seconds: float) -> None:
        self.real.now_s += seconds

    def advance_to_decision(self, replica: Replica) -> None:
        """Let time pass until the rules decide something new for this replica, if they will."""
        decision = replica.decide()
        if isinstance(decision, Wait) and decision.until != NEVER:
            # A millionth on top, as rounding between two clocks could leave it a moment short.
            until_s = replica.clock.real_s(decision.until) + 1e-6
            self.real.now_s = max(self.real.now_s, until_s)

    def arrive(self, write: Write) -> None:
        """Let a write reach the server, which applies it or not."""
        if write.state != "sent":
            return
        write.state = "arrived"
        expected = self.server.current if write.is_blind else write.expected
        if self.server.write(expected, write):
            write.made = self.server.current

    def answer(self, replica: Replica, write: Write) -> None:
        """Let the answer of a write that has arrived reach its sender."""
        if write.state == "arrived":
            write.state = "answered"
            replica.answered(write)

    def act_at_once(self, replica: Replica) -> None:
        """Let a replica do what the rules say, with a network that takes no time."""
        write = replica.act()
        if write is not None:
            self.arrive(write)
            self.answer(replica, write)

    def watch(self, replica: Replica, count: int) -> None:
        """Deliver the next `count` versions that the replica's watch has not brought yet."""
        for record in self.server.history[replica.watched : replica.watched + count]:
            replica.watched += 1
            replica.see(record, record.version)

    def ask(self, replica: Replica) -> None:
        """Let the list that a replica wants, or any list, reach the server."""
        reading = replica.reading or Reading(settled=False)
        reading.asked, reading.found = True, self.server.current
        reading.version = self.server.version
        replica.reading = reading

    def show(self, replica: Replica) -> None:
        """Let the answer of a list reach the replica."""
        reading = replica.reading
        if reading is None or not reading.asked:
            return
        replica.reading = None
        version = reading.found.version if reading.found is not None else reading.version
        replica.see(reading.found, version, settled=reading.settled)


def make_world(
    clocks: list[tuple[float, float]],
    timings: list[ElectionTiming],
    pod_uids: list[str],
    *,
    make: type[Replica] = Replica,
) -> World:
    """Return replicas that have looked at no Lease yet.

    Args:
        clocks: Offset in seconds and rate, one a replica; as long as the other two.
        make: The class of replica: the product's rules, or a mutant of them.
    """
    server, real = Server(), RealTime()
    replicas = [
        make(f"replica-{index}", server, SkewedClock(real, *clock), timing, pod_uid=pod_uid)
        for index, (clock, timing, pod_uid) in enumerate(
            zip(clocks, timings, pod_uids, strict=True)
        )
    ]
    return World(replicas, server, real)
