"""A session that the platform has reported as deleted gets no token."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter

from reconciler.clock import LONG_AGO, NEVER, Instant
from reconciler.controller.state.confirmations import RECHECK_S
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.write_log import Commit
from reconciler.lab.simulation.event_log import CheckedWrites
from reconciler.lab.simulation.fakes import PlatformAnswer
from reconciler.lab.simulation.invariants import value_of
from reconciler.naming import SessionKey

REVOKED = "no_token_revoked"

RESYNC_S = 360.0
"""The controller's resync period; it spreads its work over half of it."""

BELIEVED_S = 60.0
"""Time until a repeated "not found" is effective: a single one is not."""


LISTED_S = 60.0
"""Longest time between two lists that a process takes for one: it lists all projects at once."""


@dataclass(slots=True)
class _Answers:
    """When a process got the first answer without a session: to a look-up, and to a list.

    Args:
        repeated_at: When a second look-up, `RECHECK_S` after the first, had the same answer.
        lacked_at: When the last list of its project lacked it, which may have been empty.
    """

    looked_up_at: Instant = NEVER
    repeated_at: Instant = NEVER
    listed_at: Instant = NEVER
    lacked_at: Instant = LONG_AGO


@dataclass(slots=True)
class _DeletedSession:
    project: str
    answers: dict[str, _Answers] = field(default_factory=lambda: defaultdict(_Answers))


class _Outages:
    """The times for which a process got no answers, about one project or about any ("")."""

    def __init__(self) -> None:
        self._since_at: dict[str, Instant] = {}
        self._ended: list[tuple[str, Instant, Instant]] = []

    def failed(self, project: str, now_at: Instant) -> None:
        self._since_at.setdefault(project, now_at)

    def answered(self, project: str, now_at: Instant) -> None:
        for which in {"", project} & self._since_at.keys():
            self._ended.append((which, self._since_at.pop(which), now_at))

    def seconds(self, project: str, since_at: Instant, now_at: Instant) -> float:
        """Return for how long there was no answer about a project in this time, seconds."""
        lasting = [(which, at, now_at) for which, at in self._since_at.items()]
        found = (each for each in self._ended + lasting if each[0] in ("", project))
        total_s, counted_at = 0.0, since_at
        for _, began_at, ended_at in sorted(found, key=itemgetter(1)):
            total_s += max(0.0, ended_at - max(began_at, counted_at))
            counted_at = max(counted_at, ended_at)
        return total_s


class RevocationChecker:
    """Checks every token that we write for a session that the platform has deleted; a commit hook.

    A process may write for one resync after the platform's answer to a look-up of that session, and
    for two resyncs after the first list of its project without it. An empty list counts only beside
    a list with a session: alone it may be that of a client without rights. One such answer may be
    wrong, so that it must be repeated: until it is, time in which the platform answers nothing
    about that project does not count.

    Args:
        process_of: Returns the process that a write's user agent names.
    """

    def __init__(self, writes: CheckedWrites, *, process_of: Callable[[str], str]) -> None:
        self._names, self._event_log, self._clock, self._us = writes
        self._process_of = process_of
        self._deleted: dict[str, _DeletedSession] = {}
        self._values: dict[str, str] = {}
        self._outages: dict[str, _Outages] = defaultdict(_Outages)
        self._found_at: dict[str, Instant] = {}

    def deleted(self, session_id: str, project: str) -> None:
        """Record that the platform has deleted a session."""
        self._deleted[session_id] = _DeletedSession(project)

    def answered(self, answer: PlatformAnswer) -> None:
        """Record an answer of the platform."""
        process, session_id, now_at = answer.process, answer.session_id, self._clock.monotonic()
        self._outages[process].answered(answer.project, now_at)
        if session_id is None:
            self._listed(answer, now_at)
        elif session_id in self._deleted and session_id not in answer.found:
            said = self._deleted[session_id].answers[process]
            said.looked_up_at = min(said.looked_up_at, now_at)
            if now_at >= said.looked_up_at + RECHECK_S:
                said.repeated_at = min(said.repeated_at, now_at)

    def _listed(self, answer: PlatformAnswer, now_at: Instant) -> None:
        if answer.found:
            self._found_at[answer.process] = now_at
        is_visible = now_at <= self._found_at.get(answer.process, LONG_AGO) + LISTED_S
        for gone in self._deleted.values():
            said = gone.answers[answer.process]
            if answer.project in ("", gone.project):
                said.lacked_at = now_at
            if is_visible and now_at <= said.lacked_at + LISTED_S:
                said.listed_at = min(said.listed_at, now_at)

    def failed(self, process: str, project: str) -> None:
        """Record that the platform gave no answer; see `FakePlatformState.on_failure`."""
        self._outages[process].failed(project, self._clock.monotonic())

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
        said = gone.answers[process]
        now_at, key = self._clock.monotonic(), SessionKey(metadata["namespace"], session_id)
        since_at = min(said.looked_up_at, said.listed_at)
        failed_s = self._outages[process].seconds(gone.project, since_at, now_at)
        for at, longest_s, how in (
            (said.repeated_at, RESYNC_S, "asked for it twice"),
            (said.looked_up_at, RESYNC_S + failed_s, "asked for it"),
            (said.listed_at, 2 * RESYNC_S + failed_s, "in a list"),
        ):
            if now_at > at + longest_s + BELIEVED_S:
                what = f"{key} got a token {now_at - at:.0f} s after the platform had said, {how},"
                self._event_log.add_violation(REVOKED, f"{what} that it has no such session")
                return
