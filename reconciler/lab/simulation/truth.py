"""What a replica says of its tokens, held against what is so.

A survey feeds metrics, page and `status`; `explain` judges the same objects by itself. Neither may
call a token alive that is dead, or the reverse, nor a fleet healthy that is not.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.clock import Clock
from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.status.exposure import EARLIEST_START_S
from reconciler.controller.status.session_reading import SessionReading
from reconciler.controller.status.snapshot import StatusSnapshot
from reconciler.inspection.pod_token import assess
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.kinds import Object
from reconciler.lab.apiserver.write_log import Commit
from reconciler.lab.simulation.event_log import EventLog
from reconciler.lab.simulation.fakes import VirtualIssuer
from reconciler.lab.simulation.invariants import value_of
from reconciler.lab.simulation.replica import SimulatedReplica
from reconciler.naming import Names, SessionKey

STATUS_IS_TRUE = "surfaces_tell_the_truth"

CERTAIN_S = 5.0
"""A Date header and an `iat` are cut to seconds, and an offset that changes by a few is no step."""

DRIFT = 0.006
"""Error of a replica's clock for each second since it has heard the issuer: the world's clocks run
wrong by up to 0.005."""

REQUEST_DUE = 0.1
"""Part of a token's life after which a replica has asked the issuer again, whatever happens."""

NOTICED_S = 60.0
"""What it takes from then until a replica calls the issuer well, or unwell."""

SNAPSHOT_TIMEOUT_S = 5.0
"""Longest wait for a survey; a replica that stands still gives none."""

DELIVERED_S = 95.0
"""What the estimate adds to a write that came too late: the propagation allowance, about."""


@dataclass(frozen=True, slots=True)
class _LastReport:
    """What a replica said the last time beside the account of that moment; `certain` if it had
    seen the newest of each Secret."""

    said_s: float = 0.0
    true_s: float = 0.0
    late_writes: int = 0
    pods_gone: int = 0
    certain: bool = True


@dataclass(slots=True)
class _Session:
    """One session's Secret and pods, by the world's monotonic clock.

    Args:
        ends_at: When the token of ours in its Secret ends; infinite for none of ours.
        pods: When each was made.
    """

    settled_at: float
    ends_at: float = math.inf
    pods: dict[str, float] = field(default_factory=dict)


