"""A session that the platform has reported as deleted gets no token."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.clock import Instant
from reconciler.controller.state.confirmations import RECHECK_S
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.write_log import Commit
from reconciler.lab.simulation.event_log import CheckedWrites
from reconciler.lab.simulation.invariants import value_of
from reconciler.naming import SessionKey

REVOKED = "no_token_revoked"

RESYNC_S = 360.0
"""The controller's resync period; it spreads its work over half of it."""

BELIEVED_S = 60.0
"""Time until a repeated "not found" is effective: a single one is not."""


@dataclass(slots=True)
class _Answers:
    """When a process got the first answer without a session: to a look-up, and to a list.

    Args:
        repeated_at: When a second look-up, `RECHECK_S` after the first, had the same answer.
        failed_s: Time without an answer of the platform, before the first one without the session.
    """

    looked_up_at: Instant | None = None
    repeated_at: Instant | None = None
    listed_at: Instant | None = None
    failed_s: float = 0.0


@dataclass(slots=True)
class _DeletedSession:
    since_at: Instant
    answers: dict[str, _Answers] = field(default_factory=dict)


class RevocationChecker:
    """Checks every token that we write for a session that the platform has deleted; a commit hook.

    A process may write for one resync after the platform's answer to a look-up of that session, and
    for two resyncs after the first list of running sessions without it. One such answer may be
    wrong, so that it must be repeated: until it is, time in which the platform answers nothing does
    not count.

    Args:
        process_of: Returns the process that a write's user agent names.
    """

    def __init__(self, writes: CheckedWrites, *, process_of: Callable[[str], str]) -> None:
        self._names, self._event_log, self._clock, self._us = writes
        self._process_of = process_of
        self._deleted: dict[str, _DeletedSession] = {}
        self._values: dict[str, str] = {}
        self._failing_since_at: dict[str, Instant] = {}
        self._failed_s: dict[str, float] = defaultdict(float)

    def deleted(self, session_id: str) -> None:
        """Record that the platform has deleted a session."""
        self._deleted[session_id] = _DeletedSession(self._clock.monotonic())

    def answered(self, process: str, session_id: str | None, found: frozenset[str]) -> None:
        """Record an answer of the platform; see `FakePlatformState.on_answer`."""
        now_at, failed_s = self._clock.monotonic(), self._failed_until_now_s(process)
        self._failed_s[process] = failed_s
        self._failing_since_at.pop(process, None)
        if session_id is None:
            for gone in self._deleted.values() if found else ():
                said = gone.answers.setdefault(process, _Answers(failed_s=failed_s))
                said.listed_at = now_at if said.listed_at is None else said.listed_at
        elif session_id in self._deleted and session_id not in found:
            gone = self._deleted[session_id]
            said = gone.answers.setdefault(process, _Answers(failed_s=failed_s))
            if said.looked_up_at is None:
                said.looked_up_at = now_at
            elif said.repeated_at is None and now_at >= said.looked_up_at + RECHECK_S:
                said.repeated_at = now_at

    def failed(self, process: str) -> None:
        """Record that the platform gave no answer; see `FakePlatformState.on_failure`."""
        self._failing_since_at.setdefault(process, self._clock.monotonic())

    def _failed_until_now_s(self, process: str) -> float:
        now_at = self._clock.monotonic()
        return self._failed_s[process] + now_at - self._failing_since_at.get(process, now_at)

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
        process = self._process_of(commit.caller.agent)
        said = gone.answers.get(process)
        if said is None:
            return
        now_at, key = self._clock.monotonic(), SessionKey(metadata["namespace"], session_id)
        failed_s = self._failed_until_now_s(process) - said.failed_s
        for at, longest_s, how in (
            (said.repeated_at, RESYNC_S, "asked for it twice"),
            (said.looked_up_at, RESYNC_S + failed_s, "asked for it"),
            (said.listed_at, 2 * RESYNC_S + failed_s, "in a list"),
        ):
            if at is not None and now_at > at + longest_s + BELIEVED_S:
                what = f"{key} got a token {now_at - at:.0f} s after the platform had said, {how},"
                self._event_log.add_violation(REVOKED, f"{what} that it has no such session")
                return
