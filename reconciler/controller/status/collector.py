"""Snapshots of the controller: sessions, fleet, watches, endpoints, queue, lease.

Nothing here decides or changes anything, and nothing here holds a token. The status page and the
metrics share one snapshot, which is taken at a limited rate.
"""

import asyncio

import msgspec
import structlog
from msgspec.structs import replace

from reconciler.clock import NEVER, ClockOffset, EpochTime, Instant
from reconciler.controller.decide.block_reasons import BlockReason
from reconciler.controller.decide.refresh_plan import DecisionContext
from reconciler.controller.events.correlator import PodEvent
from reconciler.controller.events.recorder import EventRecorder
from reconciler.controller.namespaces.informers import NamespaceInformers
from reconciler.controller.reconcile.bulkhead_shell import BulkheadShell
from reconciler.controller.reconcile.run import ReconcileStats
from reconciler.controller.runtime import Runtime, Stores
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.controller.status.exposure import TOUCHED_S, EstimatedExposure
from reconciler.controller.status.fleet import FleetSummary
from reconciler.controller.status.history import BlockedSessions, RunHistory, RunRecord
from reconciler.controller.status.session_reading import SessionReading, read
from reconciler.controller.status.snapshot import (
    IssuerStatus,
    LeaseStatus,
    SessionStatus,
    StartupStatus,
    StatusSnapshot,
)
from reconciler.controller.status.trend import Trend, TrendReading
from reconciler.controller.triggers.startup import StartupProgress
from reconciler.kube.api import ObjectMeta
from reconciler.leadership.api import WriteFence
from reconciler.naming import SessionKey
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.api import Platform
from reconciler.time_slice import TimeSlice
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.source import TokenSource, TokenStats
from reconciler.workqueue.items import EntryInfo, Priority
from reconciler.workqueue.queue import WorkQueue

log = structlog.get_logger()

INTERVAL_S = 60.0
"""A snapshot is taken at least this often, so that the exposure of pods that end is counted;
scrapes and open status pages take more."""


_UNKNOWN = EntryInfo("", NEVER, Priority.ROUTINE, ("",), "", 0)
"""Of a key that the queue does not hold: it is not due."""


class ControllerParts(msgspec.Struct, frozen=True):
    """The parts of one controller that a snapshot is read from."""

    stores: Stores
    queue: WorkQueue[SessionKey]
    confirmations: ConfirmationCache
    sessions: SessionStateReader
    startup: StartupProgress
    informers: NamespaceInformers
    bulkhead: BulkheadShell
    stats: ReconcileStats
    history: RunHistory
    blocked_sessions: BlockedSessions
    exposure: EstimatedExposure
    events: EventRecorder
    trend: Trend
    source: TokenSource
    issuer_time: IssuerTime
    fence: WriteFence
    breakers: tuple[CircuitBreaker, ...]
    platform: Platform


