"""Decides whether a 403 means a missing right, or a server that has just started (pure).

An API server answers 403 to every account but its administrators until its authorizer knows the
bindings: for 0.2 s on an empty cluster, for minutes where there are many of them. Its answer does
not differ from the one for a right that is missing. Source: kubernetes#121635.

Not covered: a process that starts within that time, with a first connection that is accepted. It
has seen no right that works and no lost connection, and reports the right as missing until the
first good answer. In return a right that is really missing is reported at once at every other
start.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from cachetools import LRUCache

from reconciler.clock import LONG_AGO, Instant

LOST_S = 60.0
"""For so long after a lost connection the server may be another one, or may have restarted."""

PATIENCE_S = 15.0
"""A right that is refused for longer is reported as missing: the authorizer of a usual cluster is
ready within a second, and a person who removed a right should see the report soon."""

WAKE_EVERY_S = 1.0
"""Shortest time between two wakes of one namespace: a right that works only sometimes, as behind a
load balancer with one server that refuses, must not cause a wake for each answer."""

MAX_RIGHTS = 10_000
"""Rights that are remembered: 8 in each of 500 namespaces, and a margin."""


class AccessRight(NamedTuple):
    """A verb on a kind in a namespace; None = in all of them."""

    verb: str
    plural: str
    namespace: str | None


class _Refusal(msgspec.Struct):
    """A streak of 403s for one right."""

    first_at: Instant
    last_at: Instant
    is_missing: bool = False


class AuthorizerMemory:
    """Records which rights of one account work, from the answers to its requests.

    Args:
        on_granted: Called when a right that was refused works again, with its namespace, or None
            where everything may work again: the server was restarted, or the right is for all
            namespaces. At most once per `WAKE_EVERY_S`, and then as soon as that has passed and
            the next answer comes.
    """

    def __init__(self, on_granted: Callable[[str | None], None] = lambda _: None) -> None:
        self._on_granted = on_granted
        self._worked: LRUCache[AccessRight, None] = LRUCache(MAX_RIGHTS)
        self._refusals: LRUCache[AccessRight, _Refusal] = LRUCache(MAX_RIGHTS)
        self._woken_at: LRUCache[str | None, Instant] = LRUCache(MAX_RIGHTS)
        self._to_wake: dict[str | None, None] = {}
        self._lost_until_at: Instant = LONG_AGO

    def lost(self, now_at: Instant) -> None:
        """Record that no answer came, or one of a server that is starting or stopping."""
        self._lost_until_at = now_at + LOST_S

    def granted(self, right: AccessRight, now_at: Instant) -> None:
        """Record an answer that proves the right; an error other than a 403 proves it, too."""
        if right not in self._worked:
            self._worked[right] = None
        if self._refusals and self._refusals.pop(right, None) is not None:
            is_common = right.namespace is None or now_at < self._lost_until_at
            self._to_wake[None if is_common else right.namespace] = None
        if self._to_wake:
            self._wake(now_at)

    def refused(self, right: AccessRight, now_at: Instant) -> bool:
        """Take a 403 of the authorizer; return True if the right does not count as missing yet.

        It does not for `PATIENCE_S` after its first refusal, if it has worked in this process or a
        connection was lost within `LOST_S`. A right that counts as missing does so until it is
        granted.
        """
        refusal = self._refusals.get(right)
        if refusal is None or (not refusal.is_missing and now_at - refusal.last_at > LOST_S):
            refusal = self._refusals[right] = _Refusal(now_at, now_at)
        refusal.last_at = now_at
        is_excused = right in self._worked or now_at < self._lost_until_at
        if not is_excused or now_at - refusal.first_at >= PATIENCE_S:
            refusal.is_missing = True
        self._wake(now_at)
        return not refusal.is_missing

    def _wake(self, now_at: Instant) -> None:
        for namespace in tuple(self._to_wake):
            if now_at - self._woken_at.get(namespace, LONG_AGO) < WAKE_EVERY_S:
                continue
            del self._to_wake[namespace]
            self._woken_at[namespace] = now_at
            self._on_granted(namespace)
