"""What the platform has answered about sessions: confirmed where, and running or not."""

import enum
from collections.abc import Callable, Collection, KeysView

from cachetools import LRUCache, TLRUCache

from reconciler.clock import LONG_AGO, Clock, Instant
from reconciler.controller.decide.confirmation_mac import ConfirmationMac, is_well_formed
from reconciler.controller.decide.refresh_plan import YOUNG_RETRY_S, Confirmation, phase
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey
from reconciler.platform.models import PlatformSession
from reconciler.time_slice import TimeSlice

DENIED_S = 60.0
"""How long a "not found" is used."""

YOUNG_DENIED_S = YOUNG_RETRY_S - 1.0
"""The same where the pod is young; it ends before the session is planned again."""

REWRITE_S = 300.0
"""Period over which confirmations are written again after a change of the client secret, or where
they are missing as a term begins: 10,000 sessions cost 33 patches a second, little more than their
refreshes."""

MAX_REWRITTEN = 20_000
"""Bound on remembered rewrites; a forgotten one is made once more."""

PREVIOUS_KEY = -1
"""The generation number of a key that was replaced."""

MAX_DENIED = 10_000
"""Bound on remembered denials, so that a flood of labelled pods cannot fill the memory."""


class Denial(enum.Enum):
    """What a "not found" of the platform changed."""

    KNOWN = "known"
    NEW = "new"
    REVOKED = "revoked"