class StatusCollector:
    """Takes snapshots in slices and keeps the newest; concurrent callers share one.

    Cost: 2 us a session (12 where it changed), in turns of the loop.
    """

    def __init__(self, parts: ControllerParts, runtime: Runtime) -> None:
        self._parts = parts
        self._clock = runtime.clock
        self._log_dedup = runtime.log_dedup
        config = runtime.config
        self._shard = config.shard
        # What a pod needs at most to see a token that was written in time.
        self._delivery_s = TOUCHED_S if config.touch else config.propagation_s
        self._lock = asyncio.Lock()
        self._fleet = FleetSummary()
        self._seen: dict[SessionKey, SessionReading] = {}
        self._known: dict[SessionKey, SessionReading] = {}
        self._excluded: set[SessionKey] = set()
        self.latest: StatusSnapshot | None = None

    async def run(self) -> None:
        """Take a snapshot every `INTERVAL_S` until cancelled."""
        while True:
            await self.update(max_age_s=INTERVAL_S / 2)
            await asyncio.sleep(INTERVAL_S)

    async def update(self, *, max_age_s: float) -> None:
        """Take a snapshot if `latest` is too old; an error in it is logged, not raised."""
        try:
            await self.snapshot(max_age_s=max_age_s)
        except Exception:  # a defect in the display must not stop the refreshes
            if self._log_dedup.should_log("status_snapshot_failed"):
                log.exception("status_snapshot_failed")

    async def snapshot(self, *, max_age_s: float = 1.0) -> StatusSnapshot:
        """Return the newest snapshot if it is young enough, else take one.

        Cancel: the next caller takes one from the start.
        """
        async with self._lock:
            latest = self.latest
            if latest is not None and self._clock.monotonic() - latest.taken_at <= max_age_s:
                return latest
            self.latest = latest = await self._collect()
            self._parts.trend.add(latest)
            remaining_s = latest.fleet.remaining_min_s
            self._parts.source.observe_fleet(
                None if remaining_s is None else latest.taken_at + remaining_s
            )
            return latest

    async def rows(self, snapshot: StatusSnapshot) -> tuple[SessionStatus, ...]:
        """Return one row a session, in the snapshot's order, with the due times of this moment.

        Cost: 5 us a session, in turns of the loop.
        """
        epoch_s = self._parts.sessions.now_s() - self._clock.monotonic()
        found: list[SessionStatus] = []
        turn = TimeSlice(self._clock)
        for reading in snapshot.readings:
            found.append(self._row(reading, epoch_s, snapshot.now_s))
            await turn.item_done()
        return tuple(found)

    def runs(self, key: SessionKey) -> tuple[RunRecord, ...]:
        """Return a session's last runs, the newest first; called for the rows that are shown."""
        return self._parts.history.of(key)

    def events(self, namespace: str, pod: str) -> tuple[PodEvent, ...]:
        """Return the Events of a pod that this replica recorded, the latest first."""
        return self._parts.events.of(namespace, pod)

    def trend(self) -> TrendReading:
        """Return the last hours of this replica."""
        return self._parts.trend.read()

    async def _collect(self) -> StatusSnapshot:
        now_s, now_at = self._parts.sessions.now_s(), self._clock.monotonic()
        context, token = self._parts.sessions.context(), self._parts.source.stats()
        self._fleet, self._known, self._seen, self._excluded = (
            FleetSummary(),
            self._seen,
            {},
            set(),
        )
        is_known = context.static or self._parts.issuer_time.is_supported
        counted_s = self._parts.exposure.begin(now_s, is_known=is_known)
        turn = TimeSlice(self._clock)
        for pod in self._parts.stores.pods.snapshot():
            reading = self._read(pod, context, now_s)
            if reading is not None:
                self._count(reading, now_s, counted_s, token.best_remaining_s)
            await turn.item_done()
        for key in self._parts.confirmations.running():
            await turn.item_done()
            if not self._parts.stores.pods.has_session(key):
                reading = read(key, *self._parts.sessions.objects(key), context, now_s)
                if reading.secret is not None:
                    self._count(reading, now_s, counted_s, token.best_remaining_s)
        fleet, readings = self._fleet, tuple(self._seen.values())
        self._known = {}
        if len(self._parts.blocked_sessions):
            self._parts.blocked_sessions.keep({reading.key for reading in readings})
        fleet.survive(self._delivery_s)
        fleet.exposure_s = self._parts.exposure.total_s
        fleet.failing = await self._failing()
        return self._make_snapshot(now_s, now_at, context, readings, token)

    def _read(
        self, pod: ObjectMeta, context: DecisionContext, now_s: EpochTime
    ) -> SessionReading | None:
        """Read a pod's session, again if its objects changed; None if another pod counts."""
        known = self._known.get(pod.key)
        if known is not None:
            found = self._parts.stores.secrets.get(pod.namespace, known.secret_name)
            listed = known.listed or not self._parts.stores.secrets.synced(pod.namespace)
            if listed and known.is_of(pod, found, context.longest_ttl_s):
                return known
        if not pod.session_id:
            return None
        listed = self._parts.stores.secrets.synced(pod.namespace)
        reading = read(
            pod.key, *self._parts.sessions.objects(pod.key), context, now_s, listed=listed
        )
        return reading if reading.pod is pod else None

    def _count(
        self,
        reading: SessionReading,
        now_s: EpochTime,
        counted_s: EpochTime | None,
        standby_s: float | None,
    ) -> None:
        key, expires_s, pod = reading.key, reading.expires_s, reading.pod
        self._seen[key] = reading
        remaining_s = None if expires_s is None else expires_s - now_s
        confirmed, blocked_by = self._is_confirmed(reading), self._blocked_by(reading)
        self._fleet.add(
            key,
            reading.state(now_s, confirmed=confirmed),
            remaining_s,
            block_reason=blocked_by,
            confirmed=confirmed,
            has_pod=pod is not None,
            standby_s=standby_s,
        )
        if blocked_by or not confirmed:
            self._excluded.add(key)
        elif counted_s is None or pod is None or remaining_s is None:
            return
        elif remaining_s < 0:
            self._parts.exposure.count(
                now_s + remaining_s, pod.created_s, counted_s, now_s=now_s, key=key
            )

    def _is_confirmed(self, reading: SessionReading) -> bool:
        return self._parts.confirmations.was_confirmed(reading.key, reading.pod, reading.secret)

    def _blocked_by(self, reading: SessionReading) -> str:
        """Return why nothing is written to a session, or "": as its last run found it, or would."""
        if reading.paused:
            return BlockReason.PAUSED
        if not self._is_confirmed(reading):
            return BlockReason.NOT_CONFIRMED
        return self._parts.blocked_sessions.of(reading.key)

    async def _failing(self) -> int:
        """Return the number of sessions with a failed last run, without the excluded ones."""
        excluded, turn = 0, TimeSlice(self._clock)
        for key in self._excluded:
            look = self._parts.queue.entry_info(key)
            excluded += look is not None and look.failures > 0
            await turn.item_done()
        return self._parts.queue.stats().schedule.failing - excluded

    def _row(
        self, reading: SessionReading, epoch_s: ClockOffset, now_s: EpochTime
    ) -> SessionStatus:
        """Return a session's row; `epoch_s` added to a monotonic instant gives epoch seconds."""
        key, pod, secret, expires_s = reading.key, reading.pod, reading.secret, reading.expires_s
        remaining_s = None if expires_s is None else expires_s - now_s
        look = self._parts.queue.entry_info(key) or _UNKNOWN
        return SessionStatus(
            key.namespace,
            key.session_id,
            reading.project,
            pod.name if pod is not None else "",
            secret.name if secret is not None else "",
            reading.state(now_s, confirmed=self._is_confirmed(reading)),
            expires_s,
            remaining_s,
            None if look.at == NEVER else look.at + epoch_s,
            look.reasons[0],
            look.stage,
            look.blocked_on,
            self._blocked_by(reading),
            look.failures,
            reading.refreshed_by,
        )

    def _make_snapshot(
        self,
        now_s: EpochTime,
        now_at: Instant,
        context: DecisionContext,
        readings: tuple[SessionReading, ...],
        token: TokenStats,
    ) -> StatusSnapshot:
        parts = self._parts
        time, startup, fence = parts.issuer_time, parts.startup, parts.fence
        lease = LeaseStatus(
            fence.term,
            fence.is_open,
            fence.holder,
            fence.transitions,
            fence.fenced_total,
            self._shard,
            fence.has_lapsed,
        )
        return StatusSnapshot(
            now_s=now_s,
            taken_at=now_at,
            propagation_s=context.propagation_s,
            readings=readings,
            excluded=frozenset(self._excluded),
            fleet=self._fleet,
            exposed=self._parts.exposure.recent(),
            slow=parts.bulkhead.slow_targets(),
            platform_allowed=parts.platform.allowed,
            watches=tuple(reflector.stats() for reflector in self._parts.informers.reflectors),
            breakers=tuple(breaker.stats() for breaker in self._parts.breakers),
            issuer=IssuerStatus(
                time.observed,
                time.skew_s,
                time.error_s,
                token,
                time.estimate.source.value if time.estimate is not None else "",
                time.named_offsets_s(),
            ),
            queue=self._parts.queue.stats(),
            lease=lease,
            reconciler=_copied(parts.stats),
            listed_running=self._parts.confirmations.running_count(),
            startup=StartupStatus(
                startup.sessions, startup.finished.is_set(), startup.seconds, startup.outcomes
            ),
        )


def _copied(stats: ReconcileStats) -> ReconcileStats:
    return replace(stats, refreshes=dict(stats.refreshes), failures=dict(stats.failures))
