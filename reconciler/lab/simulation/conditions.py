"""Properties of a world that last from its start to its end, unlike faults (pure)."""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

Input = Literal[
    "short_lives", "static_token", "no_date", "wrong_date", "issuer_step", "cached_tokens",
    "wrong_clocks", "named_namespaces", "found_namespaces", "forged_objects", "revived_sessions",
    "slow_namespace", "hanging_namespace", "failing_namespace", "restless_pods", "restored_store",
    "starting_kube", "stripped_annotations",
]  # fmt: skip
"""One unusual property. A world has up to three; of two that exclude each other it has one."""

INPUTS: tuple[Input, ...] = get_args(Input)

DRAWN: tuple[Input, ...] = INPUTS
"""The inputs that `reconciler simulate` uses."""

STATIC_EXCLUDES = frozenset({"no_date", "wrong_date", "issuer_step", "cached_tokens"})

SHORT_TTL_S = 300.0

PROPAGATION_S = 90.0
"""The controller's default propagation allowance."""

SHORT = frozenset({"short_lives", "starting_kube"})
"""Inputs that need tokens with a short life: with a longer one, pauses of minutes do nothing."""

SLOW = frozenset({"slow_namespace", "hanging_namespace"})

FEW_WORKERS = 2

OFF_S = (5.0, 62.0, 301.0, 901.0, 3600.0)
"""Approximate errors of a clock: within the tolerance, beyond it, beyond the slack, beyond a
token's life, an hour."""

Namespaces = Literal["cluster", "named", "found"]


@dataclass(frozen=True, slots=True)
class Conditions:
    """A world's constants.

    Args:
        inputs: The chosen inputs; some faults need one of them.
        ttl_s: Life of a token, seconds.
        static: Whether the token comes from a file, the same for all sessions, without an end.
        sends_date: Whether the issuer's answers have a Date header.
        date_off_s: Date header less the issuer's clock.
        cached_s: Seconds for which the issuer answers with the same token; 0.0: never.
        skew_s: The controllers' wall clocks less the issuer's; 0.0: the scenario chooses.
        namespaces: All in one scope, each by its name, or those of the platform's projects.
        forged: Whether tenants write objects under our field manager's name.
        workers: Number of workers of each controller.
        crowded: Whether many sessions in two namespaces share few workers, so that one namespace
            could occupy all of them.
        revived: Whether tenants start pods of sessions that the platform has deleted.
        touch: Whether the controllers touch pods.
        propagation_s: Their propagation allowance; the world's kubelet is never slower.
    """

    inputs: frozenset[Input] = frozenset()
    ttl_s: float = 900.0
    static: bool = False
    sends_date: bool = True
    date_off_s: float = 0.0
    cached_s: float = 0.0
    skew_s: float = 0.0
    namespaces: Namespaces = "cluster"
    forged: bool = False
    revived: bool = False
    workers: int = 64
    crowded: bool = False
    touch: bool = True
    propagation_s: float = PROPAGATION_S


USUAL = Conditions()


def draw_conditions(random: Random, inputs: Collection[Input]) -> Conditions:
    """Return the conditions of one world: none, or up to three of `inputs` together."""
    number = min(len(inputs), random.choice((0, 1, 1, 2, 2, 3)))
    drawn = set(random.sample(sorted(inputs), number))
    if "static_token" in drawn:
        drawn -= STATIC_EXCLUDES
    # Each value is drawn even if it is not used, so that another set of inputs gets the same ones.
    off_s, skew_s, cached = (
        random.choice((-1, 1)) * random.choice(OFF_S) * random.uniform(0.9, 1.1) for _ in range(3)
    )
    cached = random.uniform(0.02, 0.3)
    ttl_s = SHORT_TTL_S if drawn & SHORT else 900.0
    needs_skew = "wrong_clocks" in drawn or "no_date" in drawn
    return Conditions(
        inputs=frozenset(drawn),
        ttl_s=ttl_s,
        static="static_token" in drawn,
        sends_date="no_date" not in drawn,
        date_off_s=off_s if "wrong_date" in drawn else 0.0,
        cached_s=cached * ttl_s if "cached_tokens" in drawn else 0.0,
        skew_s=skew_s if needs_skew else 0.0,
        namespaces=_namespaces(drawn),
        forged="forged_objects" in drawn,
        revived="revived_sessions" in drawn,
        workers=FEW_WORKERS if drawn & SLOW else 64,
        crowded=bool(drawn & SLOW),
    )


def _namespaces(drawn: Collection[Input]) -> Namespaces:
    if "found_namespaces" in drawn:
        return "found"
    return "named" if "named_namespaces" in drawn else "cluster"
