"""Estimated exposure: for how long pods held a token that had expired, as far as we can know."""

from collections import OrderedDict, deque
from typing import NamedTuple

import msgspec

from reconciler.clock import EPOCH, LONG_AGO, EpochTime
from reconciler.controller.reconcile.run import ReconcileRun
from reconciler.naming import SessionKey

TOUCHED_S = 1.0
"""A touched pod sees its new token within this; 0.15-0.30 s were measured."""

EARLIEST_START_S = 2.0
"""Seconds from a pod's `creationTimestamp` to the earliest start of a container in it.

The timestamp is cut to whole seconds, so that this is 1 s at least after the pod was made, which is
first bound to a node, and has its volumes mounted and its sandbox made. What is in the Secret by
then is what the container reads.
"""

RECENT = 10
"""Sessions that are named as those for which the sum has grown, the latest of them."""

MAX_WRITES = 10_000
"""Bound on the writes that a move of the issuer's time judges again. 10,000 sessions with tokens of
900 s make 3,000 in the 90 s after which the issuer has answered again."""


class _Write(NamedTuple):
    """A token that was replaced before its end, by the issuer's time as known then (epoch)."""

    key: SessionKey
    expires_s: EpochTime
    starts_s: EpochTime
    written_s: EpochTime
    seen_s: EpochTime


class Exposed(msgspec.Struct, frozen=True):
    """One session: for how many seconds it was counted, and when last (epoch, issuer's time)."""

    key: SessionKey
    seconds: float
    last_s: EpochTime


class EstimatedExposure:
    """A sum of seconds over all pods, which never goes back.

    It counts from what was written, not from what runners saw: a token's end as annotated, until
    the next one was written and the kubelet had time to project it. A token of another writer,
    with an unknown expiry, does not count; neither does the time before the pod's container can
    have started. The exposure of a pod that ends between two snapshots, or whose session is paused
    between them, is missed from the first of them on; where the session is resumed it counts from
    then on.

    Args:
        propagation_s: Longest time of a kubelet's projection without a touch, in seconds.
    """

    def __init__(self, propagation_s: float) -> None:
        self._propagation_s = propagation_s
        self._counted_until_s = EPOCH
        self._known_until_s: EpochTime = LONG_AGO
        self._moved_s = 0.0
        self._writes: deque[_Write] = deque(maxlen=MAX_WRITES)
        self._recent: OrderedDict[SessionKey, Exposed] = OrderedDict()
        self.total_s = 0.0

    def recent(self) -> tuple[Exposed, ...]:
        """Return the sessions for which the sum has grown, the latest first, `RECENT` at most."""
        return tuple(reversed(self._recent.values()))

    def observe(self, run: ReconcileRun) -> None:
        """Count the exposure before a late write, and until the pod can read the new token."""
        before, pod = run.before, run.pod
        if run.written_s is None or before is None or pod is None or before.expires_s is None:
            return
        self.written(
            run.key,
            before.expires_s,
            pod.created_s,
            run.written_s,
            touched=run.touched,
        )

    def written(
        self,
        key: SessionKey,
        expires_s: EpochTime,
        created_s: EpochTime,
        written_s: EpochTime,
        *,
        touched: bool,
    ) -> None:
        """Count a token that was replaced at `written_s`, and ended at `expires_s`.

        Args:
            created_s: When the pod was made; one that starts later mounts the new token.
        """
        starts_s = created_s + EARLIEST_START_S
        if written_s <= starts_s:
            return
        seen_s = written_s + (TOUCHED_S if touched else self._propagation_s)
        last_s = self._last_s(expires_s, self._counted_until_s)
        since_s = max(expires_s, starts_s, last_s)
        self._add(key, seen_s - since_s, written_s)
        if expires_s >= seen_s:
            self._writes.append(_Write(key, expires_s, starts_s, written_s, seen_s))

    def begin(self, now_s: EpochTime, *, is_known: bool = True) -> EpochTime | None:
        """Begin a count of all pods at this instant (epoch).

        Args:
            is_known: Whether the instant is the issuer's. If not, nothing is counted: the first
                count by the issuer's time covers what was before it, too.
        Returns: When the last count was; None: nothing is to be counted.
        """
        last_s = self._counted_until_s
        if is_known or last_s == EPOCH:
            self._counted_until_s = now_s
        return last_s if is_known else None

    def time_moved(self, since_s: EpochTime, moved_s: float) -> None:
        """Go on with the issuer's time as it is known now.

        What had expired by the time as it was known is counted up to the last count already, and
        goes on from there: after an outage of hours our clock has drifted by seconds. A token that
        was replaced in time by the time as it was known, and too late by the new one, counts now.

        Args:
            since_s: From when on it may have been so (epoch, the issuer's time as known now). What
                is expired only by it counts from then on, at most a tenth of a token's life too
                long.
            moved_s: The issuer's time as known now less as it was known before.
        """
        self._known_until_s, self._moved_s = self._counted_until_s, moved_s
        self._counted_until_s = since_s
        for write in self._writes:
            if write.written_s + moved_s > max(since_s, write.expires_s):
                from_s = max(write.expires_s, write.starts_s, since_s)
                self._add(write.key, write.seen_s + moved_s - from_s, write.written_s + moved_s)
        self._writes.clear()

    def count(
        self,
        expires_s: EpochTime,
        created_s: EpochTime,
        last_s: EpochTime,
        *,
        now_s: EpochTime,
        key: SessionKey,
    ) -> None:
        """Count one pod with a token that expires or expired at `expires_s`."""
        if expires_s < now_s:
            last_s = self._last_s(expires_s, last_s)
            since_s = max(expires_s, created_s + EARLIEST_START_S, last_s)
            self._add(key, now_s - since_s, now_s)

    def _last_s(self, expires_s: EpochTime, last_s: EpochTime) -> EpochTime:
        """Return until when a token is counted, by the issuer's time as known now."""
        if expires_s < self._known_until_s:
            return max(last_s, self._known_until_s + self._moved_s)
        return last_s

    def _add(self, key: SessionKey, seconds: float, now_s: EpochTime) -> None:
        if seconds <= 0:
            return
        self.total_s += seconds
        known = self._recent.pop(key, None)
        before_s = known.seconds if known is not None else 0.0
        self._recent[key] = Exposed(key, before_s + seconds, now_s)
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)
