"""What a seed stands for: who comes and goes, what breaks when, and for how long (pure)."""

from dataclasses import dataclass
from random import Random
from typing import Literal

TTL_S = 900.0
PROPAGATION_S = 90.0
"""Allowance that the controller is told; the world's kubelet is never slower."""

SLACK_S = 0.4 * TTL_S - PROPAGATION_S
"""What a fault may last before anybody notices."""

DETECTION_S = 20.0
"""Part of the slack that noticing a fault's end, and writing after it, may take."""

RECOVERY_S = 60.0
"""Least pause between two faults: each is to be survived by itself."""

PAUSE_S = 15.0
"""What it takes from a fault's end until all is served that waited for it."""

WATCH_PAUSE_S = 16.0
"""Longest pause of a watch that was broken again and again: a pod that appears meanwhile is not
seen. Source: `informer.backoff`, 8 s with a jitter of 1.0."""

COLD_START_S = 10.0
"""The fleet exists before the controller does; what was dead then is not its doing."""

FaultKind = Literal[
    "issuer_away", "issuer_slow", "issuer_short", "issuer_refusing",
    "kube_errors", "kube_away", "watch_drop", "watch_silence", "compaction",
    "platform_away", "platform_partial", "platform_empty",
    "secret_deleted", "secret_overwritten", "controller_killed",
    "leader_killed", "leader_frozen", "leader_stalled", "leader_cut", "clock_step",
]  # fmt: skip

LONGEST_S: dict[FaultKind, float] = {
    "issuer_away": SLACK_S - DETECTION_S,
    "issuer_slow": SLACK_S - DETECTION_S,
    "issuer_short": 600.0,
    "issuer_refusing": 120.0,
    "kube_errors": 120.0,
    "kube_away": SLACK_S - 2 * DETECTION_S,
    "watch_drop": 120.0,
    "watch_silence": 200.0,
    "compaction": 60.0,
    "platform_away": 900.0,
    "platform_partial": 900.0,
    "platform_empty": 900.0,
    "secret_deleted": 1.0,
    "secret_overwritten": 1.0,
    "controller_killed": SLACK_S - 2 * DETECTION_S - COLD_START_S,
    "leader_killed": 120.0,
    "leader_frozen": 120.0,
    "leader_stalled": 120.0,
    "leader_cut": 120.0,
    "clock_step": 600.0,
}
"""Longest draw that must cost nobody a live token. What the platform says or not costs no running
session anything, however long."""

HARMLESS = frozenset(
    {
        "issuer_slow", "issuer_short", "platform_empty", "secret_deleted", "secret_overwritten",
        "clock_step",
    }
)  # fmt: skip
"""Faults during which even a session that starts on a dead token is served at once."""

ELECTION: tuple[FaultKind, ...] = (
    "leader_killed", "leader_frozen", "leader_stalled", "leader_cut", "clock_step",
    "watch_silence", "watch_drop",
)  # fmt: skip
"""What may split an election."""

RATE = 0.005
"""Largest error of a replica's clock rate: half of what the lease rules bear."""

WATCH_BREAKING = frozenset({"watch_drop", "compaction", "kube_errors"})

PLATFORM_ONLY = frozenset({"platform_away", "platform_partial"})

FATAL: tuple[FaultKind, ...] = ("issuer_away", "kube_away", "controller_killed")
"""Faults that are now and then drawn longer than a token lives: reported, not asserted."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `size` in [0, 1) says how bad, in the kind's own terms."""

    kind: FaultKind
    at_s: float
    length_s: float
    size: float

    @property
    def end_s(self) -> float:
        return self.at_s + self.length_s


@dataclass(frozen=True, slots=True)
class Stay:
    """One pod's life; `token_s` is what its Secret's token has left if the Secret is made for it,
    None for a Secret without a value. It ends by itself (`finishes`) or is deleted."""

    start_s: float
    end_s: float
    token_s: float | None
    finishes: bool