class ConfirmationCache:
    """Confirmations and the set of running sessions, from lists and single look-ups.

    No error and no absence removes a confirmation. A session that a complete list lacks keeps its
    previous confirmation, but is looked up before its next write: a repeated "not found" ends the
    confirmation (`Revocations`), and without an answer it stays.
    """

    def __init__(
        self,
        clock: Clock,
        mac: ConfirmationMac,
        namespace_of: Callable[[PlatformSession], str],
    ) -> None:
        self._mac = mac
        self._namespace_of = namespace_of
        self._revocations = Revocations(clock)
        self._projects: dict[SessionKey, str] = {}
        self._previous: dict[SessionKey, str] = {}
        self._verified: dict[SessionKey, tuple[str, str, int]] = {}
        self._rewritten_at: TLRUCache[SessionKey, Instant, Instant] = TLRUCache(
            MAX_REWRITTEN, ttu=lambda _key, _at, now_at: now_at + REWRITE_S, timer=clock.monotonic
        )
        self._clock = clock
        self._term_began_at = clock.monotonic()
        self._running: set[SessionKey] = set()
        self._covers_all = False
        self._covered: set[str] = set()
        self._denied: TLRUCache[SessionKey, float, Instant] = TLRUCache(
            MAX_DENIED, ttu=lambda _key, for_s, now_at: now_at + for_s, timer=clock.monotonic
        )

    def key_of(self, session: PlatformSession) -> SessionKey:
        return SessionKey(self._namespace_of(session), session.id)

    def begin_term(self) -> None:
        """Forget what was learned in an earlier term: another leader may know more."""
        self._term_began_at = self._clock.monotonic()
        self.end_term()

    def end_term(self) -> None:
        """Forget what was learned in this term: the next leader asks, a standby does not.

        Its confirmations are on the Secrets, and it removes them from revoked sessions.
        """
        self._projects.clear()
        self._previous.clear()
        self._covers_all = False
        self._covered.clear()

    def record_confirmed(self, session: PlatformSession) -> SessionKey:
        """Record that the platform knows this session, with its project and namespace."""
        key = self.key_of(session)
        self._projects[key] = session.project_id
        self._previous.pop(key, None)
        self._verified.pop(key, None)
        self._denied.pop(key, None)
        self._revocations.answered_yes(key)
        return key

    def record_running(self, session: PlatformSession) -> SessionKey:
        """Record a row of a list of running sessions, before the rest of the list has come."""
        key = self.record_confirmed(session)
        self._running.add(key)
        return key

    def record_denied(self, key: SessionKey, *, is_young: bool) -> Denial:
        """Record that the platform has no such session in this namespace and project.

        Args:
            is_young: The pod may exist before its session: the denial is used for a short time.
        """
        new = key not in self._denied
        revocations = self._revocations
        had_word = key in self._projects or key in self._previous or key in self._verified
        if had_word and not revocations.is_revoked(key):
            if not revocations.answered_no(key):
                self._suspect(key)
                self._denied[key] = RECHECK_S
                return Denial.KNOWN
            for known in (self._projects, self._previous, self._verified):
                known.pop(key, None)
            self._running.discard(key)
            self._denied[key] = YOUNG_DENIED_S if is_young else DENIED_S
            return Denial.REVOKED
        self._denied[key] = YOUNG_DENIED_S if is_young else DENIED_S
        return Denial.NEW if new else Denial.KNOWN

    def record_unanswered(self, key: SessionKey) -> None:
        """Record that the platform did not answer: a previous confirmation is used for a while."""
        self._revocations.unanswered(key)

    def record_removed(self, key: SessionKey) -> None:
        """Record that a revoked session's confirmation was removed from its Secret."""
        self._revocations.removed(key)

    async def record_list(
        self,
        found: set[SessionKey],
        *,
        complete: bool,
        complete_projects: Collection[str] = (),
        covered: Collection[str] = (),
    ) -> None:
        """Take in the end of a list of running sessions, after `record_running` of each.

        Only a complete list removes sessions from the running set, of a project or of all, and
        only if some list has a row: an error, or empty answers alone, must never stop refreshes.
        Sessions that such a list lacks are looked up before their next write.

        Args:
            found: The keys of its rows that are of this shard.
            complete: It was read to its end, and is not empty: it has a row, of any shard.
            complete_projects: Projects with a complete list, where any list has a row.
            covered: Namespaces of these projects.
        """
        found = found.difference(self._revocations.revoked())  # revoked after its row was read
        # First, and at once: one that is revoked during the turns must not come back. The keys of
        # the pages stay in the set: those of `found` would be second copies.
        self._running.update(found)
        if complete:
            self._covers_all = True
        else:
            self._covered.update(covered)
        turn = TimeSlice(self._clock)
        for key in tuple(self._running):
            is_covered = complete or self._projects.get(key) in complete_projects
            if is_covered and key not in found:
                self._running.discard(key)
            await turn.item_done()
        for key in tuple(self._projects):
            if key not in found and (complete or key.namespace in covered):
                self._suspect(key)
            await turn.item_done()

    def _suspect(self, key: SessionKey) -> None:
        if (project := self._projects.pop(key, None)) is not None:
            self._previous[key] = project

    def running(self) -> frozenset[SessionKey]:
        """Return the running sessions by the platform's last lists, a copy."""
        return frozenset(self._running)

    def is_running(self, key: SessionKey) -> bool:
        return key in self._running

    def confirmation(
        self, key: SessionKey, pod: ObjectMeta | None, secret: ObjectMeta | None
    ) -> Confirmation:
        """Return what is known without a request: from lists, look-ups, and the Secret."""
        project = self._projects.get(key)
        if project is not None:
            return Confirmation.NO if _has_other_project(project, pod, secret) else Confirmation.YES
        if self._revocations.is_revoked(key) and self._is_removable(key, secret):
            return Confirmation.REVOKED
        if key in self._denied:
            doubted = self._revocations.is_doubted(key)
            return Confirmation.DOUBTED if doubted else Confirmation.NO
        if not self.was_confirmed(key, pod, secret):
            previous = self._previous.get(key)
            return Confirmation.UNKNOWN if previous is None else Confirmation.NO
        return Confirmation.UNKNOWN if self.is_absent(key) else Confirmation.YES

    def was_confirmed(
        self, key: SessionKey, pod: ObjectMeta | None, secret: ObjectMeta | None
    ) -> bool:
        """Whether the platform confirmed the session before, and has not revoked that since.

        Args:
            secret: The session's own Secret, or None.
        """
        if self._revocations.is_revoked(key):
            return False
        project = self._projects.get(key, self._previous.get(key))
        if project is not None:
            return not _has_other_project(project, pod, secret)
        return secret is not None and self._has_valid_mac(key, secret)

    def project_of(self, key: SessionKey) -> str | None:
        """Return the project that the platform last named for a session, None if unknown."""
        return self._projects.get(key, self._previous.get(key))

    def is_absent(self, key: SessionKey) -> bool:
        """Whether a list that covers the session lacks it, and it was not looked up since."""
        if key in self._projects or self._revocations.is_unanswered(key):
            return False
        return key in self._previous or self._covers_all or key.namespace in self._covered

    def is_doubted(self, key: SessionKey) -> bool:
        """Whether the platform has answered "not found" once, and is to be asked again."""
        return self._revocations.is_doubted(key)

    def is_revoked(self, key: SessionKey) -> bool:
        """Whether this session gets a token only after a new "found" of the platform."""
        return self._revocations.is_revoked(key)

    def _is_removable(self, key: SessionKey, secret: ObjectMeta | None) -> bool:
        if secret is None or not self._revocations.may_remove(key):
            return False
        return self._has_valid_mac(key, secret)

    def mac_due_at(self, key: SessionKey, secret: ObjectMeta) -> Instant | None:
        """Return when the confirmation on a Secret is to be written again, monotonic, or None.

        It is due if it is signed with the previous key; with an older key, if the session is known
        to be confirmed; and if it is missing or malformed, if the platform named the session and
        its list does not lack it now. The rewrites are spread over `REWRITE_S` by the Secret's UID,
        from the change of the key and the begin of the term. The next one follows after `REWRITE_S`
        at the earliest: a tenant who restores an old confirmation, or removes it, must not make us
        write each second.

        None if it is signed with the current key, or if another replica may have signed it with a
        key that this one does not know yet.
        """
        renewed_at = self._mac.key_changed_at
        found = secret.annotations.confirmation or ""
        if not is_well_formed(found):
            if key not in self._projects:
                return None
            since_at = max(self._term_began_at, LONG_AGO if renewed_at is None else renewed_at)
        else:
            # Without a change of the key nothing is written again, valid or not.
            if renewed_at is None or self._is_verified(key, secret):
                return None
            has_word = key in self._projects or key in self._previous
            is_former = self._mac.is_from_previous_key(found, key, secret.uid)
            if not (has_word or is_former):
                return None
            since_at = renewed_at
        due_at = since_at + phase(secret.uid) * REWRITE_S
        return max(due_at, self._rewritten_at.get(key, LONG_AGO) + REWRITE_S)

    def record_rewritten(self, key: SessionKey) -> None:
        """Record that the confirmation on a Secret was written again."""
        self._rewritten_at[key] = self._clock.monotonic()

    def _has_valid_mac(self, key: SessionKey, secret: ObjectMeta) -> bool:
        """Whether the confirmation is valid; with the previous key only while that is accepted."""
        if self._is_verified(key, secret):
            return True
        found = secret.annotations.confirmation or ""
        if not found or not self._mac.is_from_previous_key(found, key, secret.uid):
            return False
        self._verified[key] = (secret.uid, found, PREVIOUS_KEY)
        return True

    def _is_verified(self, key: SessionKey, secret: ObjectMeta) -> bool:
        """Verify a confirmation, once with each key where it is the only evidence.

        A standby reads each several times a minute. Of a session that the platform named, the
        leader reads it only after a change of the key: 0.1 KB a session is not worth that.
        """
        made = secret.annotations.confirmation or ""
        found = (secret.uid, made, self._mac.generation)
        if self._verified.get(key) == found:
            return True
        if not made or not self._mac.is_from_current_key(made, key, secret.uid):
            return False
        if key not in self._projects:
            self._verified[key] = found
        return True

    async def prune(self, is_alive: Callable[[SessionKey], bool]) -> None:
        """Forget the confirmations of sessions that are not running and have no pod.

        Args:
            is_alive: Whether a store has a pod of the session.
        """
        turn = TimeSlice(self._clock)
        for known in (self._projects, self._previous, self._verified):
            for key in tuple(known):
                if key not in self._running and not is_alive(key):
                    known.pop(key, None)
                await turn.item_done()

    def running_count(self) -> int:
        return len(self._running)


