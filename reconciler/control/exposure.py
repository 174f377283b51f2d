"""Estimated exposure: for how long pods held a token that had expired, as far as we can know."""

import math

from reconciler.control.attempt import Attempt

TOUCHED_S = 1.0
"""A touched pod sees its new token within this; 0.15-0.30 s were measured."""


class Exposure:
    """A sum of seconds over all pods, which never goes back.

    It counts from what was written, not from what runners saw: a token's end as annotated, until
    the next one was written and the kubelet had time to project it. A value whose end nobody can
    know (somebody else's) counts for nothing. What a pod that ends between two surveys was exposed
    since the last of them is missed.

    Args:
        propagation_s: What the kubelet may take without a touch, in seconds.
    """

    def __init__(self, propagation_s: float) -> None:
        self._propagation_s = propagation_s
        self._counted_until_s = 0.0
        self._known_until_s = -math.inf
        self._moved_s = 0.0
        self.total_s = 0.0

    def note(self, attempt: Attempt) -> None:
        """Count what a token that came too late had cost, and costs until its pod can see it."""
        before, pod = attempt.before, attempt.pod
        if attempt.written_s is None or before is None or pod is None or before.expires_s is None:
            return
        seen_s = attempt.written_s + (TOUCHED_S if attempt.touched else self._propagation_s)
        self._add(before.expires_s, pod.created_s, self._counted_until_s, until_s=seen_s)

    def begin(self, now_s: float) -> float:
        """Begin a count of all pods at this instant (epoch); return when the last one was."""
        last_s, self._counted_until_s = self._counted_until_s, now_s
        return last_s

    def time_moved(self, since_s: float, moved_s: float) -> None:
        """Go on with the issuer's time as it is known now.

        What had expired by the time as it was known is counted up to the last count already, and
        goes on from there: after an outage of hours our clock has drifted by seconds.

        Args:
            since_s: From when on it may have been so (epoch, the issuer's time as known now). What
                is expired only by it counts from then on, at most a tenth of a token's life too
                long.
            moved_s: The issuer's time as known now less as it was known before.
        """
        self._known_until_s, self._moved_s = self._counted_until_s, moved_s
        self._counted_until_s = since_s

    def count(self, expires_s: float, created_s: float, last_s: float, *, now_s: float) -> None:
        """Count one pod whose Secret holds a token that ends or ended at `expires_s`."""
        if expires_s < now_s:
            self._add(expires_s, created_s, last_s, until_s=now_s)

    def _add(self, expires_s: float, created_s: float, last_s: float, *, until_s: float) -> None:
        if expires_s < self._known_until_s:
            last_s = max(last_s, self._known_until_s + self._moved_s)
        self.total_s += max(0.0, until_s - max(expires_s, created_s, last_s))
