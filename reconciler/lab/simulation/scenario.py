"""What a seed stands for: who comes and goes, what breaks when, and for how long (pure)."""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import Literal

from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.simulation.conditions import DRAWN, USUAL, Conditions, Input, draw_conditions

TTL_S = 900.0
PROPAGATION_S = 90.0
"""Allowance that the controller is told; the world's kubelet is never slower."""

SLACK_S = 0.4 * TTL_S - PROPAGATION_S
"""What a fault may last before anybody notices."""

DETECTION_S = 20.0
"""Part of the slack that noticing a fault's end, and writing after it, may take."""

RECOVERY_S = 60.0
"""Least pause between two faults: each is to be survived by itself."""

STEP_S = 150.0
"""The same after a step of the issuer's clock, which is noticed with the next token that a replica
asks for, a tenth of a life later at most."""

PAUSE_S = 15.0
"""What it takes from a fault's end until all is served that waited for it."""

WATCH_PAUSE_S = 16.0
"""Longest pause of a watch that was broken again and again: a pod that appears meanwhile is not
seen. Source: `informer.backoff`, 8 s with a jitter of 1.0."""

COLD_START_S = 10.0
"""The fleet exists before the controller does; what was dead then is not its doing."""

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
"""Longest draw that must cost nobody a live token, for tokens of `TTL_S`. What the platform says or
not costs no running session anything, however long."""

HARMLESS = frozenset(
    {
        Fault.ISSUER_SLOW,
        Fault.ISSUER_SHORT_TTL,
        Fault.PLATFORM_EMPTY_LISTS,
        Fault.DELETE_SECRET,
        Fault.STALE_SECRET,
        Fault.CLOCK_STEP,
        Fault.ROTATE_STATIC_TOKEN,
        Fault.POD_CHURN,
    }
)
"""Faults during which even a session that starts on a dead token is served at once."""

LOCAL = frozenset({Fault.NAMESPACE_SLOW, Fault.NAMESPACE_HANG, Fault.NAMESPACE_ERRORS})
"""Faults of one namespace: the others' sessions are served at once all the same."""

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
"""Faults that may last the longer, the longer a token lives."""

OF_ISSUER = frozenset(
    {
        Fault.ISSUER_OUTAGE,
        Fault.ISSUER_SLOW,
        Fault.ISSUER_SHORT_TTL,
        Fault.ISSUER_REFUSAL,
        Fault.ISSUER_CLOCK_STEP,
    }
)
"""Faults of an issuer, which a world of static tokens has not."""

CROWD = 40
"""Sessions more where two namespaces share few workers, one of which may be slow."""

WEIGHT = 4
"""How much likelier such a fault is than one that any world may have."""

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
"""Kinds of faults that are drawn only with an input of their own."""

ELECTION: tuple[Fault, ...] = (
    Fault.KILL_LEADER,
    Fault.FREEZE_LEADER,
    Fault.STALL_LEADER,
    Fault.PARTITION_LEADER,
    Fault.CLOCK_STEP,
    Fault.WATCH_SILENCE,
    Fault.WATCH_RESET,
)
"""What may split an election."""

RATE = 0.005
"""Largest error of a replica's clock rate: half of what the lease rules bear."""

WATCH_BREAKING = frozenset(
    {Fault.WATCH_RESET, Fault.COMPACTION, Fault.API_ERRORS, Fault.API_RESTART}
)

PLATFORM_ONLY = frozenset({Fault.PLATFORM_OUTAGE, Fault.PLATFORM_PARTIAL_OUTAGE})

FATAL: tuple[Fault, ...] = (Fault.ISSUER_OUTAGE, Fault.API_OUTAGE, Fault.RESTART_ALL)
"""Faults that are now and then drawn longer than a token lives: reported, not asserted."""


@dataclass(frozen=True, slots=True)
class ScenarioFault:
    """One fault; `size` in [0, 1) says how bad, in the kind's own terms."""

    kind: Fault
    at_s: float
    length_s: float
    size: float

    @property
    def end_s(self) -> float:
        return self.at_s + self.length_s