def _has_other_project(project: str, pod: ObjectMeta | None, secret: ObjectMeta | None) -> bool:
    """Whether the session's objects name another project than the platform does."""
    if pod is not None and pod.project_id not in ("", project):
        return True
    return secret is not None and secret.project_id not in ("", project)


RECHECK_S = 10.0
"""Between the two answers: longer than the lag of a database replica, short against a token's life.
"""

FIRST_DENIAL_S = 3600.0
"""How long a first "not found" is remembered; the second usually follows after `RECHECK_S`."""

REVOKED_AGAIN_S = 300.0
"""Between two removals of one session's confirmation: a tenant who restores it must not make us
write each second."""

UNANSWERED_S = 60.0
"""How long the previous confirmation is used after a look-up without an answer."""

MAX_SESSIONS = 10_000
"""Bound on each of the sets below. A forgotten session is looked up once more."""


class Revocations:
    """The platform's answers about sessions that it had confirmed and that its list lacks.

    One "not found" may come from a lagging replica of the platform's database, or while the
    session's row is being written. Two of them, some seconds apart and with no "found" between,
    end the confirmation. No error counts.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first_no: TLRUCache[SessionKey, Instant, Instant] = _timed(clock, FIRST_DENIAL_S)
        self._unanswered: TLRUCache[SessionKey, Instant, Instant] = _timed(clock, UNANSWERED_S)
        self._removed: TLRUCache[SessionKey, Instant, Instant] = _timed(clock, REVOKED_AGAIN_S)
        self._revoked: LRUCache[SessionKey, None] = LRUCache(MAX_SESSIONS)
        self._has_any = False

    def answered_no(self, key: SessionKey) -> bool:
        """Record a "not found"; return True if it ends the session's confirmation now."""
        now_at = self._clock.monotonic()
        first_at = self._first_no.get(key)
        if first_at is None:
            self._first_no[key] = now_at
            self._has_any = True
            return False
        if now_at - first_at < RECHECK_S:
            return False
        del self._first_no[key]
        self._revoked[key] = None
        return True

    def answered_yes(self, key: SessionKey) -> None:
        """Record a "found", from a list or a look-up: it ends doubt and revocation."""
        if not self._has_any:  # 1.5 us for each set, and a list answers for all sessions
            return
        for known in (self._first_no, self._unanswered, self._removed, self._revoked):
            known.pop(key, None)
        self._has_any = bool(self._first_no or self._unanswered or self._removed or self._revoked)

    def unanswered(self, key: SessionKey) -> None:
        """Record that the platform gave no answer: an outage revokes nothing."""
        self._has_any = True
        self._unanswered[key] = self._clock.monotonic()

    def removed(self, key: SessionKey) -> None:
        """Record that the confirmation was removed from the session's Secret."""
        self._has_any = True
        self._removed[key] = self._clock.monotonic()

    def is_doubted(self, key: SessionKey) -> bool:
        """Whether the platform has answered "not found" once and is to be asked again soon."""
        return key in self._first_no

    def is_unanswered(self, key: SessionKey) -> bool:
        return key in self._unanswered

    def is_revoked(self, key: SessionKey) -> bool:
        """Whether this session gets a token only after a new "found"."""
        return key in self._revoked

    def revoked(self) -> KeysView[SessionKey]:
        """Return the revoked sessions, a live view."""
        return self._revoked.keys()

    def may_remove(self, key: SessionKey) -> bool:
        """Whether the confirmation of a revoked session may be removed (again) now."""
        return key not in self._removed


def _timed(clock: Clock, for_s: float) -> "TLRUCache[SessionKey, Instant, Instant]":
    return TLRUCache(
        MAX_SESSIONS, ttu=lambda _key, _value, now_at: now_at + for_s, timer=clock.monotonic
    )
