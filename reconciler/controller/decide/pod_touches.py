"""Which pods are to be touched, and when: after the Secret came back through the watch (pure)."""

from dataclasses import dataclass

from cachetools import LRUCache

from reconciler.backoff import TRANSIENT
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey

AGAIN_S = 2.0
"""A touch that overtakes the Secret on its way to the kubelet projects the old value; a second one
cannot."""

UNSEEN_S = 5.0
"""Longest wait for our own write to come back before the pod is touched all the same."""

TOUCHES = 2

FAILURES = 8
"""Tries of a touch, over about 45 s: then the kubelet has looked by itself, or will any moment."""

MAX_PENDING = 10_000
"""Sessions whose owed touch is remembered as asked for; one that is forgotten is touched again."""


@dataclass(slots=True)
class _Pending:
    secret_uid: str
    version: str
    at: float
    left: int
    seen: bool
    failures: int = 0


class PodTouches:
    """Remembers writes whose pod must look at its Secret; memory of one entry a session.

    Whoever removes a session drops it here too, though a touch of it be under way: the end of that
    does not bring it back. After a crash the plan finds what is owed, from the objects alone
    (`projection.py`).
    """

    def __init__(self) -> None:
        self._pending: dict[SessionKey, _Pending] = {}
        self._owed: LRUCache[SessionKey, tuple[str, str]] = LRUCache(MAX_PENDING)

    def request(self, key: SessionKey, secret: ObjectMeta, now_at: float) -> None:
        """Touch the pods of `key` once this version of its Secret was seen in the watch."""
        pending = _Pending(secret.uid, secret.version, now_at + UNSEEN_S, TOUCHES, seen=False)
        self._pending[key] = pending

    def ensure(self, key: SessionKey, secret: ObjectMeta, write: str, now_at: float) -> bool:
        """Touch the pods of `key` now for a write that the watch has brought, whoever made it.

        Args:
            write: What names the write of the token, whatever else of the Secret changes after it.
        Returns: False if a touch for this very write was asked for before: a pod that cannot be
        touched, or whose touch is taken back, stays owed one, and is not tried again and again.
        """
        pending, version = self._pending.get(key), (secret.uid, secret.version)
        if self._owed.get(key) == (secret.uid, write):
            return False
        self._owed[key] = (secret.uid, write)
        if pending is not None and (pending.secret_uid, pending.version) == version:
            return False
        self._pending[key] = _Pending(*version, now_at, TOUCHES, seen=True)
        return True

    def observed(self, secret: ObjectMeta, now_at: float) -> bool:
        """Note a Secret that arrived in a watch; True if its pods are now to be touched."""
        pending = self._pending.get(secret.key)
        if pending is None or pending.seen or not _is_at_least(secret, pending):
            return False
        pending.seen, pending.at = True, now_at
        return True

    def is_due(self, key: SessionKey, now_at: float) -> bool:
        pending = self._pending.get(key)
        return pending is not None and pending.at <= now_at

    def done(self, key: SessionKey, now_at: float) -> None:
        """Note that the pods were touched; a second time follows after `AGAIN_S`."""
        if (pending := self._pending.get(key)) is None:
            return
        pending.left -= 1
        pending.seen, pending.at = True, now_at + AGAIN_S
        if pending.left <= 0:
            del self._pending[key]

    def failed(self, key: SessionKey, now_at: float, *, draw: float) -> None:
        """Note that the pods were not touched: they are tried again later, up to `FAILURES` times.

        Args:
            draw: Chance, in [0, 1).
        """
        if (pending := self._pending.get(key)) is None:
            return
        pending.failures += 1
        if pending.failures >= FAILURES:
            del self._pending[key]
            return
        wait_s = TRANSIENT.delay_s(pending.failures, fraction_of_life_s=None, rand=draw)
        self.postpone(key, now_at + wait_s)

    def postpone(self, key: SessionKey, at: float) -> None:
        """Have the pods touched no sooner than `at`."""
        if (pending := self._pending.get(key)) is not None:
            pending.seen, pending.at = True, at

    def drop(self, key: SessionKey) -> None:
        self._pending.pop(key, None)
        self._owed.pop(key, None)

    def clear(self) -> None:
        """Forget every touch that is pending: another replica has led since it was asked for."""
        self._pending.clear()

    def next_at(self, key: SessionKey) -> float | None:
        """Return when `is_due` becomes true by itself, on the monotonic clock, or None."""
        pending = self._pending.get(key)
        return pending.at if pending is not None else None

    def __len__(self) -> int:
        return len(self._pending)


def _is_at_least(secret: ObjectMeta, pending: _Pending) -> bool:
    """Compare versions of one kind as positive integers (KEP-5504), never as text."""
    if secret.uid != pending.secret_uid or secret.version == pending.version:
        return True
    return (
        secret.version.isdecimal()
        and pending.version.isdecimal()
        and int(secret.version) >= int(pending.version)
    )