class ExposureAccount:
    """For how long Secrets held dead tokens of ours beside pods of the platform's; a commit hook.

    Args:
        remaining_s: What a token has left by its validators' clock, infinite for no end.
        is_ours: Whether the value of the Secret with this UID is one that we wrote. Asked after
            the checker that knows it was told of the commit.
        is_known: Whether the platform has this session in that project.
        had: Whether the platform has deleted this session.
    """

    def __init__(
        self,
        clock: Clock,
        names: Names,
        *,
        remaining_s: Callable[[str], float],
        is_ours: Callable[[str], bool],
        is_known: Callable[[SessionKey, str], bool],
        is_deleted: Callable[[SessionKey], bool],
    ) -> None:
        self.total_s = 0.0
        self.late_writes = 0
        self.pods_gone = 0
        self.remaining_s = remaining_s
        self.is_ours = is_ours
        self.is_known = is_known
        self.is_deleted = is_deleted
        self._clock = clock
        self._names = names
        self._sessions: dict[SessionKey, _Session] = {}

    def commit(self, commit: Commit) -> None:
        """Take in one commit."""
        if commit.kind not in (kinds.SECRETS, kinds.PODS):
            return
        metadata = commit.object["metadata"]
        labels = metadata.get("labels") or {}
        key = SessionKey(metadata["namespace"], labels.get(self._names.session_id, ""))
        if not self.is_known(key, labels.get(self._names.project_id, "")):
            return
        now_at = self._clock.monotonic()
        session = self._sessions.setdefault(key, _Session(now_at))
        self._settle(session, now_at)
        if commit.kind is kinds.PODS:
            ended = (commit.object.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            if commit.removed or ended:
                self.pods_gone += session.pods.pop(metadata["uid"], None) is not None
            else:
                # As the API server cuts the time at which it was made, to whole seconds.
                made_at = now_at - self._clock.wall() % 1.0
                session.pods.setdefault(metadata["uid"], made_at + EARLIEST_START_S)
            return
        ends_at = math.inf
        if not commit.removed and self.is_ours(metadata["uid"]):
            ends_at = now_at + self.remaining_s(value_of(commit.object, self._names))
        self.late_writes += session.ends_at < now_at and ends_at > now_at
        session.ends_at = ends_at

    def deleted(self, session_id: str) -> None:
        """The platform has deleted a session: what its tokens do is nobody's exposure."""
        self.settle()
        for key in [key for key in self._sessions if key.session_id == session_id]:
            del self._sessions[key]

    def shift(self, by_s: float) -> None:
        """The validator's clock was stepped: every token ends that much later."""
        self.settle()
        for session in self._sessions.values():
            session.ends_at += by_s

    def with_pods(self) -> set[SessionKey]:
        """Return the sessions that have a pod now."""
        return {key for key, session in self._sessions.items() if session.pods}

    def settle(self) -> None:
        """Bring the sum up to now."""
        now_at = self._clock.monotonic()
        for session in self._sessions.values():
            self._settle(session, now_at)

    def _settle(self, session: _Session, now_at: float) -> None:
        for starts_at in session.pods.values():
            dead_from_at = max(session.ends_at, starts_at, session.settled_at)
            self.total_s += max(0.0, now_at - dead_from_at)
        session.settled_at = now_at


class TruthChecker:
    """Asks the replicas now and then, and compares.

    Cost: one survey of each replica; nothing of it changes what a replica does.
    """

    def __init__(
        self,
        core: Core,
        names: Names,
        event_log: EventLog,
        account: ExposureAccount,
        issuer: VirtualIssuer,
    ) -> None:
        self.time_unknown_until_at = 0.0
        """Until when no replica can know the issuer's time, by the loop's clock."""
        self._core = core
        self._names = names
        self._event_log = event_log
        self._account = account
        self._issuer = issuer
        self._changed_at = 0.0
        self._last_reports: dict[str, _LastReport] = {}

    def issuer_changed(self) -> None:
        """The issuer may have begun to fail, or to give tokens again."""
        self._changed_at = asyncio.get_running_loop().time()

    async def check(self, replica: SimulatedReplica) -> None:
        """Compare what one replica says now; nothing where it stands still or is not ready."""
        if _is_still(replica) or replica.controller.readiness_problem():
            return
        try:
            async with asyncio.timeout(SNAPSHOT_TIMEOUT_S):
                survey = await replica.controller.status_collector.snapshot(max_age_s=0.0)
        except TimeoutError:
            return
        now_at = asyncio.get_running_loop().time()
        if _is_still(replica) or now_at < self.time_unknown_until_at:
            return
        # An answer that lay there while it stood still says little of the time.
        if now_at < replica.resumed_at + REQUEST_DUE * self._issuer.ttl_s + NOTICED_S:
            return
        self._judge(replica, survey)

    def _judge(self, replica: SimulatedReplica, survey: StatusSnapshot) -> None:
        seen = {reading.key for reading in survey.readings if reading.pod is not None}
        shortest_s, certain = math.inf, self._account.with_pods() <= seen
        for reading in survey.readings:
            secret = self._newest(reading)
            if secret is None:
                certain = False
                continue
            left_s = self._account.remaining_s(value_of(secret, self._names))
            if self._account.is_deleted(reading.key):  # it may not have been heard yet
                shortest_s = min(shortest_s, left_s)
                continue
            if not self._counts(reading, secret):
                continue
            self._check_session(replica, survey, reading, left_s)
            if reading.pod is not None and reading.expires_s is not None:
                shortest_s = min(shortest_s, left_s)
        if certain:
            self._check_shortest(replica, survey, shortest_s)
        self._check_exposure(replica, survey, certain=certain)
        self._check_issuer(replica, survey)

    def _newest(self, reading: SessionReading) -> Object | None:
        """Return the Secret that a replica has read, None where it has changed since."""
        key = kinds.SECRETS.key(reading.key.namespace, reading.secret_name)
        secret = self._core.peek(kinds.SECRETS, key)
        found = reading.found
        if secret is None or found is None:
            return None
        metadata = secret["metadata"]
        same = (metadata["uid"], metadata["resourceVersion"]) == (found.uid, found.version)
        return secret if same else None

    def _counts(self, reading: SessionReading, secret: Object) -> bool:
        """Return whether a session is one whose token we wrote, for the platform's own session."""
        if not self._account.is_ours(secret["metadata"]["uid"]):
            return False
        return self._account.is_known(reading.key, reading.project)

    def _check_session(
        self,
        replica: SimulatedReplica,
        survey: StatusSnapshot,
        reading: SessionReading,
        left_s: float,
    ) -> None:
        expires_s = reading.expires_s
        if expires_s is None:
            return
        said_s = expires_s - survey.now_s
        if not math.isinf(said_s) and abs(said_s - left_s) > _tolerance_s(replica):
            told = f"{replica.me} gives the token of {reading.key} {said_s:.1f} s, not {left_s:.1f}"
            self._event_log.add_violation(STATUS_IS_TRUE, told)
            return
        if abs(left_s) <= _tolerance_s(replica) or reading.pod is None:
            return
        policy = replica.controller.sessions.context()
        standing = assess(reading.pod, reading.found, policy, survey.now_s)
        if standing.expires_s is not None and standing.has_expired_token != (left_s < 0):
            self._event_log.add_violation(
                STATUS_IS_TRUE, f"explain calls {reading.key} {standing.state}"
            )

    def _check_shortest(
        self, replica: SimulatedReplica, survey: StatusSnapshot, shortest_s: float
    ) -> None:
        said_s = survey.fleet.remaining_min_s
        if said_s is None or math.isinf(said_s):
            return
        if said_s < shortest_s - _tolerance_s(replica):
            told = f"{replica.me} has a shortest remaining life of {said_s:.1f} s"
            self._event_log.add_violation(STATUS_IS_TRUE, f"{told}, not {shortest_s:.1f}")

    def _check_exposure(
        self, replica: SimulatedReplica, survey: StatusSnapshot, *, certain: bool
    ) -> None:
        account, name = self._account, str(replica.me)
        account.settle()
        last = self._last_reports.get(name, _LastReport())
        heard = self._last_reports[name] = _LastReport(
            survey.fleet.exposure_s,
            account.total_s,
            account.late_writes,
            account.pods_gone,
            certain,
        )
        if not (last.certain and certain):
            return
        said_s, true_s = heard.said_s - last.said_s, heard.true_s - last.true_s
        late_writes = heard.late_writes - last.late_writes
        about_s = _tolerance_s(replica) * (
            1 + survey.fleet.states[TokenState.EXPIRED] + late_writes
        )
        if said_s > true_s + about_s + DELIVERED_S * late_writes:
            told = f"{name} counts {said_s:.1f} s of exposure more, of which {true_s:.1f} s are so"
            self._event_log.add_violation(STATUS_IS_TRUE, told)
        elif said_s < true_s - about_s and not self._may_miss(replica, last, heard):
            told = f"{name} counts {said_s:.1f} s of exposure more, and {true_s:.1f} s are so"
            self._event_log.add_violation(STATUS_IS_TRUE, told)

    @staticmethod
    def _may_miss(replica: SimulatedReplica, last: _LastReport, heard: _LastReport) -> bool:
        """Return whether exposure may have ended between two snapshots: with its pod, or, where
        another replica leads, with a write."""
        is_refreshed = heard.late_writes != last.late_writes and not replica.fence.is_open
        return is_refreshed or heard.pods_gone != last.pods_gone

    def _check_issuer(self, replica: SimulatedReplica, survey: StatusSnapshot) -> None:
        """An issuer that gives no token looks unwell soon after, and well soon after it gives."""
        issuer, now_at = self._issuer, asyncio.get_running_loop().time()
        unwell = any(each.down or each.refuses for each in survey.breakers if each.name == "issuer")
        noticed_at = (
            max(self._changed_at, replica.started_at) + REQUEST_DUE * issuer.ttl_s + NOTICED_S
        )
        is_wrong = unwell != issuer.is_failing and replica.asks_issuer
        if is_wrong and now_at > noticed_at:
            called = "unwell that gives tokens" if unwell else "well that gives none"
            self._event_log.add_violation(STATUS_IS_TRUE, f"{replica.me} calls an issuer {called}")


def _tolerance_s(replica: SimulatedReplica) -> float:
    """Return by how much a replica may be wrong about the issuer's time."""
    return CERTAIN_S + DRIFT * (asyncio.get_running_loop().time() - replica.issuer_answered_at)


def _is_still(replica: SimulatedReplica) -> bool:
    return replica.main.frozen
