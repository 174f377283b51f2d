"""The grammar of sentences: each port's moves, and how a seed draws modes and moves (pure).

Moves overlap at will. Each seed has one ordered pair of moves from a fixed permutation of all
pairs, so that rare pairs are as frequent as others; the rest of its sentence is drawn. The modes
are drawn first and without the moves, so that new moves leave the worlds of all seeds as they are.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Literal, get_args

from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.simulation.conditions import OFF_S, PROPAGATION_S, Conditions, Namespaces
from reconciler.lab.simulation.moves import Move
from reconciler.lab.simulation.scenario import (
    DETECTION_S,
    FATAL,
    LONGEST_S,
    OF_ISSUER,
    RATE,
    RECOVERY_S,
    SLACK_S,
    TTL_S,
    Scenario,
    SessionKind,
    draw_session,
)

Port = Literal["kube", "issuer", "platform", "clock", "network", "process", "tenant", "operator"]

MOVES: dict[Port, tuple[Fault, ...]] = {
    "kube": (
        Fault.API_RESTART,
        Fault.API_ERRORS,
        Fault.API_SLOW,
        Fault.API_THROTTLE,
        Fault.WEBHOOK_DENIES,
        Fault.WEBHOOK_CHANGES,
        Fault.COMPACTION,
        Fault.RESTORE_STORE,
        Fault.NAMESPACE_SLOW,
        Fault.NAMESPACE_ERRORS,
    ),
    "issuer": (
        Fault.ISSUER_OUTAGE,
        Fault.ISSUER_SLOW,
        Fault.ISSUER_SHORT_TTL,
        Fault.ISSUER_REFUSAL,
        Fault.ISSUER_WRONG_DATE,
        Fault.ISSUER_WRONG_EXPIRES_IN,
        Fault.ISSUER_CACHE,
        Fault.ISSUER_CORRUPT,
        Fault.ISSUER_NODE_BEHIND,
        Fault.ISSUER_NODES_DIFFER,
    ),
    "platform": (
        Fault.PLATFORM_OUTAGE,
        Fault.PLATFORM_PARTIAL_OUTAGE,
        Fault.PLATFORM_EMPTY_LISTS,
        Fault.PLATFORM_SLOW,
        Fault.PLATFORM_LOST_ROWS,
        Fault.PLATFORM_NOT_FOUND_ONCE,
        Fault.STALE_SECRET,
        Fault.OVERWRITE_LOOP,
    ),
    "clock": (Fault.CLOCK_STEP, Fault.ISSUER_CLOCK_STEP),
    "network": (
        Fault.API_OUTAGE,
        Fault.PARTITION_LEADER,
        Fault.WATCH_RESET,
        Fault.WATCH_SILENCE,
        Fault.WATCH_CLOSE,
        Fault.WATCH_BURSTS,
        Fault.WATCH_DUPLICATES,
        Fault.API_TRICKLE,
        Fault.API_REPEAT,
        Fault.NAMESPACE_HANG,
    ),
    "process": (
        Fault.RESTART_ALL,
        Fault.KILL_LEADER,
        Fault.FREEZE_LEADER,
        Fault.STALL_LEADER,
        Fault.ROLLOUT,
        Fault.SCALE_DOWN,
        Fault.UPGRADE,
    ),
    "tenant": (Fault.DELETE_SECRET, Fault.POD_CHURN, Fault.FORGE_ANNOTATIONS),
    "operator": (
        Fault.ROTATE_STATIC_TOKEN,
        Fault.STRIP_ANNOTATIONS,
        Fault.REFRESH_COMMANDS,
        Fault.PAUSE_COMMANDS,
        Fault.RESTORE_SECRETS,
    ),
}
"""The moves of each port."""

Pair = tuple[Fault, Fault]
"""A move and one that begins before the world has recovered from it."""


def _is_possible(pair: Pair) -> bool:
    """Return whether one world can have both: with a static token it has no issuer."""
    return not (Fault.ROTATE_STATIC_TOKEN in pair and OF_ISSUER & set(pair))


KINDS = tuple(itertools.chain(*MOVES.values()))

PAIRS: tuple[Pair, ...] = tuple(
    (first, second) for first in KINDS for second in KINDS if _is_possible((first, second))
)

TTLS_S = (20.0, 60.0, 300.0, 900.0, 900.0, 900.0, 3600.0, 86_400.0)
"""Lives of tokens; most often the platform's."""

MOST_REPLICAS = 3

MODES_OF_ISSUER = (
    *(f"tokens of {ttl_s:g} s" for ttl_s in sorted(set(TTLS_S))),
    "no Date header",
    "wrong Date header",
    "cached tokens",
    "wrong clocks",
)
"""Modes that a world with a static token does not have."""

