"""The scenario of a seed: its sessions and pods, and its faults with start and length (pure)."""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import Literal

from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.simulation.conditions import (
    DRAWN,
    PROPAGATION_S,
    USUAL,
    Conditions,
    Input,
    draw_conditions,
)
from reconciler.lab.simulation.moves import Move
from reconciler.lab.simulation.obstacles import COLD_START_S, Obstacles

TTL_S = 900.0
SLACK_S = 0.4 * TTL_S - PROPAGATION_S
"""Longest fault that no runner notices."""

DETECTION_S = 20.0
"""Part of the slack for detecting a fault's end and for the writes after it."""

RECOVERY_S = 60.0
"""Shortest pause between two faults: a world recovers from one before the next begins."""

STEP_S = 150.0
"""The same after a step of the issuer's clock: a replica detects it with its next token request, at
most a tenth of a life later."""

LONGEST_S: dict[Fault, float] = {
    Fault.ISSUER_OUTAGE: SLACK_S - DETECTION_S,
    Fault.ISSUER_SLOW: SLACK_S - DETECTION_S,
    Fault.ISSUER_SHORT_TTL: 600.0,
    Fault.ISSUER_REFUSAL: 120.0,
    Fault.API_ERRORS: 120.0,
    Fault.API_OUTAGE: SLACK_S - 2 * DETECTION_S,
    Fault.WATCH_RESET: 120.0,
    Fault.WATCH_SILENCE: 200.0,
    Fault.COMPACTION: 60.0,
    Fault.PLATFORM_OUTAGE: 900.0,
    Fault.PLATFORM_PARTIAL_OUTAGE: 900.0,
    Fault.PLATFORM_EMPTY_LISTS: 900.0,
    Fault.DELETE_SECRET: 1.0,
    Fault.STALE_SECRET: 1.0,
    Fault.RESTART_ALL: SLACK_S - 2 * DETECTION_S - COLD_START_S,
    Fault.KILL_LEADER: 120.0,
    Fault.FREEZE_LEADER: 120.0,
    Fault.STALL_LEADER: 120.0,
    Fault.PARTITION_LEADER: 120.0,
    Fault.CLOCK_STEP: 600.0,
    Fault.ISSUER_CLOCK_STEP: 1.0,
    Fault.ROTATE_STATIC_TOKEN: 1.0,
    Fault.NAMESPACE_SLOW: 600.0,
    Fault.NAMESPACE_HANG: SLACK_S - 2 * DETECTION_S,
    Fault.NAMESPACE_ERRORS: 150.0,
    Fault.POD_CHURN: 300.0,
    Fault.RESTORE_STORE: 1.0,
    Fault.API_RESTART: 120.0,
    Fault.STRIP_ANNOTATIONS: 300.0,
}
"""Longest fault that must not let any token expire, for tokens of `TTL_S`. Faults of the platform
may last for any time: no running session needs it."""

SCALED = frozenset(
    {
        Fault.ISSUER_OUTAGE,
        Fault.ISSUER_SLOW,
        Fault.ISSUER_REFUSAL,
        Fault.API_ERRORS,
        Fault.API_OUTAGE,
        Fault.WATCH_RESET,
        Fault.WATCH_SILENCE,
        Fault.RESTART_ALL,
        Fault.KILL_LEADER,
        Fault.FREEZE_LEADER,
        Fault.STALL_LEADER,
        Fault.PARTITION_LEADER,
        Fault.NAMESPACE_HANG,
        Fault.NAMESPACE_ERRORS,
        Fault.API_RESTART,
    }
)
"""Faults with a length in proportion to a token's life."""

OF_ISSUER = frozenset(
    {
        Fault.ISSUER_OUTAGE,
        Fault.ISSUER_SLOW,
        Fault.ISSUER_SHORT_TTL,
        Fault.ISSUER_REFUSAL,
        Fault.ISSUER_CLOCK_STEP,
        Fault.ISSUER_WRONG_DATE,
        Fault.ISSUER_WRONG_EXPIRES_IN,
        Fault.ISSUER_CACHE,
        Fault.ISSUER_CORRUPT,
        Fault.ISSUER_NODE_BEHIND,
        Fault.ISSUER_NODES_DIFFER,
    }
)
"""Faults of an issuer, which a world with static tokens does not have."""

CROWD = 40
"""Additional sessions where two namespaces share few workers and one may be slow."""

WEIGHT = 4
"""Relative probability of a fault with an input, compared with one of any world."""

