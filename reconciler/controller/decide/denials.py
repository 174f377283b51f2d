"""The sessions whose writes are denied, by what denies them, and whom an accepted one wakes (pure).

A denial gives no sign when it ends: the next write that is accepted shows it. So the denied
sessions of one denier share their tries, as the callers of an endpoint that is down share its
probe. Together they try every few seconds, however many they are (`write_errors.denied_wait_s`).
After each that is accepted again, `WOKEN` others follow at once, and after each of these as many.

Not all are woken by the first: a webhook may still deny in another namespace, or in one of its
replicas. So each accepted write causes at most `WOKEN` that are denied, and if more than one in
`WOKEN` is accepted, all sessions follow within some rounds.
"""

from itertools import islice

from reconciler.naming import SessionKey

WOKEN = 4
"""Most sessions that one accepted write wakes: 500 sessions follow in five rounds."""


class _Denier:
    """`waiting` are the denied sessions that no accepted write has woken, by namespace; the one
    that was tried longest ago is the first."""

    __slots__ = ("sessions", "waiting")

    def __init__(self) -> None:
        self.sessions = 0
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
    each of its own Secrets unwritable, which concerns no other namespace.

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
        self.forget(key)
        name = denied_by or f"namespace {key.namespace}"
        denier = self._deniers.setdefault(name, _Denier())
        self._denier_of[key] = name
        denier.sessions += 1
        denier.add(key)
        return denier.sessions

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
        if not denier.sessions:
            del self._deniers[name]

    def __len__(self) -> int:
        return len(self._denier_of)
