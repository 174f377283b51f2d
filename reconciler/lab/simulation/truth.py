"""Compares a replica's status with the state of the world.

Metrics, page and `status` show a status snapshot; `explain` assesses the same objects separately.
Both must agree with the world about which tokens have expired, and about how healthy the fleet is.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.clock import LONG_AGO, NEVER, Clock, Instant
from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.status.collector import INTERVAL_S
from reconciler.controller.status.exposure import EARLIEST_START_S
from reconciler.controller.status.session_reading import SessionReading
from reconciler.controller.status.snapshot import StatusSnapshot
from reconciler.inspection.pod_token import assess
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.kinds import Object
from reconciler.lab.apiserver.write_log import RESTORER, Commit
from reconciler.lab.simulation.event_log import EventLog
from reconciler.lab.simulation.fakes import VirtualIssuer
from reconciler.lab.simulation.invariants import US, value_of
from reconciler.lab.simulation.replica import SimulatedReplica
from reconciler.naming import Names, SessionKey

STATUS_IS_TRUE = "status_is_true"

CERTAIN_S = 5.0
"""Tolerance: Date header and `iat` have whole seconds, and an offset may change by a few."""

CLOSE_S = 2.0
"""A write so shortly before an expiry may count as late by the same time: the first token shows the
issuer's time in whole seconds."""

DRIFT = 0.0007
"""Error of a replica's clock for each second since the issuer's last answer, a little more than
`scenario.RATE`."""

REQUEST_DUE = 0.1
"""Part of a token's life after which every replica has sent another token request."""

NOTICED_S = 60.0
"""Longest time from then until a replica reports the issuer as healthy, or as unhealthy."""

SNAPSHOT_TIMEOUT_S = 5.0
"""Longest wait for a snapshot; a frozen replica gives none."""

DELIVERED_S = 95.0
"""Seconds that the estimate adds for a late write: approximately the propagation allowance. A pod
is touched where its token expires sooner, as far as the replica knows."""


class _Margin(NamedTuple):
    """By how much a replica's time may be ahead of the issuer's, and behind it, in seconds."""

    ahead_s: float
    behind_s: float


@dataclass(frozen=True, slots=True)
class _Report:
    """A replica's reported exposure, and the true one of that moment.

    Args:
        certain: Whether the replica knew the newest version of each Secret, and could know the
            issuer's time.
    """

    reported_s: float
    true_s: float
    unsure_s: float
    missed_s: float
    late_writes: int
    close_writes: int
    pods_gone: int
    edits: int
    certain: bool


@dataclass(slots=True)
class _Session:
    """One session's Secret and pods, by the world's monotonic clock.

    Args:
        ends_at: Expiry of our token in its Secret; infinite without a token of ours.
        pods: Earliest start of each pod, by UID.
        paused: UIDs of its objects with which a person has stopped its refreshes.
        annotated: The expiry that its Secret's annotation names.
        is_edited: Whether another client wrote that, about a token of ours.
    """

    settled_at: Instant
    ends_at: Instant = NEVER
    pods: dict[str, Instant] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    annotated: str | None = None
    is_edited: bool = False