NEEDS: dict[Fault, Input] = {
    Fault.ISSUER_CLOCK_STEP: "issuer_step",
    Fault.ROTATE_STATIC_TOKEN: "static_token",
    Fault.NAMESPACE_SLOW: "slow_namespace",
    Fault.NAMESPACE_HANG: "hanging_namespace",
    Fault.NAMESPACE_ERRORS: "failing_namespace",
    Fault.POD_CHURN: "restless_pods",
    Fault.RESTORE_STORE: "restored_store",
    Fault.API_RESTART: "starting_kube",
    Fault.STRIP_ANNOTATIONS: "stripped_annotations",
}
"""Faults that a world has only with this input."""

ELECTION: tuple[Fault, ...] = (
    Fault.KILL_LEADER,
    Fault.FREEZE_LEADER,
    Fault.STALL_LEADER,
    Fault.PARTITION_LEADER,
    Fault.CLOCK_STEP,
    Fault.WATCH_SILENCE,
    Fault.WATCH_RESET,
)
"""Faults of leader election."""

RATE = 0.0006
"""Largest lasting error of a clock's rate, as in `tokens.server_clock.DRIFT`."""

ELECTION_RATE = 0.005
"""The same in a scenario of leader election: half of what the lease rules allow."""

FATAL: tuple[Fault, ...] = (Fault.ISSUER_OUTAGE, Fault.API_OUTAGE, Fault.RESTART_ALL)
"""Faults that sometimes last longer than a token's life: their exposure is excused."""


@dataclass(frozen=True, slots=True)
class PodLifetime:
    """One pod from its start to its end.

    Args:
        token_s: Remaining life of the token in its Secret, if the Secret is created for this pod;
            None: a Secret without a value.
        finishes: Whether the pod completes; if not, it is deleted.
    """

    start_s: float
    end_s: float
    token_s: float | None
    finishes: bool


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """One session.

    Args:
        pods: The pods one after another; each after the first is a restart with the old Secret.
        forged: Whether the platform never has this session.
        deleted: Whether the platform deletes it after its last pod.
        revived_s: When a tenant starts a pod with the labels of the deleted session.
    """

    session_id: str
    project: str
    pods: tuple[PodLifetime, ...]
    forged: bool = False
    deleted: bool = False
    revived_s: float | None = None