MODES = (
    *MODES_OF_ISSUER,
    "static token",
    *(f"{namespaces} namespaces" for namespaces in get_args(Namespaces)),
    "touch",
    "no touch",
    "forged objects",
    *(f"{replicas} replicas" for replicas in range(1, MOST_REPLICAS + 1)),
)

MODE_PAIRS = frozenset(
    (mode, kind)
    for mode in MODES
    for kind in KINDS
    if not (mode == "static token" and kind in OF_ISSUER)
    and not (mode in MODES_OF_ISSUER and kind is Fault.ROTATE_STATIC_TOKEN)
)
"""A mode and a move that one world can have."""

LONGEST = LONGEST_S | {
    Fault.API_SLOW: 300.0,
    Fault.API_THROTTLE: 120.0,
    Fault.API_TRICKLE: 300.0,
    Fault.API_REPEAT: 300.0,
    Fault.WEBHOOK_DENIES: SLACK_S - 2 * DETECTION_S,
    Fault.WEBHOOK_CHANGES: 300.0,
    Fault.WATCH_DUPLICATES: 600.0,
    Fault.RESTORE_SECRETS: 600.0,
    Fault.WATCH_CLOSE: 120.0,
    Fault.WATCH_BURSTS: 300.0,
    Fault.ISSUER_WRONG_DATE: 600.0,
    Fault.ISSUER_WRONG_EXPIRES_IN: 600.0,
    Fault.ISSUER_CACHE: 600.0,
    Fault.ISSUER_CORRUPT: SLACK_S - DETECTION_S,
    Fault.ISSUER_NODE_BEHIND: 600.0,
    Fault.ISSUER_NODES_DIFFER: 900.0,
    Fault.PLATFORM_SLOW: 600.0,
    Fault.PLATFORM_LOST_ROWS: 600.0,
    Fault.PLATFORM_NOT_FOUND_ONCE: 300.0,
    Fault.OVERWRITE_LOOP: 600.0,
    Fault.FORGE_ANNOTATIONS: 900.0,
    Fault.REFRESH_COMMANDS: 60.0,
    Fault.PAUSE_COMMANDS: SLACK_S - DETECTION_S,
    Fault.ROLLOUT: 60.0,
    Fault.SCALE_DOWN: 300.0,
    Fault.UPGRADE: 600.0,
}
"""Longest length of each move for tokens of `TTL_S`; those that write once have no length."""

LONG_S = 3600.0
"""A world does not last longer with tokens that live longer than this."""

MOST_SESSIONS = 500

SESSION_HOURS = 6.0
"""The product of sessions and hours has this limit: a core plays a world in less than a second."""

STATIC_CHANCE = 0.1
"""Share of the worlds with a static token."""

ALLOWANCE = 0.1
"""The propagation allowance is at most this part of a token's life."""

FATAL_CHANCE = 0.03
"""Share of the moves of `FATAL` that may outlast the tokens."""

SHORTEST_S = 0.5

SPAN = (0.5, 1.3)
LONG_SPAN = 2.0
LONG_CHANCE = 0.1
"""Parts of a token's life in which the moves of a world begin and end."""

_ORDERS: dict[bool, list[Pair]] = {
    static: Random("pairs").sample(pairs, len(pairs))
    for static, pairs in (
        (False, [pair for pair in PAIRS if Fault.ROTATE_STATIC_TOKEN not in pair]),
        (True, [pair for pair in PAIRS if Fault.ROTATE_STATIC_TOKEN in pair]),
    )
}
"""By whether the token is static: the order in which the seeds get the pairs of moves."""


def draw_sentence(seed: int) -> Scenario:
    """Return the world of a seed with its moves: the same in every process."""
    world = draw_world(seed)
    return replace(world, faults=_draw_moves(seed, world))


def draw_world(seed: int) -> Scenario:
    """Return the world of a seed without moves.

    Another set of moves, or of pairs, changes nothing of it: a sentence that is stored with its
    seed stays the same world.
    """
    random = Random(f"world {seed}")
    conditions = _draw_modes(random)
    life_s = min(conditions.ttl_s, LONG_S)
    span = LONG_SPAN if random.random() < LONG_CHANCE else random.uniform(*SPAN)
    length_s = round(span * life_s + _settled_s(conditions), 3)
    projects = tuple(f"Team-{letter}" for letter in "abcdef"[: random.randint(1, 6)])
    most = min(MOST_SESSIONS, SESSION_HOURS / (length_s / 3600.0))
    number = round(math.exp(random.uniform(0.0, math.log(most))))
    sessions = [
        draw_session(random, f"Sess{index:04d}", random.choice(projects), length_s, conditions)
        for index in range(number)
    ]
    others: tuple[tuple[str, SessionKind], ...] = (("Fake", "forged"), ("Gone", "deleted"))
    for name, kind in others:
        sessions += [
            draw_session(
                random, f"{name}{index}", random.choice(projects), length_s, conditions, kind
            )
            for index in range(random.randint(0, 3))
        ]
    rates = tuple(
        random.uniform(1 - RATE, 1 + RATE) for _ in range(random.randint(1, MOST_REPLICAS))
    )
    return Scenario(
        seed,
        length_s / 3600.0,
        length_s,
        projects,
        tuple(sessions),
        (),
        conditions.skew_s,
        rates,
        conditions,
    )


