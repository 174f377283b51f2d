"""What the platform told us of sessions: who is confirmed where, and who is running."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from cachetools import TLRUCache

from reconciler.clock import Clock
from reconciler.control.plan import YOUNG_LOOK_S, Confirmation
from reconciler.control.seal import Seal
from reconciler.kube.api import Meta
from reconciler.names import Names, SessionKey
from reconciler.platform.models import Session

DENIED_S = 60.0
"""How long a "no" is believed."""

YOUNG_DENIED_S = YOUNG_LOOK_S - 1.0
"""How long it is where the pod is young; over when the session is looked at again."""

DENIED_MAX = 10_000
"""Bound on remembered refusals, so that a flood of labelled pods cannot fill memory."""


@dataclass(frozen=True, slots=True)
class DirectoryStats:
    confirmed: int
    running: int
    denied: int


class Directory:
    """Confirmations and the running set, learned from lists and single look-ups.

    Nothing here is ever taken back by an error or an absence: a confirmation stands until its
    session leaves both the cluster and the platform's list.
    """

    def __init__(
        self, clock: Clock, names: Names, seal: Seal, namespace_of: Callable[[Session], str]
    ) -> None:
        self._names = names
        self._seal = seal
        self._namespace_of = namespace_of
        self._projects: dict[SessionKey, str] = {}
        self._sealed: dict[SessionKey, tuple[str, str]] = {}
        self._running: set[SessionKey] = set()
        self._denied: TLRUCache[SessionKey, float] = TLRUCache(
            DENIED_MAX, ttu=lambda _key, for_s, now_at: now_at + for_s, timer=clock.monotonic
        )

    def key_of(self, session: Session) -> SessionKey:
        return SessionKey(self._namespace_of(session), session.id)

    def confirm(self, session: Session) -> SessionKey:
        """Record that the platform knows this session, with its project and namespace."""
        key = self.key_of(session)
        self._projects[key] = session.project_id
        self._denied.pop(key, None)
        return key

    def deny(self, key: SessionKey, *, young: bool) -> bool:
        """Record that the platform does not know it so; True if that was not known.

        Args:
            young: The pod may be there before its session: a "no" is believed for a moment only.
        """
        new = key not in self._denied
        self._denied[key] = YOUNG_DENIED_S if young else DENIED_S
        return new

    def listed(
        self, sessions: Iterable[Session], *, complete: bool, whole: Collection[str] = ()
    ) -> list[SessionKey]:
        """Take in a list of running sessions and return their keys, each once.

        Only a complete list that is not empty takes a session out of the running set, a project's
        or all of them: an error or an empty answer must never make us stop.

        Args:
            whole: Projects whose own list is complete and not empty.
        """
        keys = list(dict.fromkeys(self.confirm(session) for session in sessions))
        if complete and keys:
            self._running = set(keys)
        else:
            gone = {key for key in self._running if self._projects.get(key) in whole}
            self._running = self._running - gone | set(keys)
        return keys

    def running(self) -> frozenset[SessionKey]:
        """Return the sessions that the platform called running last, a copy."""
        return frozenset(self._running)

    def is_running(self, key: SessionKey) -> bool:
        return key in self._running

    def confirmation(self, key: SessionKey, pod: Meta | None, secret: Meta | None) -> Confirmation:
        """Return what is known now, without asking: by list, by look-up, or by seal."""
        project = self._projects.get(key)
        labelled = {meta.project_id for meta in (pod, secret) if meta and meta.project_id}
        if project is not None:
            return Confirmation.NO if labelled - {project} else Confirmation.YES
        if key in self._denied:
            return Confirmation.NO
        if secret is not None and self._is_sealed(key, secret):
            return Confirmation.YES
        return Confirmation.UNKNOWN

    def _is_sealed(self, key: SessionKey, secret: Meta) -> bool:
        """Verify a seal once; a session is planned several times a minute."""
        found = (secret.uid, secret.annotations.get(self._names.confirmed, ""))
        if self._sealed.get(key) == found:
            return True
        if not found[1] or not self._seal.is_valid(found[1], key, secret.uid):
            return False
        self._sealed[key] = found
        return True

    def prune(self, alive: Collection[SessionKey]) -> None:
        """Forget confirmations of sessions that neither the cluster nor the platform has."""
        kept = self._running.union(alive)
        for known in (self._projects, self._sealed):
            for key in known.keys() - kept:
                del known[key]

    def stats(self) -> DirectoryStats:
        return DirectoryStats(len(self._projects), len(self._running), len(self._denied))
