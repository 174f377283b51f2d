"""All sessions in a few figures: what the fleet's tokens are worth right now (pure)."""

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from reconciler.names import SessionKey

BOUNDS_S = (
    0.0, 30.0, 60.0, 90.0, 120.0, 180.0, 270.0, 360.0, 450.0, 540.0, 630.0, 720.0, 810.0, 900.0,
    1800.0, 3600.0, math.inf,
)  # fmt: skip
"""Upper bounds of the remaining lives that are counted together: fine where a token of 15 minutes
lives, and the first of them holds the dead ones."""

State = Literal["expired", "expiring", "live", "endless", "unknown", "missing"]
"""`expiring`: inside the propagation allowance; `unknown`: somebody else's token, or one without a
believable end; `missing`: no Secret."""

STATES: tuple[State, ...] = ("expired", "expiring", "live", "endless", "unknown", "missing")


class Row(msgspec.Struct, frozen=True, gc=False):
    """One session at the survey's instant; instants are epoch seconds in the issuer's time.

    `pod` and `secret` are names, "" where there is none; `expires_s` is None where it is not known,
    `math.inf` for a token without an end. `due_s` is when a worker takes it next (None: never),
    `reason` why then, `stage` the queue's word (`waiting`, `ready`, `running`, ""), `gate` the
    endpoint that it waits for. `hold` says why nothing is written, "" if nothing holds it.
    """

    namespace: str
    session_id: str
    project: str
    pod: str
    secret: str
    state: State
    expires_s: float | None
    remaining_s: float | None
    due_s: float | None
    reason: str
    stage: str
    gate: str
    hold: str
    failures: int
    refreshed_by: str

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.namespace, self.session_id)


@dataclass(slots=True)
class Fleet:
    """Sums over rows; `remaining_counts` has one entry for each of `BOUNDS_S`, not cumulative.

    `remaining_min_s` is the shortest remaining life among sessions with a pod, and `next_to_expire`
    whose it is; both None without any. `survives_s` is how long every pod would go on with the
    issuer away from now on, None where nobody can say.
    """

    sessions: int = 0
    states: dict[State, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    holds: dict[str, int] = field(default_factory=dict)
    failing: int = 0
    remaining_counts: list[int] = field(default_factory=lambda: [0] * len(BOUNDS_S))
    remaining_sum_s: float = 0.0
    remaining_min_s: float | None = None
    next_to_expire: SessionKey | None = None
    survives_s: float | None = None
    exposure_s: float = 0.0

    def add(self, row: Row, *, spare_s: float | None) -> None:
        """Count one session.

        Args:
            spare_s: What is left of the best token at hand, None without one.
        """
        self.sessions += 1
        self.states[row.state] += 1
        if row.hold:
            self.holds[row.hold] = self.holds.get(row.hold, 0) + 1
        if row.failures:
            self.failing += 1
        remaining_s = row.remaining_s
        if remaining_s is not None:
            self.remaining_counts[bisect_left(BOUNDS_S, remaining_s)] += 1
            if not math.isinf(remaining_s):
                self.remaining_sum_s += remaining_s
        if not row.pod:
            return
        shortest_s = math.inf if self.remaining_min_s is None else self.remaining_min_s
        if remaining_s is not None and remaining_s < shortest_s:
            self.remaining_min_s, self.next_to_expire = remaining_s, row.key
        lifted_s = None if row.hold else spare_s
        known = [life for life in (remaining_s, lifted_s) if life is not None]
        if known and (self.survives_s is None or max(known) < self.survives_s):
            self.survives_s = max(known)

    def survive(self, propagation_s: float) -> None:
        """Take off what the kubelet needs to project the last token; never less than nothing."""
        if self.survives_s is not None:
            self.survives_s = max(0.0, self.survives_s - propagation_s)
