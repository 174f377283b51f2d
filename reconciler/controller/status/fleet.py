"""All sessions in a few figures: what the fleet's tokens are worth right now (pure)."""

import math
from bisect import bisect_left

import msgspec

from reconciler.controller.decide.token_state import TokenState
from reconciler.naming import SessionKey

BOUNDS_S = (
    0.0, 30.0, 60.0, 90.0, 120.0, 180.0, 270.0, 360.0, 450.0, 540.0, 630.0, 720.0, 810.0, 900.0,
    1800.0, 3600.0, math.inf,
)  # fmt: skip
"""Upper bounds of the remaining lives that are counted together: fine where a token of 15 minutes
lives, and the first bucket holds the expired ones."""


class FleetSummary(msgspec.Struct):
    """Sums over sessions; `remaining_counts` has one entry for each of `BOUNDS_S`, not cumulative.

    Only sessions that the platform confirmed and that are to be refreshed count in states, lives,
    survival and exposure: what a tenant forges, or a person paused, must not raise an alert and
    must not hide one. The others are in `unconfirmed` and in `blocked` alone.

    `remaining_min_s` is the shortest remaining life among sessions with a pod, negative if that
    token has expired. `next_to_expire` is the session whose token expires next: the one with the
    shortest life among those that have not expired, and `next_to_expire_s` that life. They are
    None without any. `survival_s` is how long every pod would have a valid token if the issuer were
    unreachable from now on, None where that is not known. `blocked` counts the sessions to which
    nothing is written, by reason; `failing` counts the others whose last run failed.
    """

    sessions: int = 0
    states: dict[TokenState, int] = msgspec.field(
        default_factory=lambda: dict.fromkeys(TokenState, 0)
    )
    blocked: dict[str, int] = msgspec.field(default_factory=dict)
    unconfirmed: int = 0
    failing: int = 0
    remaining_counts: list[int] = msgspec.field(default_factory=lambda: [0] * len(BOUNDS_S))
    remaining_sum_s: float = 0.0
    remaining_min_s: float | None = None
    next_to_expire: SessionKey | None = None
    next_to_expire_s: float | None = None
    survival_s: float | None = None
    exposure_s: float = 0.0

    def add(
        self,
        key: SessionKey,
        state: TokenState,
        remaining_s: float | None,
        *,
        block_reason: str,
        confirmed: bool,
        has_pod: bool,
        standby_s: float | None,
    ) -> None:
        """Count one session.

        Args:
            block_reason: Why nothing is written to it, or "".
            confirmed: The platform confirmed it and has not taken that back.
            standby_s: Remaining life of the standby token in seconds, None without one.
        """
        self.sessions += 1
        self.unconfirmed += not confirmed
        if block_reason:
            self.blocked[block_reason] = self.blocked.get(block_reason, 0) + 1
        if block_reason or not confirmed:
            return
        self.states[state] += 1
        if remaining_s is not None:
            self.remaining_counts[bisect_left(BOUNDS_S, remaining_s)] += 1
            if remaining_s != math.inf:
                self.remaining_sum_s += remaining_s
        if not has_pod:
            return
        if remaining_s is not None:
            self._observe_life(key, remaining_s)
        best_s = remaining_s
        if standby_s is not None and (remaining_s is None or standby_s > remaining_s):
            best_s = standby_s
        if best_s is not None and (self.survival_s is None or best_s < self.survival_s):
            self.survival_s = best_s

    def _observe_life(self, key: SessionKey, remaining_s: float) -> None:
        shortest_s = math.inf if self.remaining_min_s is None else self.remaining_min_s
        if remaining_s < shortest_s:
            self.remaining_min_s = remaining_s
        next_s = math.inf if self.next_to_expire_s is None else self.next_to_expire_s
        if 0 < remaining_s < next_s:
            self.next_to_expire, self.next_to_expire_s = key, remaining_s

    def survive(self, propagation_s: float) -> None:
        """Take off what the kubelet needs to project the last token; never less than nothing."""
        if self.survival_s is not None:
            self.survival_s = max(0.0, self.survival_s - propagation_s)