SessionKind = Literal["", "forged", "deleted"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that happens in one world.

    Args:
        hours: The requested length; a world with short-lived tokens is shorter.
        faults: The moves of the world.
        skew_s: The controller's wall clock less that of all others.
        rates: Rate of each replica's monotonic clock.
    """

    seed: int
    hours: float
    length_s: float
    projects: tuple[str, ...]
    sessions: tuple[SessionPlan, ...]
    faults: tuple[Move, ...]
    skew_s: float
    rates: tuple[float, ...]
    conditions: Conditions = USUAL

    @property
    def replicas(self) -> int:
        return len(self.rates)

    def namespace_of(self, fault: Move) -> str:
        """Return the namespace of a fault of one namespace."""
        return self.projects[int(fault.size * len(self.projects))].lower()

    def obstacles(self) -> Obstacles:
        """Return when the faults make a write, or the sight of a change, impossible."""
        return Obstacles(self.faults, replicas=self.replicas, namespace_of=self.namespace_of)


def draw(seed: int, hours: float = 1.0, inputs: Collection[Input] = DRAWN) -> Scenario:
    """Return the scenario of a seed: the same for the same arguments, in every process.

    Args:
        hours: Length for tokens of `TTL_S`; it is in proportion to a token's life.
        inputs: The inputs that the world may have.
    """
    random = Random(f"scenario {seed}")
    conditions = draw_conditions(Random(f"conditions {seed}"), inputs)
    length_s = hours * 3600.0 * conditions.ttl_s / TTL_S
    number = random.randint(1, 6)
    if conditions.crowded:
        number = 2
    projects = tuple(f"Team-{letter}" for letter in "abcdef"[:number])
    lives = [
        draw_session(random, f"Sess{index:04d}", random.choice(projects), length_s, conditions)
        for index in range(random.randint(20, 80) + CROWD * conditions.crowded)
    ]
    forged = random.randint(0, 2) + 3 * conditions.forged
    lives += [
        draw_session(
            random, f"Fake{index:04d}", random.choice(projects), length_s, conditions, "forged"
        )
        for index in range(forged)
    ]
    lives += [
        draw_session(
            random, f"Gone{index:04d}", random.choice(projects), length_s, conditions, "deleted"
        )
        for index in range(4 * conditions.revived)
    ]
    faults = _faults(random, length_s, conditions)
    skew_s = conditions.skew_s
    if not skew_s and not conditions.static and random.random() < 0.2:
        skew_s = random.uniform(-3600.0, 3600.0)
    rates = tuple(random.uniform(1 - RATE, 1 + RATE) for _ in range(random.choice((1, 2, 3))))
    return Scenario(
        seed, hours, length_s, projects, tuple(lives), faults, skew_s, rates, conditions
    )


def draw_election(seed: int) -> Scenario:
    """Return a short scenario of three replicas with faults of leader election only."""
    random = Random(f"election {seed}")
    length_s = 600.0
    lives = tuple(
        draw_session(random, f"Sess{index:04d}", "Team-a", length_s, USUAL) for index in range(8)
    )
    faults: list[Move] = []
    at_s = random.uniform(12.0, 20.0)
    while at_s < length_s - 60.0:
        kind = random.choice(ELECTION)
        span_s = random.uniform(0.5, 45.0)
        faults.append(Move(kind, at_s, span_s, random.random()))
        # Often the next fault begins before the last one ends.
        at_s += random.uniform(1.0, 50.0)
    rates = tuple(random.uniform(1 - ELECTION_RATE, 1 + ELECTION_RATE) for _ in range(3))
    hours = length_s / 3600.0
    return Scenario(seed, hours, length_s, ("Team-a",), lives, tuple(faults), 0.0, rates)


def draw_session(
    random: Random,
    session_id: str,
    project: str,
    length_s: float,
    conditions: Conditions,
    kind: SessionKind = "",
) -> SessionPlan:
    """Return one session with its pods."""
    scale = conditions.ttl_s / TTL_S
    start_s = 0.0 if random.random() < 0.6 else random.uniform(0.0, length_s)
    stays: list[PodLifetime] = []
    while start_s < length_s and len(stays) < 4:
        stays_on = not stays and random.random() < 0.5 and kind != "deleted"
        end_s = length_s + 1 if stays_on else start_s + random.expovariate(1 / 1200.0) + 20.0
        token_s = _token_s(random, conditions.ttl_s)
        stays.append(PodLifetime(start_s, end_s, token_s, random.random() < 0.5))
        if random.random() < 0.3 or kind == "deleted":
            break
        start_s = end_s + 70.0 + random.expovariate(1 / 400.0)
    revived_s = None
    if kind == "deleted":
        revived_s = stays[-1].end_s + 70.0 + random.uniform(0.0, 600.0 * scale)
    return SessionPlan(
        session_id, project, tuple(stays), kind == "forged", kind == "deleted", revived_s
    )


def _token_s(random: Random, ttl_s: float) -> float | None:
    """Return the remaining life of the platform's first token, which is often an old cached one."""
    chance = random.random()
    if chance < 0.1:
        return None
    least_s, old_s = min(30.0, 0.5 * ttl_s), min(90.0, 0.75 * ttl_s)
    return random.uniform(least_s, old_s) if chance < 0.3 else random.uniform(old_s, ttl_s)


def _faults(random: Random, length_s: float, conditions: Conditions) -> tuple[Move, ...]:
    faults: list[Move] = []
    scale = conditions.ttl_s / TTL_S
    longest = {kind: _longest_s(kind, scale) for kind in LONGEST_S if _is_drawn(kind, conditions)}
    kinds = [kind for kind in longest for _ in range(WEIGHT if kind in NEEDS else 1)]
    fatal = random.choice(FATAL) if random.random() < 0.1 else None
    at_s = random.uniform(20.0, 300.0 * scale)
    while True:
        kind = random.choice(kinds)
        longest_s = longest[kind]
        span_s = random.uniform(0.02 * longest_s, longest_s)
        if fatal is not None and not conditions.static:
            kind, span_s, fatal = fatal, random.uniform(1.0, 2.0) * conditions.ttl_s, None
        if at_s + span_s + 2 * RECOVERY_S > length_s:
            break
        faults.append(Move(kind, at_s, span_s, random.random()))
        pause_s = STEP_S if kind == Fault.ISSUER_CLOCK_STEP else RECOVERY_S
        at_s += span_s + pause_s + random.expovariate(1 / (150.0 * scale))
    return tuple(faults)


def _longest_s(kind: Fault, scale: float) -> float:
    return LONGEST_S[kind] * (scale if kind in SCALED else 1.0)


def _is_drawn(kind: Fault, conditions: Conditions) -> bool:
    needed = NEEDS.get(kind)
    if conditions.static and kind in OF_ISSUER:
        return False
    return needed is None or needed in conditions.inputs