@dataclass(frozen=True, slots=True)
class Life:
    """One session; later stays are restarts on the old Secret. The platform does not know those
    that are `forged`."""

    session_id: str
    project: str
    stays: tuple[Stay, ...]
    forged: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that happens to one world.

    Args:
        skew_s: The controller's wall clock less everybody else's.
        within_slack: No fault is longer than what must cost nothing.
        rates: Of each replica's monotonic clock.
    """

    seed: int
    length_s: float
    projects: tuple[str, ...]
    lives: tuple[Life, ...]
    faults: tuple[Fault, ...]
    skew_s: float
    within_slack: bool
    rates: tuple[float, ...]

    @property
    def replicas(self) -> int:
        return len(self.rates)

    def excused_until_s(self, at_s: float, *, sealed: bool) -> float:
        """Return until when a runner that starts now may be without a live token.

        One that starts on a dead token while something is broken waits for its end like all else.
        An outage of the platform excuses only sessions that were never confirmed.

        Args:
            sealed: Whether its Secret says that the platform once confirmed it.
        """
        if at_s < COLD_START_S:
            return COLD_START_S
        for fault in self.faults:
            if fault.kind in HARMLESS or (sealed and fault.kind in PLATFORM_ONLY):
                continue
            pause_s = WATCH_PAUSE_S if fault.kind in WATCH_BREAKING else PAUSE_S
            if fault.at_s - 5.0 <= at_s <= fault.end_s + pause_s:
                return fault.end_s + pause_s + PAUSE_S
        return 0.0


def draw(seed: int, hours: float = 1.0) -> Scenario:
    """Return the scenario of a seed: the same for the same arguments, in every process."""
    random = Random(f"scenario {seed}")
    length_s = hours * 3600.0
    projects = tuple(f"Team-{letter}" for letter in "abcdef"[: random.randint(1, 6)])
    lives = [
        _life(random, f"Sess{index:04d}", random.choice(projects), length_s, forged=False)
        for index in range(random.randint(20, 80))
    ]
    lives += [
        _life(random, f"Fake{index:04d}", random.choice(projects), length_s, forged=True)
        for index in range(random.randint(0, 2))
    ]
    faults, within = _faults(random, length_s)
    skew_s = random.uniform(-3600.0, 3600.0) if random.random() < 0.2 else 0.0
    rates = tuple(random.uniform(1 - RATE, 1 + RATE) for _ in range(random.choice((1, 2, 3))))
    return Scenario(seed, length_s, projects, tuple(lives), faults, skew_s, within, rates)


def draw_election(seed: int) -> Scenario:
    """Return a short scenario of three replicas and nothing but faults of the leader's."""
    random = Random(f"election {seed}")
    length_s = 600.0
    lives = tuple(
        _life(random, f"Sess{index:04d}", "Team-a", length_s, forged=False) for index in range(8)
    )
    faults: list[Fault] = []
    at_s = random.uniform(12.0, 20.0)
    while at_s < length_s - 60.0:
        kind = random.choice(ELECTION)
        span_s = random.uniform(0.5, 45.0)
        faults.append(Fault(kind, at_s, span_s, random.random()))
        # Often the next one strikes before the last one is over.
        at_s += random.uniform(1.0, 50.0)
    rates = tuple(random.uniform(1 - RATE, 1 + RATE) for _ in range(3))
    return Scenario(seed, length_s, ("Team-a",), lives, tuple(faults), 0.0, False, rates)


def _life(random: Random, session_id: str, project: str, length_s: float, *, forged: bool) -> Life:
    start_s = 0.0 if random.random() < 0.6 else random.uniform(0.0, length_s)
    stays: list[Stay] = []
    while start_s < length_s and len(stays) < 4:
        stays_on = not stays and random.random() < 0.5
        end_s = length_s + 1 if stays_on else start_s + random.expovariate(1 / 1200.0) + 20.0
        stays.append(Stay(start_s, end_s, _token_s(random), random.random() < 0.5))
        if random.random() < 0.3:
            break
        start_s = end_s + 70.0 + random.expovariate(1 / 400.0)
    return Life(session_id, project, tuple(stays), forged)


def _token_s(random: Random) -> float | None:
    """Draw what the platform's first token has left: often it was cached for long."""
    chance = random.random()
    if chance < 0.1:
        return None
    return random.uniform(30.0, 90.0) if chance < 0.3 else random.uniform(90.0, TTL_S)


def _faults(random: Random, length_s: float) -> tuple[tuple[Fault, ...], bool]:
    faults: list[Fault] = []
    kinds = list(LONGEST_S)
    fatal = random.choice(FATAL) if random.random() < 0.1 else None
    at_s = random.uniform(20.0, 300.0)
    while True:
        kind = random.choice(kinds)
        longest_s = LONGEST_S[kind]
        span_s = random.uniform(0.02 * longest_s, longest_s)
        if fatal is not None:
            kind, span_s, fatal = fatal, random.uniform(1.0, 2.0) * TTL_S, None
        if at_s + span_s + 2 * RECOVERY_S > length_s:
            break
        faults.append(Fault(kind, at_s, span_s, random.random()))
        at_s += span_s + RECOVERY_S + random.expovariate(1 / 150.0)
    within = all(fault.length_s <= LONGEST_S[fault.kind] for fault in faults)
    return tuple(faults), within
