"""The sessions whose writes or touches are denied, by what denies them, and whom an accepted one
wakes (pure).

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
from typing import NamedTuple

from reconciler.naming import SessionKey

WOKEN = 4
"""Most sessions that one accepted write wakes: 500 sessions follow in five rounds."""

NAMESPACES_AT_ONCE = 10
"""A missing right is asked for in so many namespaces at the rate of one denier each. In more of
them each has its part of this rate: where 500 namespaces lack a right it is ten tries a second at
most, and a hundred just before a common expiry. A right that one of them gets alone is noticed
after some 100 s."""

_RIGHT, _RIGHT_TO_TOUCH = "a missing right", "a missing right to touch"
"""Deniers of these names; those of admission begin with `webhook`, `policy` or `namespace`. They
are two: an installation may do without the right to patch pods, and its touches must not delay a
write whose own right is missing."""


class _Request(NamedTuple):
    """The write of a session's Secret, or the touch of its pods."""

    key: SessionKey
    is_touch: bool


class _Denier:
    """`waiting` are the denied requests that no accepted write has woken, by namespace; the one
    that was tried longest ago is the first."""

    __slots__ = ("requests", "requests_in", "waiting")

    def __init__(self) -> None:
        self.requests = 0
        self.requests_in: Counter[str] = Counter()
        self.waiting: dict[str, dict[_Request, None]] = {}

    def add(self, request: _Request) -> None:
        name = request.key.namespace
        namespace = self.waiting.pop(name, {})
        namespace[request] = None
        self.waiting[name] = namespace  # the last one

    def discard(self, request: _Request) -> None:
        name = request.key.namespace
        namespace = self.waiting.get(name, {})
        namespace.pop(request, None)
        if not namespace:
            self.waiting.pop(name, None)


class Denials:
    """Which sessions' last writes were denied, and which touches of their pods.

    A denier is a webhook, a policy, or the API server's checks in one namespace: a tenant may make
    each of its own Secrets unwritable, which concerns no other namespace. A missing right has a
    denier, too: it may be missing in one namespace, or in all of them.

    A touch counts as one more session of its denier. The rights to write and to touch are two.

    Cost: constant for each call; two entries at most for each session.
    """

    def __init__(self) -> None:
        self._denier_of: dict[_Request, str] = {}
        self._deniers: dict[str, _Denier] = {}

    def record_denied(self, key: SessionKey, denied_by: str, *, is_touch: bool = False) -> int:
        """Record a denied write or touch; return how many sessions the same denier denies now.

        Args:
            denied_by: The webhook or the policy, or "" for neither.
        """
        name = denied_by or f"namespace {key.namespace}"
        return self._record(_Request(key, is_touch), name).requests

    def record_forbidden(self, key: SessionKey, *, is_touch: bool = False) -> int:
        """Record a write or touch that lacks a right; return how many share its tries.

        They are those of its namespace, since rights are granted by namespace: a namespace with
        many such sessions delays no other. Above `NAMESPACES_AT_ONCE` the number is greater.
        """
        name = _RIGHT_TO_TOUCH if is_touch else _RIGHT
        requests_in = self._record(_Request(key, is_touch), name).requests_in
        return requests_in[key.namespace] * ceil(len(requests_in) / NAMESPACES_AT_ONCE)

    def _record(self, request: _Request, name: str) -> _Denier:
        self._forget(request)
        denier = self._deniers.setdefault(name, _Denier())
        self._denier_of[request] = name
        denier.requests += 1
        denier.requests_in[request.key.namespace] += 1
        denier.add(request)
        return denier

    def record_accepted(self, key: SessionKey, *, is_touch: bool = False) -> tuple[SessionKey, ...]:
        """Record a write or touch that was accepted; return the sessions to try now.

        They are `WOKEN` at most, of the same denier if this session's last one was denied: first
        those of its namespace, then one of each other namespace. None is returned a second time
        before it is denied again, its write and its touch each.
        """
        request = _Request(key, is_touch)
        name = self._denier_of.get(request)
        self._forget(request)
        denier = self._deniers.get(name) if name is not None else None
        if denier is None:
            return ()
        woken = list(islice(denier.waiting.get(key.namespace, ()), WOKEN))
        others = (keys for space, keys in denier.waiting.items() if space != key.namespace)
        woken += (next(iter(keys)) for keys in islice(others, WOKEN - len(woken)))
        for each in woken:
            denier.discard(each)
        return tuple(dict.fromkeys(each.key for each in woken))

    def is_write_denied(self, key: SessionKey) -> bool:
        return _Request(key, is_touch=False) in self._denier_of

    def forget(self, key: SessionKey) -> None:
        """Drop a session that ended."""
        self.forget_write(key)
        self.forget_touch(key)

    def forget_write(self, key: SessionKey) -> None:
        """Drop a session's write: it needs none now."""
        self._forget(_Request(key, is_touch=False))

    def forget_touch(self, key: SessionKey) -> None:
        """Drop a session's touch: it is not tried again."""
        self._forget(_Request(key, is_touch=True))

    def clear(self) -> None:
        """Forget all: another replica has led since."""
        self._denier_of.clear()
        self._deniers.clear()

    def _forget(self, request: _Request) -> None:
        name = self._denier_of.pop(request, None)
        if name is None:
            return
        denier, namespace = self._deniers[name], request.key.namespace
        denier.discard(request)
        denier.requests -= 1
        denier.requests_in[namespace] -= 1
        if not denier.requests_in[namespace]:
            del denier.requests_in[namespace]
        if not denier.requests:
            del self._deniers[name]

    def __len__(self) -> int:
        return len(self._denier_of)