class ExposureAccount:
    """Sums the time for which pods of the platform had an expired token of ours; a commit hook.

    The time for which a session is paused does not count.

    Args:
        touches: Whether replicas touch the pods whose tokens expire before the next projection.
        remaining_s: Returns a token's remaining life by its validators' clock, infinite without
            an end.
        is_ours: Whether we wrote the value of the Secret with this UID. The hook that knows it
            must run before this one.
        is_known: Whether the platform has this session in this project.
        is_deleted: Whether the platform has deleted this session.
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
        touches: bool = True,
    ) -> None:
        self.total_s = 0.0
        self.unsure_s = 0.0
        """Longest time that replicas may count too long: since steps of the validator's clock,
        until the projection of a token whose pod was not touched, and before the end of a pause."""
        self.missed_s = 0.0
        """Longest time that replicas may not count: before a pause."""
        self.late_writes = 0
        self.close_writes = 0
        """Writes so shortly before an expiry that a replica may count them as late."""
        self.pods_gone = 0
        self.edits = 0
        """Expiries that another client has edited: replicas count by them until they are ours."""
        self.remaining_s = remaining_s
        self.is_ours = is_ours
        self.is_known = is_known
        self.is_deleted = is_deleted
        self._clock = clock
        self._names = names
        self._touches = touches
        self._step_noticed_at: Instant = LONG_AGO
        self._sessions: dict[SessionKey, _Session] = {}
        self._replaced: deque[tuple[Instant, Instant]] = deque()

    def commit(self, commit: Commit) -> None:
        """Record one commit."""
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
        is_paused = (metadata.get("annotations") or {}).get(self._names.paused) == "true"
        self._note_pause(session, metadata["uid"], is_paused=is_paused and not commit.removed)
        if commit.kind is kinds.PODS:
            ended = (commit.object.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            if commit.removed or ended:
                self.pods_gone += session.pods.pop(metadata["uid"], None) is not None
            else:
                # The API server truncates the time of creation to whole seconds.
                made_at = now_at - float(self._clock.wall()) % 1.0
                session.pods.setdefault(metadata["uid"], made_at + EARLIEST_START_S)
            return
        self._note_expiry(session, commit)
        ends_at: Instant = NEVER
        if not commit.removed and self.is_ours(metadata["uid"]):
            ends_at = now_at + self.remaining_s(value_of(commit.object, self._names))
        if ends_at > max(session.ends_at, now_at):
            self._note_write(session.ends_at - now_at, now_at)
        self._replaced.append((now_at, session.ends_at))
        session.ends_at = ends_at

    def _note_expiry(self, session: _Session, commit: Commit) -> None:
        """Record whether another client has edited the annotated expiry of a token of ours."""
        metadata = commit.object["metadata"]
        before = session.annotated
        session.annotated = (metadata.get("annotations") or {}).get(self._names.expires_at)
        if commit.removed or commit.user == US or commit.caller is RESTORER:
            session.is_edited = False
        elif session.annotated not in (before, None) and self.is_ours(metadata["uid"]):
            session.is_edited = True
            self.edits += 1

    def _note_pause(self, session: _Session, uid: str, *, is_paused: bool) -> None:
        """Record whether one of a session's objects pauses it.

        A replica finds the change with its next count. It counts an expired token up to the one
        before it, or from that one on.
        """
        was_paused = bool(session.paused)
        if is_paused:
            session.paused.add(uid)
        else:
            session.paused.discard(uid)
        if bool(session.paused) == was_paused:
            return
        expired_s = session.settled_at - session.ends_at
        lag_s = len(session.pods) * min(max(0.0, expired_s), INTERVAL_S)
        if was_paused:
            self.unsure_s += lag_s
        else:
            self.missed_s += lag_s

    def _note_write(self, left_s: float, now_at: Instant) -> None:
        """Record a write over a token that has `left_s` left."""
        is_close = 0.0 <= left_s < CLOSE_S
        self.late_writes += left_s < 0.0
        self.close_writes += is_close
        if not self._touches and left_s >= 0.0:
            self.unsure_s += max(0.0, DELIVERED_S - left_s)
        elif is_close and now_at < self._step_noticed_at:
            self.unsure_s += DELIVERED_S

    def deleted(self, session_id: str) -> None:
        """Drop a session that the platform has deleted: its tokens are no exposure."""
        self.settle()
        for key in [key for key in self._sessions if key.session_id == session_id]:
            del self._sessions[key]

    def shift(self, by_s: float, *, answered_at: Instant, noticed_at: Instant) -> None:
        """Move the expiry of every token after a step of the validator's clock.

        A replica knows only that the step was after the issuer's last answer. It counts from then
        on what had expired by the step, and the writes since then of what had. It has touched no
        pod for them: on which side of the end a write was is not known to the second.

        Args:
            answered_at: Earliest time of the issuer's last answer to a replica.
            noticed_at: When every replica knows of the step.
        """
        self.settle()
        now_at = self._clock.monotonic()
        for session in self._sessions.values():
            session.ends_at += by_s
        while self._replaced and self._replaced[0][0] < answered_at:
            self._replaced.popleft()
        late_writes = sum(at > ends_at + by_s for at, ends_at in self._replaced)
        close_writes = sum(0.0 <= ends_at + by_s - at < CLOSE_S for at, ends_at in self._replaced)
        expired = sum(each.ends_at < now_at for each in self._sessions.values() if each.pods)
        self.late_writes += late_writes
        self.close_writes += close_writes
        self.unsure_s += (late_writes + expired) * (now_at - answered_at)
        self.unsure_s += close_writes * DELIVERED_S
        self._step_noticed_at = max(self._step_noticed_at, noticed_at)

    def is_paused(self, key: SessionKey) -> bool:
        """Return whether a person has stopped the refreshes of a session."""
        session = self._sessions.get(key)
        return session is not None and bool(session.paused)

    def is_edited(self, key: SessionKey) -> bool:
        """Return whether a session's Secret has a false expiry that another client wrote."""
        session = self._sessions.get(key)
        return session is not None and session.is_edited

    def with_pods(self) -> set[SessionKey]:
        """Return the sessions that have a pod now."""
        return {key for key, session in self._sessions.items() if session.pods}

    def settle(self) -> None:
        """Bring the sum up to now."""
        now_at = self._clock.monotonic()
        for session in self._sessions.values():
            self._settle(session, now_at)

    def _settle(self, session: _Session, now_at: Instant) -> None:
        for starts_at in session.pods.values() if not session.paused else ():
            expired_from_at = max(session.ends_at, starts_at, session.settled_at)
            self.total_s += max(0.0, now_at - expired_from_at)
        session.settled_at = now_at