def limited(sentence: Scenario, *, moves: Iterable[Move], sessions: int) -> Scenario:
    """Return a sentence with other moves and only its first sessions."""
    return replace(sentence, faults=tuple(moves), sessions=sentence.sessions[:sessions])


def pairs_of(moves: Sequence[Move], ttl_s: float) -> set[Pair]:
    """Return the pairs of moves in a sentence; `moves` are in the order of their starts."""
    near_s = RECOVERY_S * _scale(ttl_s)
    return {
        (first.kind, second.kind)
        for first, second in itertools.combinations(moves, 2)
        if second.at_s <= first.end_s + near_s
    }


def modes_of(world: Scenario) -> Iterator[str]:
    """Yield the modes of a world."""
    modes = world.conditions
    if modes.static:
        yield "static token"
    else:
        yield f"tokens of {modes.ttl_s:g} s"
        unusual = (not modes.sends_date, bool(modes.date_off_s), bool(modes.cached_s))
        yield from itertools.compress(MODES_OF_ISSUER[-4:], (*unusual, bool(modes.skew_s)))
    yield f"{modes.namespaces} namespaces"
    yield "touch" if modes.touch else "no touch"
    if modes.forged:
        yield "forged objects"
    yield f"{world.replicas} replicas"


def _settled_s(conditions: Conditions) -> float:
    """Return the time from the last move until every session must have been refreshed."""
    return 0.65 * min(conditions.ttl_s, LONG_S) + RECOVERY_S + conditions.propagation_s


def _draw_modes(random: Random) -> Conditions:
    static = random.random() < STATIC_CHANCE
    ttl_s = TTL_S if static else random.choice(TTLS_S)
    # Two wrong clocks that agree outvote the first token: docs/design/issuer-time.md gives that up.
    off_s, skew_s = (random.choice((-1, 1)) * size_s for size_s in random.sample(OFF_S, 2))
    return Conditions(
        ttl_s=ttl_s,
        static=static,
        sends_date=random.random() < 0.7,
        date_off_s=off_s if random.random() < 0.2 else 0.0,
        cached_s=ttl_s * random.uniform(0.02, 0.3) if random.random() < 0.2 else 0.0,
        skew_s=0.0 if static or random.random() < 0.7 else skew_s,
        namespaces=random.choice(("cluster", "named", "found")),
        forged=random.random() < 0.3,
        revived=True,
        touch=random.random() < 0.8,
        propagation_s=min(PROPAGATION_S, ALLOWANCE * ttl_s),
    )


def _draw_moves(seed: int, world: Scenario) -> tuple[Move, ...]:
    random, conditions = Random(f"moves {seed}"), world.conditions
    order = _ORDERS[conditions.static]
    pair = order[seed % len(order)]
    life_s = min(conditions.ttl_s, LONG_S)
    scale = _scale(conditions.ttl_s)
    first = _draw_move(random, pair[0], random.uniform(0.1, 0.5) * life_s, world)
    gap_s = random.choice((0.0, 0.5, 5.0, RECOVERY_S)) * scale
    at_s = random.choice((first.at_s, random.uniform(first.at_s, first.end_s), first.end_s + gap_s))
    moves = [first, _draw_move(random, pair[1], at_s, world)]
    excluded = OF_ISSUER if conditions.static else {Fault.ROTATE_STATIC_TOKEN}
    kinds = [kind for kind in KINDS if kind not in excluded]
    for _ in range(random.randint(0, 5)):
        at_s = first.at_s + random.uniform(-0.1, 0.6) * life_s
        moves.append(_draw_move(random, random.choice(kinds), at_s, world))
    return tuple(sorted(moves, key=lambda move: move.at_s))


def _draw_move(random: Random, kind: Fault, at_s: float, world: Scenario) -> Move:
    conditions = world.conditions
    # Short ones are as frequent as long ones: most of a sentence must not be excused.
    length_s = LONGEST[kind] * _scale(conditions.ttl_s) * random.random() ** 2
    if kind in FATAL and random.random() < FATAL_CHANCE:
        length_s = random.uniform(1.0, 1.5) * min(conditions.ttl_s, LONG_S)
    last_s = world.length_s - _settled_s(conditions)
    at_s = min(max(at_s, SHORTEST_S), last_s - SHORTEST_S)
    return Move(
        kind,
        round(at_s, 3),
        round(max(min(length_s, last_s - at_s), SHORTEST_S), 3),
        round(random.random(), 6),
    )


def _scale(ttl_s: float) -> float:
    return min(ttl_s, LONG_S) / TTL_S
