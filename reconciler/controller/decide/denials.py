"""The sessions whose writes are denied, by what denies them, and whom an accepted one wakes (pure).

A denial gives no sign when it ends: the next write that is accepted shows it. So the denied
sessions of one denier share their tries, as the callers of an endpoint that is down share its
probe. Together they try every few seconds, however many they are (`write_errors.denied_wait_s`).
After each that is accepted again, `WOKEN` others follow at once, and after each of these as many.

Not all are woken by the first: a webhook may still deny in another namespace, or in one of its
replicas. So each accepted write causes at most `WOKEN` that are denied, and if more than one in
`WOKEN` is accepted, all sessions follow within some rounds.
"""

from collections import Counter
from itertools import islice
from math import ceil

from reconciler.naming import SessionKey

WOKEN = 4
"""Most sessions that one accepted write wakes: 500 sessions follow in five rounds."""

NAMESPACES_AT_ONCE = 10
"""A missing right is asked for in so many namespaces at the rate of one denier each. In more of
them each has its part of this rate: where 500 namespaces lack a right it is ten tries a second at
most, and a hundred just before a common expiry. A right that one of them gets alone is noticed
after some 100 s."""

_RIGHT = "a missing right"
"""A denier of this name; those of admission begin with `webhook`, `policy` or `namespace`."""


class _Denier:
    """`waiting` are the denied sessions that no accepted write has woken, by namespace; the one
    that was tried longest ago is the first."""

    __slots__ = ("sessions", "sessions_in", "waiting")

    def __init__(self) -> None:
        self.sessions = 0
        self.sessions_in: Counter[str] = Counter()
        self.waiting: dict[str, dict[SessionKey, None]] = {}

    def add(self, key: SessionKey) -> None:
        namespace = self.waiting.pop(key.namespace, {})
        namespace[key] = None
        self.waiting[key.namespace] = namespace  # the last one

    def discard(self, key: SessionKey) -> None:
        namespace = self.waiting.get(key.namespace, {})
        namespace.pop(key, None)
        if not namespace:
            self.waiting.pop(key.namespace, None)


class Denials:
    """Which sessions' last writes were denied.

    A denier is a webhook, a policy, or the API server's checks in one namespace: a tenant may make
    each of its own Secrets unwritable, which concerns no other namespace. A missing right has a
    denier, too: it may be missing in one namespace, or in all of them.

    Cost: constant for each call; one entry for each denied session.
    """

    def __init__(self) -> None:
        self._denier_of: dict[SessionKey, str] = {}
        self._deniers: dict[str, _Denier] = {}

    def record_denied(self, key: SessionKey, denied_by: str) -> int:
        """Record a denied write; return how many sessions the same denier denies now.

        Args:
            denied_by: The webhook or the policy, or "" for neither.
        """
        return self._record(key, denied_by or f"namespace {key.namespace}").sessions

    def record_forbidden(self, key: SessionKey) -> int:
        """Record a write that lacks a right; return how many sessions its tries are shared by.

        They are those of its namespace, since rights are granted by namespace: a namespace with
        many such sessions delays no other. Above `NAMESPACES_AT_ONCE` the number is greater.
        """
        sessions_in = self._record(key, _RIGHT).sessions_in
        return sessions_in[key.namespace] * ceil(len(sessions_in) / NAMESPACES_AT_ONCE)

    def _record(self, key: SessionKey, name: str) -> _Denier:
        self.forget(key)
        denier = self._deniers.setdefault(name, _Denier())
        self._denier_of[key] = name
        denier.sessions += 1
        denier.sessions_in[key.namespace] += 1
        denier.add(key)
        return denier

    def record_accepted(self, key: SessionKey) -> tuple[SessionKey, ...]:
        """Record a write that was accepted; return the sessions to try now, `WOKEN` at most.

        They are those of the same denier if this session's last write was denied: first those of
        its namespace, then one of each other namespace. None is returned a second time before it
        is denied again.
        """
        name = self._denier_of.get(key)
        self.forget(key)
        denier = self._deniers.get(name) if name is not None else None
        if denier is None:
            return ()
        woken = list(islice(denier.waiting.get(key.namespace, ()), WOKEN))
        others = (keys for space, keys in denier.waiting.items() if space != key.namespace)
        woken += (next(iter(keys)) for keys in islice(others, WOKEN - len(woken)))
        for each in woken:
            denier.discard(each)
        return tuple(woken)

    def forget(self, key: SessionKey) -> None:
        """Drop a session that ended, or whose last write was not denied."""
        name = self._denier_of.pop(key, None)
        if name is None:
            return
        denier = self._deniers[name]
        denier.discard(key)
        denier.sessions -= 1
        denier.sessions_in[key.namespace] -= 1
        if not denier.sessions_in[key.namespace]:
            del denier.sessions_in[key.namespace]
        if not denier.sessions:
            del self._deniers[name]

    def __len__(self) -> int:
        return len(self._denier_of)
