"""Which pods are to be touched, and when: after the Secret came back through the watch (pure)."""

from dataclasses import dataclass

from reconciler.kube.api import Meta
from reconciler.names import SessionKey

AGAIN_S = 2.0
"""A touch that overtakes the Secret on its way to the kubelet projects the old value; a second one
cannot."""

UNSEEN_S = 5.0
"""Longest wait for our own write to come back before the pod is touched all the same."""

TOUCHES = 2


@dataclass(slots=True)
class _Pending:
    secret_uid: str
    version: str
    at: float
    left: int
    seen: bool


class Touches:
    """Remembers writes whose pod must look at its Secret; memory of one entry a session.

    A crash forgets them: the pod then sees the Secret at the kubelet's own pace.
    """

    def __init__(self) -> None:
        self._pending: dict[SessionKey, _Pending] = {}

    def want(self, key: SessionKey, secret: Meta, now_at: float) -> None:
        """Touch the pods of `key` once this version of its Secret was seen in the watch."""
        pending = _Pending(secret.uid, secret.version, now_at + UNSEEN_S, TOUCHES, seen=False)
        self._pending[key] = pending

    def seen(self, secret: Meta, now_at: float) -> bool:
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
        pending = self._pending[key]
        pending.left -= 1
        pending.seen, pending.at = True, now_at + AGAIN_S
        if pending.left <= 0:
            del self._pending[key]

    def drop(self, key: SessionKey) -> None:
        self._pending.pop(key, None)

    def next_at(self, key: SessionKey) -> float | None:
        """Return when `is_due` becomes true by itself, on the monotonic clock, or None."""
        pending = self._pending.get(key)
        return pending.at if pending is not None else None

    def __len__(self) -> int:
        return len(self._pending)


def _is_at_least(secret: Meta, pending: _Pending) -> bool:
    """Compare versions of one kind as positive integers (KEP-5504), never as text."""
    if secret.uid != pending.secret_uid or secret.version == pending.version:
        return True
    return (
        secret.version.isdecimal()
        and pending.version.isdecimal()
        and int(secret.version) >= int(pending.version)
    )
