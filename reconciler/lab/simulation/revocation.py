"""A session that the platform has reported as deleted gets no token."""

from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.clock import Clock, Instant
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.write_log import Commit
from reconciler.lab.simulation.event_log import EventLog
from reconciler.lab.simulation.invariants import value_of
from reconciler.naming import Names, SessionKey

REVOKED = "no_token_revoked"

RESYNC_S = 360.0
"""The controller's resync period; it spreads its work over half of it."""

BELIEVED_S = 60.0
"""Time until a repeated "not found" is effective: a single one is not."""


@dataclass(slots=True)
class _Answers:
    """When a process got the first answer without a session: to a look-up, and to a list."""

    looked_up_at: Instant | None = None
    listed_at: Instant | None = None


@dataclass(slots=True)
class _DeletedSession:
    since_at: Instant
    answers: dict[str, _Answers] = field(default_factory=dict)


class RevocationChecker:
    """Checks every token that we write for a session that the platform has deleted; a commit hook.

    A process may write for one resync after the platform's answer to a look-up of that session, and
    for two resyncs after the first list of running sessions without it.

    Args:
        us: The user of the checked writes.
        process_of: Returns the process that a write's user agent names.
    """

    def __init__(
        self,
        names: Names,
        event_log: EventLog,
        clock: Clock,
        *,
        us: str,
        process_of: Callable[[str], str],
    ) -> None:
        self._names = names
        self._event_log = event_log
        self._clock = clock
        self._us = us
        self._process_of = process_of
        self._deleted: dict[str, _DeletedSession] = {}
        self._values: dict[str, str] = {}

    def deleted(self, session_id: str) -> None:
        """Record that the platform has deleted a session."""
        self._deleted[session_id] = _DeletedSession(self._clock.monotonic())

    def answered(self, process: str, session_id: str | None, found: frozenset[str]) -> None:
        """Record an answer of the platform; see `FakePlatformState.on_answer`."""
        now_at = self._clock.monotonic()
        if session_id is None:
            for gone in self._deleted.values() if found else ():
                said = gone.answers.setdefault(process, _Answers())
                said.listed_at = now_at if said.listed_at is None else said.listed_at
        elif session_id in self._deleted and session_id not in found:
            said = self._deleted[session_id].answers.setdefault(process, _Answers())
            said.looked_up_at = now_at if said.looked_up_at is None else said.looked_up_at

    def commit(self, commit: Commit) -> None:
        """Check one commit."""
        if commit.kind is not kinds.SECRETS or commit.removed:
            return
        metadata = commit.object["metadata"]
        value, uid = value_of(commit.object, self._names), metadata["uid"]
        if self._values.get(uid) == value:
            return  # an annotation changed: a confirmation may be removed
        self._values[uid] = value
        if commit.user != self._us:
            return
        session_id = (metadata.get("labels") or {}).get(self._names.session_id, "")
        gone = self._deleted.get(session_id)
        if gone is None:
            return
        said = gone.answers.get(self._process_of(commit.caller.agent))
        if said is None:
            return
        now_at, key = self._clock.monotonic(), SessionKey(metadata["namespace"], session_id)
        for at, resyncs, how in (
            (said.looked_up_at, 1, "asked for it"),
            (said.listed_at, 2, "in a list"),
        ):
            if at is not None and now_at > at + resyncs * RESYNC_S + BELIEVED_S:
                what = f"{key} got a token {now_at - at:.0f} s after the platform had said, {how},"
                self._event_log.add_violation(REVOKED, f"{what} that it has no such session")
                return