class TruthChecker:
    """Compares a status snapshot of a replica with the world.

    Cost: one snapshot for each check; it does not change what a replica does.
    """

    def __init__(
        self,
        core: Core,
        names: Names,
        event_log: EventLog,
        account: ExposureAccount,
        issuer: VirtualIssuer,
    ) -> None:
        self.time_unknown_until_at: Instant = LONG_AGO
        """No replica can know the issuer's time before this instant of the loop's clock."""
        self.step_hidden_until_at: Instant = LONG_AGO
        """Tokens of a cache may hide a step of the issuer's clock until this instant."""
        self._steps_back: list[tuple[Instant, float]] = []
        """Until when a step back may not be proven, and its size in seconds."""
        self._nodes: list[tuple[Instant, float]] = []
        """Until when the issuer's nodes may not have shown one time, and how far they differ."""
        self._core = core
        self._names = names
        self._event_log = event_log
        self._account = account
        self._issuer = issuer
        self._changed_at = 0.0
        self._last_reports: dict[str, _Report] = {}

    def issuer_changed(self) -> None:
        """Record that the issuer may have begun to fail, or to issue tokens again."""
        self._changed_at = asyncio.get_running_loop().time()

    def stepped_back(self, by_s: float, *, until_at: Instant) -> None:
        """Record a step back of the issuer's clock that replicas may not believe yet.

        Until then a replica's time is ahead by no more than the step. Exposure is not compared:
        the replica counts what has expired by its own time.

        Args:
            by_s: Its size, more than 0.
            until_at: When every replica has the tokens that prove it, by the loop's clock.
        """
        self._steps_back.append((until_at, by_s))

    def may_refuse_tokens(self) -> bool:
        """Return whether the issuer's tokens may look expired by a step back not proven yet.

        A replica has one token from after the step, or two, which a cache returns again and again.
        One node whose clock is behind, while the cache holds its token, sends the same answers: its
        tokens have expired for every validator. So no controller can accept a token that by the
        earlier time has expired, and to refuse one costs nothing after a step back: tokens from
        before it are valid for longer.
        """
        now_at, issuer = Instant(asyncio.get_running_loop().time()), self._issuer
        back_s = sum(by_s for until_at, by_s in self._steps_back if now_at < until_at)
        return back_s > 0.0 and back_s + issuer.oldest_s >= issuer.shortest_life_s

    def nodes_differ(self, off_s: float, *, until_at: Instant) -> None:
        """Record that one of the issuer's nodes has another clock.

        A replica's time is that of either node, or between them. Exposure is not compared.

        Args:
            off_s: Its clock less the validators'.
            until_at: When every replica has proved the time since it has not, by the loop's clock.
        """
        self._nodes.append((until_at, off_s))

    def started(self, replica: SimulatedReplica) -> None:
        """Record that a replica starts now: it does not count what was before."""
        self._account.settle()
        self._last_reports[str(replica.me)] = self._report_of(0.0, certain=True)

    async def check(self, replica: SimulatedReplica) -> None:
        """Check one replica's present status; skip a replica that is frozen or not ready."""
        if _is_frozen(replica) or replica.controller.health.readiness_problem():
            return
        try:
            async with asyncio.timeout(SNAPSHOT_TIMEOUT_S):
                snapshot = await replica.controller.status_collector.snapshot(max_age_s=0.0)
        except TimeoutError:
            return
        now_at = Instant(asyncio.get_running_loop().time())
        unknown_until_at = max(self.time_unknown_until_at, self.step_hidden_until_at)
        if _is_frozen(replica) or now_at < unknown_until_at:
            return
        # An answer that arrived while the replica was frozen shows the time only roughly.
        if now_at < replica.resumed_at + REQUEST_DUE * self._issuer.ttl_s + NOTICED_S:
            return
        self._judge(replica, snapshot)

    def _judge(self, replica: SimulatedReplica, snapshot: StatusSnapshot) -> None:
        margin = self._margin(replica)
        seen = {reading.key for reading in snapshot.readings if reading.pod is not None}
        shortest_s, sees_all = math.inf, self._account.with_pods() <= seen
        for reading in snapshot.readings:
            secret = self._newest(reading)
            if secret is None:
                sees_all = False
                continue
            left_s = self._account.remaining_s(value_of(secret, self._names))
            if self._account.is_deleted(reading.key):  # the replica may not know it yet
                shortest_s = min(shortest_s, left_s)
                continue
            if not self._counts(reading, secret):
                if reading.pod is not None and reading.expires_s is not None:
                    shortest_s = -math.inf  # the annotation is not of another writer's token
                continue
            self._check_session(replica, snapshot, reading, left_s, margin)
            if reading.pod is not None and reading.expires_s is not None:
                shortest_s = min(shortest_s, left_s)
        if sees_all:
            self._check_shortest(replica, snapshot, shortest_s, margin)
        is_time_known = max(margin) <= _tolerance_s(replica)
        self._check_exposure(replica, snapshot, certain=sees_all and is_time_known)
        self._check_issuer(replica, snapshot)

    def _margin(self, replica: SimulatedReplica) -> _Margin:
        """Return what a replica's inputs leave open; its tolerance if they name the time."""
        tolerance_s, knowledge = _tolerance_s(replica), replica.time_knowledge
        now_at = Instant(asyncio.get_running_loop().time())
        back_s = sum(by_s for until_at, by_s in self._steps_back if now_at < until_at)
        nodes_s = [off_s for until_at, off_s in self._nodes if now_at < until_at]
        return _Margin(
            tolerance_s + knowledge.ahead_s + back_s + max(0.0, *nodes_s, 0.0),
            tolerance_s + knowledge.behind_s - min(0.0, *nodes_s, 0.0),
        )

    def _newest(self, reading: SessionReading) -> Object | None:
        """Return the Secret that a replica has read, None if it has changed since."""
        key = kinds.SECRETS.key(reading.key.namespace, reading.secret_name)
        secret = self._core.peek(kinds.SECRETS, key)
        found = reading.found
        if secret is None or found is None:
            return None
        metadata = secret["metadata"]
        same = (metadata["uid"], metadata["resourceVersion"]) == (found.uid, found.version)
        return secret if same else None

    def _counts(self, reading: SessionReading, secret: Object) -> bool:
        """Return whether we wrote the session's token, and the platform has the session."""
        if not self._account.is_ours(secret["metadata"]["uid"]):
            return False
        if self._account.is_edited(reading.key):
            return False
        return self._account.is_known(reading.key, reading.project)

    def _check_session(
        self,
        replica: SimulatedReplica,
        snapshot: StatusSnapshot,
        reading: SessionReading,
        left_s: float,
        margin: _Margin,
    ) -> None:
        expires_s = reading.expires_s
        if expires_s is None:
            return
        reported_s = expires_s - snapshot.now_s
        is_near = -margin.ahead_s <= reported_s - left_s <= margin.behind_s
        if not math.isinf(reported_s) and not is_near:
            what = f"{replica.me}: {reading.key} has {reported_s:.1f} s left, not {left_s:.1f}"
            self._event_log.add_violation(STATUS_IS_TRUE, what)
            return
        if -margin.behind_s <= left_s <= margin.ahead_s or reading.pod is None:
            return
        policy = replica.controller.sessions.context()
        token = assess(reading.pod, reading.found, policy, snapshot.now_s)
        if token.expires_s is not None and token.has_expired_token != (left_s < 0):
            self._event_log.add_violation(
                STATUS_IS_TRUE, f"explain calls {reading.key} {token.state}"
            )

    def _check_shortest(
        self,
        replica: SimulatedReplica,
        snapshot: StatusSnapshot,
        shortest_s: float,
        margin: _Margin,
    ) -> None:
        reported_s = snapshot.fleet.remaining_min_s
        if reported_s is None or math.isinf(reported_s):
            return
        if reported_s < shortest_s - margin.ahead_s:
            what = f"{replica.me} has a shortest remaining life of {reported_s:.1f} s"
            self._event_log.add_violation(STATUS_IS_TRUE, f"{what}, not {shortest_s:.1f}")

    def _check_exposure(
        self, replica: SimulatedReplica, snapshot: StatusSnapshot, *, certain: bool
    ) -> None:
        name = str(replica.me)
        self._account.settle()
        last = self._last_reports[name]
        report = self._report_of(snapshot.fleet.exposure_s, certain=certain)
        self._last_reports[name] = report
        if not (last.certain and certain and last.edits == report.edits):
            return
        reported_s, true_s = report.reported_s - last.reported_s, report.true_s - last.true_s
        late_writes = report.late_writes - last.late_writes
        close_writes = report.close_writes - last.close_writes
        about_s = CLOSE_S * close_writes + _tolerance_s(replica) * (
            1 + snapshot.fleet.states[TokenState.EXPIRED] + late_writes
        )
        longer_s = DELIVERED_S * late_writes + report.unsure_s - last.unsure_s
        missed_s = report.missed_s - last.missed_s
        if reported_s > true_s + about_s + longer_s:
            what = (
                f"{name} counts {reported_s:.1f} s of exposure more, of which {true_s:.1f} s are so"
            )
            self._event_log.add_violation(STATUS_IS_TRUE, what)
        elif reported_s < true_s - about_s - missed_s and not self._may_miss(replica, last, report):
            what = f"{name} counts {reported_s:.1f} s of exposure more, and {true_s:.1f} s are so"
            self._event_log.add_violation(STATUS_IS_TRUE, what)

    def _report_of(self, reported_s: float, *, certain: bool) -> _Report:
        account = self._account
        return _Report(
            reported_s,
            account.total_s,
            account.unsure_s,
            account.missed_s,
            account.late_writes,
            account.close_writes,
            account.pods_gone,
            account.edits,
            certain,
        )

    @staticmethod
    def _may_miss(replica: SimulatedReplica, last: _Report, report: _Report) -> bool:
        """Return whether exposure may have ended between two snapshots: with its pod, or, where
        another replica leads, with a write."""
        is_refreshed = report.late_writes != last.late_writes and not replica.fence.is_open
        return is_refreshed or report.pods_gone != last.pods_gone

    def _check_issuer(self, replica: SimulatedReplica, snapshot: StatusSnapshot) -> None:
        """Check that a failing issuer is soon reported as unhealthy, and a recovered one is not."""
        issuer, now_at = self._issuer, asyncio.get_running_loop().time()
        unhealthy = any(
            each.down or each.refuses for each in snapshot.breakers if each.name == "issuer"
        )
        noticed_at = (
            max(self._changed_at, replica.started_at) + REQUEST_DUE * issuer.ttl_s + NOTICED_S
        )
        is_unproven = unhealthy and self.may_refuse_tokens()
        is_wrong = unhealthy != issuer.is_failing and replica.asks_issuer and not is_unproven
        if is_wrong and now_at > noticed_at:
            called = "unhealthy that gives tokens" if unhealthy else "healthy that gives none"
            self._event_log.add_violation(STATUS_IS_TRUE, f"{replica.me} calls an issuer {called}")


def _tolerance_s(replica: SimulatedReplica) -> float:
    """Return the largest error of a replica's estimate of the issuer's time."""
    return CERTAIN_S + DRIFT * (
        Instant(asyncio.get_running_loop().time()) - replica.issuer_answered_at
    )


def _is_frozen(replica: SimulatedReplica) -> bool:
    return replica.main.frozen
