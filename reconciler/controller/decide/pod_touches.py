"""Which pods to touch, and when: after the Secret's write was observed in the watch (pure)."""

from collections.abc import Callable

import msgspec
from cachetools import LRUCache

from reconciler.backoff import TRANSIENT
from reconciler.clock import Instant
from reconciler.kube.api import ObjectMeta, has_reached
from reconciler.naming import SessionKey

REPEAT_S = 2.0
"""A touch that reaches the kubelet before the Secret projects the old value; the second one, after
this time, cannot."""

MAX_WATCH_WAIT_S = 5.0
"""Longest wait for our own write in the watch; then the pod is touched without it."""

TOUCHES_PER_WRITE = 2

MAX_FAILURES = 8
"""Tries of a touch, over about 45 s: by then the kubelet has synced without it, or soon will."""

LATEST_SYNC_S = 390.0
"""A touch that is denied, or finds no room, is tried for so long: kubelets of very large clusters
have synced the pod by then without it."""

SLOW_RATE = 100.0
"""Touches for which there is no room are tried again at this rate in total, per second."""

MAX_PENDING = 10_000
"""Most sessions with a remembered touch; after an eviction a pod is touched once more."""


class _Pending(msgspec.Struct):
    """`write` names the write of the token; `accepted` counts each pod's touches, by its UID."""

    secret_uid: str
    version: str
    write: str
    at: Instant
    remaining: int
    is_observed: bool
    since_at: Instant
    failures: int = 0
    denials: int = 0
    accepted: dict[str, int] = msgspec.field(default_factory=dict)


