"""The expired-token seconds of each runner: how long the token in its file was expired (pure).

All instants are wall time of the validator, in seconds since the epoch, as `exp` is. Nothing is
sampled: between two changes of a file the expired part of the interval is a subtraction.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from reconciler.clock import LONG_AGO, EpochTime
from reconciler.naming import SessionKey

UNREADABLE: EpochTime = LONG_AGO
"""Expiry of a file that is missing, or that holds no token which the validator accepts."""

State = Literal["pending", "running", "stopping", "ended"]


@dataclass(frozen=True, slots=True)
class SessionReport:
    """The figures of one session: the sums over its containers, ended ones included.

    Args:
        expires_at_s: `exp` of the token in the newest running container's file; None if none runs.
        rejections: Calls that the server refused, retries included.
        containers: Number of containers that started.
    """

    namespace: str
    session_id: str
    state: State
    expires_at_s: EpochTime | None
    expired_token_seconds: float
    unauthenticated: int
    reauthentications: int
    grpc_calls: int
    rejections: int
    containers: int


@dataclass(frozen=True, slots=True)
class FleetReport:
    """All sessions; `worst` is the one with the most expired seconds, then unauthenticated calls,
    or None where no session has either."""

    expired_token_seconds: float
    unauthenticated: int
    reauthentications: int
    grpc_calls: int
    rejections: int
    sessions: tuple[SessionReport, ...]
    worst: SessionReport | None


def summarize(sessions: tuple[SessionReport, ...]) -> FleetReport:
    """Return the sums over all sessions."""
    worst = max(sessions, key=_badness, default=None)
    return FleetReport(
        expired_token_seconds=math.fsum(each.expired_token_seconds for each in sessions),
        unauthenticated=sum(each.unauthenticated for each in sessions),
        reauthentications=sum(each.reauthentications for each in sessions),
        grpc_calls=sum(each.grpc_calls for each in sessions),
        rejections=sum(each.rejections for each in sessions),
        sessions=sessions,
        worst=worst if worst is not None and _badness(worst) > (0.0, 0) else None,
    )


def _badness(session: SessionReport) -> tuple[float, int]:
    return session.expired_token_seconds, session.unauthenticated


@dataclass(slots=True)
class ContainerExposure:
    """The expired-token seconds of one container, from its start.

    Args:
        since_s: `expired_s` counts everything before this instant.
        expires_at_s: `exp` of the token in the file since then.
    """

    since_s: EpochTime
    expires_at_s: EpochTime = UNREADABLE
    expired_s: float = 0.0

    def expired_until(self, now_s: EpochTime) -> float:
        """Return the expired seconds up to this instant. A clock that steps back adds nothing."""
        expired_from_s = max(self.since_s, self.expires_at_s)
        return self.expired_s + max(0.0, now_s - expired_from_s)

    def change(self, now_s: EpochTime, expires_at_s: EpochTime) -> None:
        """Record that the file holds another token from this instant on."""
        self.expired_s = self.expired_until(now_s)
        self.since_s = max(self.since_s, now_s)
        self.expires_at_s = expires_at_s


@dataclass(slots=True)
class _Session:
    running: dict[str, ContainerExposure] = field(default_factory=dict)
    ended_expired_s: float = 0.0
    containers: int = 0
    unauthenticated: int = 0
    reauthentications: int = 0
    calls: int = 0
    rejections: int = 0


class ExposureLedger:
    """Counts by session; containers are identified by an ID for each start.

    Memory: one entry a session and one a running container.
    """

    def __init__(self) -> None:
        self._sessions: dict[SessionKey, _Session] = {}
        self._owner: dict[str, SessionKey] = {}
        self._mounted: dict[str, EpochTime] = {}

    def __repr__(self) -> str:
        return f"<ExposureLedger {len(self._sessions)} sessions, {len(self._owner)} containers>"

    def register(self, session: SessionKey) -> None:
        """Add a session to the report, even if no container of it ever starts."""
        self._of(session)

    def projected(self, container: str, *, at_s: EpochTime, expires_at_s: EpochTime) -> None:
        """Record a change of the file; before the start: the token at the start."""
        owner = self._owner.get(container)
        if owner is None:
            self._mounted[container] = expires_at_s
        else:
            self._sessions[owner].running[container].change(at_s, expires_at_s)

    def started(self, container: str, session: SessionKey, *, at_s: EpochTime) -> None:
        """Record a start; a container without a token in its file is exposed from now on."""
        counts = self._of(session)
        expires_at_s = self._mounted.pop(container, UNREADABLE)
        counts.running[container] = ContainerExposure(at_s, expires_at_s)
        counts.containers += 1
        self._owner[container] = session

    def ended(self, container: str, *, at_s: EpochTime) -> None:
        """Record an end; an unknown container is ignored."""
        self._mounted.pop(container, None)
        owner = self._owner.pop(container, None)
        if owner is not None:
            counts = self._sessions[owner]
            counts.ended_expired_s += counts.running.pop(container).expired_until(at_s)

    def end_all(self, *, at_s: EpochTime) -> None:
        """Record the end of every container: the fleet stops."""
        for container in list(self._owner):
            self.ended(container, at_s=at_s)

    def called(self, session: SessionKey, *, accepted: bool) -> None:
        """Count a call by the server's answer."""
        counts = self._of(session)
        counts.calls += 1
        counts.rejections += not accepted

    def refused(self, session: SessionKey, *, retry_succeeded: bool) -> None:
        """Count a refused call by the result of its only retry."""
        counts = self._of(session)
        counts.reauthentications += retry_succeeded
        counts.unauthenticated += not retry_succeeded

    def report(self, session: SessionKey, *, now_s: EpochTime, state: State) -> SessionReport:
        """Return a session's figures up to now."""
        counts = self._of(session)
        running = list(counts.running.values())
        return SessionReport(
            namespace=session.namespace,
            session_id=session.session_id,
            state=state,
            expires_at_s=running[-1].expires_at_s if running else None,
            expired_token_seconds=counts.ended_expired_s
            + math.fsum(each.expired_until(now_s) for each in running),
            unauthenticated=counts.unauthenticated,
            reauthentications=counts.reauthentications,
            grpc_calls=counts.calls,
            rejections=counts.rejections,
            containers=counts.containers,
        )

    def sessions(self) -> list[SessionKey]:
        """Return the sessions in the order in which they were first seen, a copy."""
        return list(self._sessions)

    def _of(self, session: SessionKey) -> _Session:
        return self._sessions.setdefault(session, _Session())
