"""What a seed stands for: who comes and goes, what breaks when, and for how long (pure)."""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import Literal

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

FaultKind = Literal[
    "issuer_away", "issuer_slow", "issuer_short", "issuer_refusing",
    "kube_errors", "kube_away", "watch_drop", "watch_silence", "compaction",
    "platform_away", "platform_partial", "platform_empty",
    "secret_deleted", "secret_overwritten", "controller_killed",
    "leader_killed", "leader_frozen", "leader_stalled", "leader_cut", "clock_step",
    "issuer_step", "static_rotated", "namespace_slow", "namespace_hanging", "namespace_failing",
    "pods_restless", "store_restored", "kube_starting", "annotations_stripped",
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
    "issuer_step": 1.0,
    "static_rotated": 1.0,
    "namespace_slow": 600.0,
    "namespace_hanging": SLACK_S - 2 * DETECTION_S,
    "namespace_failing": 150.0,
    "pods_restless": 300.0,
    "store_restored": 1.0,
    "kube_starting": 120.0,
    "annotations_stripped": 300.0,
}
"""Longest draw that must cost nobody a live token, for tokens of `TTL_S`. What the platform says or
not costs no running session anything, however long."""

HARMLESS = frozenset(
    {
        "issuer_slow", "issuer_short", "platform_empty", "secret_deleted", "secret_overwritten",
        "clock_step", "static_rotated", "pods_restless",
    }
)  # fmt: skip
"""Faults during which even a session that starts on a dead token is served at once."""

LOCAL = frozenset({"namespace_slow", "namespace_hanging", "namespace_failing"})
"""Faults of one namespace: the others' sessions are served at once all the same."""

SCALED = frozenset(
    {
        "issuer_away", "issuer_slow", "issuer_refusing", "kube_errors", "kube_away", "watch_drop",
        "watch_silence", "controller_killed", "leader_killed", "leader_frozen", "leader_stalled",
        "leader_cut", "namespace_hanging", "namespace_failing", "kube_starting",
    }
)  # fmt: skip
"""Faults that may last the longer, the longer a token lives."""

OF_ISSUER = frozenset(
    {"issuer_away", "issuer_slow", "issuer_short", "issuer_refusing", "issuer_step"}
)
"""Faults of an issuer, which a world of static tokens has not."""

CROWD = 40
"""Sessions more where two namespaces share few workers, one of which may be slow."""

WEIGHT = 4
"""How much likelier such a fault is than one that any world may have."""

NEEDS: dict[FaultKind, Input] = {
    "issuer_step": "issuer_step",
    "static_rotated": "static_token",
    "namespace_slow": "slow_namespace",
    "namespace_hanging": "hanging_namespace",
    "namespace_failing": "failing_namespace",
    "pods_restless": "restless_pods",
    "store_restored": "restored_store",
    "kube_starting": "starting_kube",
    "annotations_stripped": "stripped_annotations",
}
"""Kinds of faults that are drawn only with an input of their own."""

ELECTION: tuple[FaultKind, ...] = (
    "leader_killed", "leader_frozen", "leader_stalled", "leader_cut", "clock_step",
    "watch_silence", "watch_drop",
)  # fmt: skip
"""What may split an election."""

RATE = 0.005
"""Largest error of a replica's clock rate: half of what the lease rules bear."""

WATCH_BREAKING = frozenset({"watch_drop", "compaction", "kube_errors", "kube_starting"})

PLATFORM_ONLY = frozenset({"platform_away", "platform_partial"})

FATAL: tuple[FaultKind, ...] = ("issuer_away", "kube_away", "controller_killed")
"""Faults that are now and then drawn longer than a token lives: reported, not asserted."""


@dataclass(frozen=True, slots=True)
class ScenarioFault:
    """One fault; `size` in [0, 1) says how bad, in the kind's own terms."""

    kind: FaultKind
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
    stays: tuple[PodLifetime, ...]
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
    lives: tuple[SessionPlan, ...]
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

    def excused_until_s(self, at_s: float, namespace: str, *, sealed: bool) -> float:
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
        _life(random, f"Sess{index:04d}", random.choice(projects), length_s, conditions)
        for index in range(random.randint(20, 80) + CROWD * conditions.crowded)
    ]
    forged = random.randint(0, 2) + 3 * conditions.forged
    lives += [
        _life(random, f"Fake{index:04d}", random.choice(projects), length_s, conditions, "forged")
        for index in range(forged)
    ]
    lives += [
        _life(random, f"Gone{index:04d}", random.choice(projects), length_s, conditions, "deleted")
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
        _life(random, f"Sess{index:04d}", "Team-a", length_s, USUAL) for index in range(8)
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


def _life(
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
        pause_s = STEP_S if kind == "issuer_step" else RECOVERY_S
        at_s += span_s + pause_s + random.expovariate(1 / (150.0 * scale))
    within = all(fault.length_s <= _longest_s(fault.kind, scale) for fault in faults)
    return tuple(faults), within


def _longest_s(kind: FaultKind, scale: float) -> float:
    return LONGEST_S[kind] * (scale if kind in SCALED else 1.0)


def _is_drawn(kind: FaultKind, conditions: Conditions) -> bool:
    needed = NEEDS.get(kind)
    if conditions.static and kind in OF_ISSUER:
        return False
    return needed is None or needed in conditions.inputs