class PodTouches:
    """Remembers writes after which a pod must be touched; one entry per session.

    When a session is removed, call `drop`, even if a touch of it is in flight: the end of that
    touch does not add it again. After a crash the plan finds missing touches from the objects alone
    (`annotations.py`).

    Args:
        enabled: Without this, no touch is ever pending.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._pending: dict[SessionKey, _Pending] = {}
        self._ensured: LRUCache[SessionKey, tuple[str, str]] = LRUCache(MAX_PENDING)

    def request(self, key: SessionKey, secret: ObjectMeta, now_at: Instant) -> bool:
        """Touch the pods of `key` once the watch has shown this version of its Secret.

        Returns: Whether they will be touched.
        """
        if not self._enabled:
            return False
        pending = _Pending(
            secret.uid,
            secret.version,
            _write_of(secret),
            now_at + MAX_WATCH_WAIT_S,
            TOUCHES_PER_WRITE,
            is_observed=False,
            since_at=now_at,
        )
        self._pending[key] = pending
        return True

    def ensure(self, key: SessionKey, secret: ObjectMeta, now_at: Instant) -> bool:
        """Touch the pods of `key` now, for a write by any replica that the watch has shown.

        Later changes of the Secret that leave the time of its token's write do not matter.

        Returns: False if a touch for this write was requested before: a pod that cannot be
            touched, or with a reverted touch, is not tried again and again.
        """
        if not self._enabled:
            return False
        write = secret.uid, _write_of(secret)
        if self._ensured.get(key) == write:
            return False
        self._ensured[key] = write
        pending = self._pending.get(key)
        if pending is not None and (pending.secret_uid, pending.write) == write:
            return False
        self._pending[key] = _Pending(
            secret.uid,
            secret.version,
            _write_of(secret),
            now_at,
            TOUCHES_PER_WRITE,
            is_observed=True,
            since_at=now_at,
        )
        return True

    def observed(self, secret: ObjectMeta, now_at: Instant) -> bool:
        """Record a Secret from the watch; return True if its pods are to be touched now."""
        if not self._pending:  # nearly always: each write of ours comes here, and makes a key
            return False
        pending = self._pending.get(secret.key)
        if pending is None or pending.is_observed or not _is_at_least(secret, pending):
            return False
        pending.is_observed, pending.at = True, now_at
        return True

    def is_due(self, key: SessionKey, now_at: Instant) -> bool:
        pending = self._pending.get(key)
        return pending is not None and pending.at <= now_at

    def is_wanted(self, key: SessionKey, pod: ObjectMeta) -> bool:
        """Return False for a pod that has had its touches, as another one is tried again."""
        pending = self._pending.get(key)
        return pending is None or pending.accepted.get(pod.uid, 0) < TOUCHES_PER_WRITE

    def accepted(self, key: SessionKey, pod: ObjectMeta) -> None:
        """Record a touch of one of the pods."""
        if (pending := self._pending.get(key)) is not None:
            pending.accepted[pod.uid] = pending.accepted.get(pod.uid, 0) + 1

    def done(self, key: SessionKey, now_at: Instant) -> None:
        """Record that the pods were touched; a second touch follows after `REPEAT_S`."""
        if (pending := self._pending.get(key)) is None:
            return
        pending.remaining -= 1
        pending.denials = 0
        pending.is_observed, pending.at = True, now_at + REPEAT_S
        if pending.remaining <= 0:
            del self._pending[key]

    def failed(self, key: SessionKey, now_at: Instant, *, rand: float) -> bool:
        """Record a failed touch; return whether it is retried, up to `MAX_FAILURES` times.

        Args:
            rand: Random number in [0, 1).
        """
        if (pending := self._pending.get(key)) is None:
            return False
        pending.failures += 1
        if pending.failures >= MAX_FAILURES:
            del self._pending[key]
            return False
        wait_s = TRANSIENT.delay_s(pending.failures, fraction_of_life_s=None, rand=rand)
        self.postpone(key, now_at + wait_s)
        return True

    def denied(self, key: SessionKey, now_at: Instant, wait_s: Callable[[int], float]) -> bool:
        """Record a denied touch; return whether it is retried.

        Args:
            wait_s: Returns the wait after so many denials in a row.
        """
        if (pending := self._pending.get(key)) is None:
            return False
        pending.denials += 1
        if now_at - pending.since_at > LATEST_SYNC_S:
            del self._pending[key]
            return False
        self.postpone(key, now_at + wait_s(pending.denials))
        return True

    def found_no_room(self, key: SessionKey, now_at: Instant, *, rand: float) -> bool:
        """Record a touch that must wait for others of its namespace; return whether it is tried
        again.

        Args:
            rand: Random number in [0, 1).
        """
        if (pending := self._pending.get(key)) is None:
            return False
        left_s = pending.since_at + LATEST_SYNC_S - now_at
        if left_s < 1.0:
            del self._pending[key]
            return False
        wait_s = max(1.0, len(self._pending) / SLOW_RATE) * (0.5 + rand)
        # The last try: spread over the time that is left, so that not all come at its end.
        self.postpone(key, now_at + (wait_s if wait_s < left_s else left_s * (0.5 + rand / 2)))
        return True

    def retry_now(self, key: SessionKey, now_at: Instant) -> bool:
        """Make a touch due now that waits after a denial; return whether there is one."""
        pending = self._pending.get(key)
        if pending is None or not pending.denials:
            return False
        pending.at = now_at
        return True

    def postpone(self, key: SessionKey, at: Instant) -> None:
        """Touch the pods no earlier than `at`."""
        if (pending := self._pending.get(key)) is not None:
            pending.is_observed, pending.at = True, at

    def drop(self, key: SessionKey) -> None:
        self._pending.pop(key, None)
        self._ensured.pop(key, None)

    def clear(self) -> None:
        """Forget all touches: another replica has led since they were requested."""
        self._pending.clear()
        self._ensured.clear()

    def next_at(self, key: SessionKey) -> Instant | None:
        """Return when `is_due` becomes true, on the monotonic clock, or None."""
        pending = self._pending.get(key)
        return pending.at if pending is not None else None

    def __len__(self) -> int:
        return len(self._pending)


def _is_at_least(secret: ObjectMeta, pending: _Pending) -> bool:
    return secret.uid != pending.secret_uid or has_reached(secret.version, pending.version)


def _write_of(secret: ObjectMeta) -> str:
    return secret.annotations.refreshed_at or ""