@dataclass(frozen=True, slots=True)
class PodLifetime:
    """One pod's life; `token_s` is what its Secret's token has left if the Secret is made for it,
    None for a Secret without a value. It ends by itself (`finishes`) or is deleted."""

    start_s: float
    end_s: float
    token_s: float | None
    finishes: bool


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """One session; later stays are restarts on the old Secret. The platform does not know those
    that are `forged`, and after the last stay no longer those that are `deleted`: what has its
    labels at `revived_s` is a tenant's pod."""

    session_id: str
    project: str
    pods: tuple[PodLifetime, ...]
    forged: bool = False
    deleted: bool = False
    revived_s: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that happens to one world.

    Args:
        hours: As asked for; a world of short-lived tokens is shorter.
        skew_s: The controller's wall clock less everybody else's.
        within_slack: No fault is longer than what must cost nothing.
        rates: Of each replica's monotonic clock.
    """

    seed: int
    hours: float
    length_s: float
    projects: tuple[str, ...]
    sessions: tuple[SessionPlan, ...]
    faults: tuple[ScenarioFault, ...]
    skew_s: float
    within_slack: bool
    rates: tuple[float, ...]
    conditions: Conditions = USUAL

    @property
    def replicas(self) -> int:
        return len(self.rates)

    def namespace_of(self, fault: ScenarioFault) -> str:
        """Return the namespace that a fault of one namespace strikes."""
        return self.projects[int(fault.size * len(self.projects))].lower()

    def excused_until_s(self, at_s: float, namespace: str, *, confirmed: bool) -> float:
        """Return until when a runner that starts now may be without a live token.

        One that starts on a dead token while something is broken waits for its end like all else.
        An outage of the platform excuses only sessions that were never confirmed.

        Args:
            sealed: Whether its Secret says that the platform once confirmed it.
        """
        if at_s < COLD_START_S:
            return COLD_START_S
        for fault in self.faults:
            if fault.kind in HARMLESS or (confirmed and fault.kind in PLATFORM_ONLY):
                continue
            if fault.kind in LOCAL and self.namespace_of(fault) != namespace:
                continue
            pause_s = WATCH_PAUSE_S if fault.kind in WATCH_BREAKING else PAUSE_S
            if fault.at_s - 5.0 <= at_s <= fault.end_s + pause_s:
                return fault.end_s + pause_s + PAUSE_S
        return 0.0


def draw(seed: int, hours: float = 1.0, inputs: Collection[Input] = DRAWN) -> Scenario:
    """Return the scenario of a seed: the same for the same arguments, in every process.

    Args:
        hours: Length for tokens of `TTL_S`; it shrinks with a token's life.
        inputs: What may be drawn beside what every world has.
    """
    random = Random(f"scenario {seed}")
    conditions = draw_conditions(Random(f"conditions {seed}"), inputs)
    length_s = hours * 3600.0 * conditions.ttl_s / TTL_S
    number = random.randint(1, 6)
    if conditions.crowded:
        number = 2
    projects = tuple(f"Team-{letter}" for letter in "abcdef"[:number])
    lives = [
        _session_plan(random, f"Sess{index:04d}", random.choice(projects), length_s, conditions)
        for index in range(random.randint(20, 80) + CROWD * conditions.crowded)
    ]
    forged = random.randint(0, 2) + 3 * conditions.forged
    lives += [
        _session_plan(
            random, f"Fake{index:04d}", random.choice(projects), length_s, conditions, "forged"
        )
        for index in range(forged)
    ]
    lives += [
        _session_plan(
            random, f"Gone{index:04d}", random.choice(projects), length_s, conditions, "deleted"
        )
        for index in range(4 * conditions.revived)
    ]
    faults, within = _faults(random, length_s, conditions)
    skew_s = conditions.skew_s
    if not skew_s and not conditions.static and random.random() < 0.2:
        skew_s = random.uniform(-3600.0, 3600.0)
    rates = tuple(random.uniform(1 - RATE, 1 + RATE) for _ in range(random.choice((1, 2, 3))))
    return Scenario(
        seed, hours, length_s, projects, tuple(lives), faults, skew_s, within, rates, conditions
    )


def draw_election(seed: int) -> Scenario:
    """Return a short scenario of three replicas and nothing but faults of the leader's."""
    random = Random(f"election {seed}")
    length_s = 600.0
    lives = tuple(
        _session_plan(random, f"Sess{index:04d}", "Team-a", length_s, USUAL) for index in range(8)
    )
    faults: list[ScenarioFault] = []
    at_s = random.uniform(12.0, 20.0)
    while at_s < length_s - 60.0:
        kind = random.choice(ELECTION)
        span_s = random.uniform(0.5, 45.0)
        faults.append(ScenarioFault(kind, at_s, span_s, random.random()))
        # Often the next one strikes before the last one is over.
        at_s += random.uniform(1.0, 50.0)
    rates = tuple(random.uniform(1 - RATE, 1 + RATE) for _ in range(3))
    hours = length_s / 3600.0
    return Scenario(seed, hours, length_s, ("Team-a",), lives, tuple(faults), 0.0, False, rates)


def _session_plan(
    random: Random,
    session_id: str,
    project: str,
    length_s: float,
    conditions: Conditions,
    kind: Literal["", "forged", "deleted"] = "",
) -> SessionPlan:
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
    """Draw what the platform's first token has left: often it was cached for long."""
    chance = random.random()
    if chance < 0.1:
        return None
    return random.uniform(30.0, 90.0) if chance < 0.3 else random.uniform(90.0, ttl_s)


def _faults(
    random: Random, length_s: float, conditions: Conditions
) -> tuple[tuple[ScenarioFault, ...], bool]:
    faults: list[ScenarioFault] = []
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
        faults.append(ScenarioFault(kind, at_s, span_s, random.random()))
        pause_s = STEP_S if kind == Fault.ISSUER_CLOCK_STEP else RECOVERY_S
        at_s += span_s + pause_s + random.expovariate(1 / (150.0 * scale))
    within = all(fault.length_s <= _longest_s(fault.kind, scale) for fault in faults)
    return tuple(faults), within


def _longest_s(kind: Fault, scale: float) -> float:
    return LONGEST_S[kind] * (scale if kind in SCALED else 1.0)


def _is_drawn(kind: Fault, conditions: Conditions) -> bool:
    needed = NEEDS.get(kind)
    if conditions.static and kind in OF_ISSUER:
        return False
    return needed is None or needed in conditions.inputs
