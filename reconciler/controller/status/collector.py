"""What the controller knows, read for people: sessions, fleet, watches, endpoints, queue, lease.

Nothing here decides or changes anything, and nothing here is or holds a token. The status page and
the metrics are made of one survey, taken at most so often, whoever asks.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from reconciler.clock import Clock
from reconciler.controller.decide.plan import DecisionContext
from reconciler.controller.reconcile.worker import Reconciler, ReconcileStats
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.controller.status.exposure import EstimatedExposure
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
from reconciler.controller.triggers.resync import StartupResync
from reconciler.informer.reflector import Reflector
from reconciler.informer.store import Store
from reconciler.kube.api import ObjectMeta
from reconciler.leadership.api import WriteFence
from reconciler.naming import SessionKey
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.telemetry.log_dedup import LogDedup
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.source import TokenSource, TokenStats
from reconciler.workqueue.items import EntryInfo, Priority
from reconciler.workqueue.queue import WorkQueue

log = structlog.get_logger()

SLICE = 200
"""Sessions read in one turn of the loop: a millisecond or two."""

EVERY_S = 60.0
"""A survey is taken at least this often, so that the exposure of pods that end is counted; whoever
scrapes or watches asks for younger ones."""


_UNKNOWN = EntryInfo("", math.inf, Priority.ROUTINE, ("",), "", 0)
"""Of a key that the queue does not hold: nobody will look."""


class StatusCollector:
    """Takes surveys in slices and keeps the newest; several who ask share one.

    Cost: 2 us a session (12 where it changed), at most `SLICE` of them in one turn of the loop.

    Args:
        delivery_s: What a pod needs at most to see a token written in time, in seconds.
    """

    def __init__(
        self,
        *,
        planner: SessionStateReader,
        queue: WorkQueue[SessionKey],
        directory: ConfirmationCache,
        worker: Reconciler,
        pods: Store,
        secrets: Store,
        history: RunHistory,
        holds: BlockedSessions,
        exposure: EstimatedExposure,
        startup: StartupResync,
        reflectors: Callable[[], Sequence[Reflector]],
        breakers: Sequence[CircuitBreaker],
        source: TokenSource,
        issuer_time: IssuerTime,
        fence: WriteFence,
        clock: Clock,
        once: LogDedup,
        delivery_s: float,
        platform_allowed: Callable[[], int] | None = None,
    ) -> None:
        self._planner = planner
        self._queue = queue
        self._directory = directory
        self._worker = worker
        self._pods = pods
        self._secrets = secrets
        self._history = history
        self._holds = holds
        self._exposure = exposure
        self._startup = startup
        self._reflectors = reflectors
        self._breakers = breakers
        self._source = source
        self._issuer_time = issuer_time
        self._fence = fence
        self._clock = clock
        self._once = once
        self._delivery_s = delivery_s
        self._platform_allowed = platform_allowed
        self._lock = asyncio.Lock()
        self._known: dict[str, SessionReading] = {}
        self._fleet = FleetSummary()
        self._seen: dict[SessionKey, SessionReading] = {}
        self._excluded: set[SessionKey] = set()
        self.latest: StatusSnapshot | None = None

    async def run(self) -> None:
        """Take a survey every `EVERY_S`, for ever."""
        while True:
            await self.renew(max_age_s=EVERY_S / 2)
            await asyncio.sleep(EVERY_S)

    async def renew(self, *, max_age_s: float) -> None:
        """Take a survey into `latest` if that is too old; a defect here takes nothing along."""
        try:
            await self.snapshot(max_age_s=max_age_s)
        except Exception:  # whoever only reads must not end what keeps the tokens alive
            if self._once.should_log("status_snapshot_failed"):
                log.exception("status_snapshot_failed")

    async def snapshot(self, *, max_age_s: float = 1.0) -> StatusSnapshot:
        """Return the newest survey if it is young enough, else take one.

        Cancel: the next who asks begins anew.
        """
        async with self._lock:
            latest = self.latest
            if latest is not None and self._clock.monotonic() - latest.taken_at <= max_age_s:
                return latest
            self.latest = latest = await self._take()
            return latest

    async def rows(self, survey: StatusSnapshot) -> tuple[SessionStatus, ...]:
        """Return one row a session, in the survey's order; due times are those of this moment.

        Cost: 5 us a session, at most `SLICE` of them in one turn of the loop.
        """
        epoch_s = self._planner.now_s() - self._clock.monotonic()
        found: list[SessionStatus] = []
        for start in range(0, len(survey.readings), SLICE):
            part = survey.readings[start : start + SLICE]
            found += [self._row(reading, epoch_s, survey.now_s) for reading in part]
            await asyncio.sleep(0)
        return tuple(found)

    def attempts(self, key: SessionKey) -> tuple[RunRecord, ...]:
        """Return a session's last attempts, the newest first; asked for the rows that are shown."""
        return self._history.of(key)

    async def _take(self) -> StatusSnapshot:
        now_s, now_at = self._planner.now_s(), self._clock.monotonic()
        policy, token = self._planner.context(), self._source.stats()
        self._fleet, self._seen, self._excluded = FleetSummary(), {}, set()
        counted_s = self._exposure.begin(now_s)
        pods = self._pods.snapshot()
        for start in range(0, len(pods), SLICE):
            for pod in pods[start : start + SLICE]:
                reading = self._read(pod, policy, now_s)
                if reading is not None:
                    self._count(reading, now_s, counted_s, token.best_remaining_s)
            await asyncio.sleep(0)
        for key in self._directory.running():
            if not self._pods.has_session(key):
                reading = read(key, *self._planner.objects(key), policy, now_s)
                if reading.secret is not None:
                    self._count(reading, now_s, counted_s, token.best_remaining_s)
        fleet, readings = self._fleet, tuple(self._seen.values())
        self._known = {reading.pod.uid: reading for reading in readings if reading.pod is not None}
        if len(self._holds):
            self._holds.keep({reading.key for reading in readings})
        fleet.survive(self._delivery_s)
        fleet.exposure_s = self._exposure.total_s
        fleet.failing = self._failing()
        return self._survey(now_s, now_at, policy, readings, token)

    def _read(
        self, pod: ObjectMeta, policy: DecisionContext, now_s: float
    ) -> SessionReading | None:
        """Read a pod's session, anew if something of it changed; None if another pod counts."""
        known = self._known.get(pod.uid)
        if known is not None:
            found = self._secrets.get(pod.namespace, known.secret_name)
            listed = known.listed or not self._secrets.synced(pod.namespace)
            if listed and known.is_of(pod, found, policy.longest_ttl_s):
                return known
        if not pod.session_id:
            return None
        listed = self._secrets.synced(pod.namespace)
        reading = read(pod.key, *self._planner.objects(pod.key), policy, now_s, listed=listed)
        return reading if reading.pod is pod else None

    def _count(
        self, reading: SessionReading, now_s: float, counted_s: float, spare_s: float | None
    ) -> None:
        key, expires_s, pod = reading.key, reading.expires_s, reading.pod
        self._seen[key] = reading
        remaining_s = None if expires_s is None else expires_s - now_s
        confirmed, hold = self._is_confirmed(reading), self._hold(reading)
        self._fleet.add(
            key,
            reading.state(now_s, confirmed=confirmed),
            remaining_s,
            hold=hold,
            confirmed=confirmed,
            has_pod=pod is not None,
            spare_s=spare_s,
        )
        if hold or not confirmed:
            self._excluded.add(key)
        elif remaining_s is not None and remaining_s < 0 and pod is not None:
            self._exposure.count(
                now_s + remaining_s, pod.created_s, counted_s, now_s=now_s, key=key
            )

    def _is_confirmed(self, reading: SessionReading) -> bool:
        return self._directory.has_word(reading.key, reading.pod, reading.secret)

    def _hold(self, reading: SessionReading) -> str:
        """Return why nothing is written to a session, or "": what its last run found, or would."""
        if reading.paused:
            return "paused"
        if not self._is_confirmed(reading):
            return "not_confirmed"
        return self._holds.of(reading.key)

    def _failing(self) -> int:
        """Count the sessions that count and whose last run failed."""
        looks = [self._queue.entry_info(key) for key in self._excluded]
        excluded = sum(look is not None and look.failures > 0 for look in looks)
        return self._queue.stats().schedule.failing - excluded

    def _row(self, reading: SessionReading, epoch_s: float, now_s: float) -> SessionStatus:
        """Put a session's line together; `epoch_s` takes the monotonic clock to the epoch."""
        key, pod, secret, expires_s = reading.key, reading.pod, reading.secret, reading.expires_s
        remaining_s = None if expires_s is None else expires_s - now_s
        look = self._queue.entry_info(key) or _UNKNOWN
        return SessionStatus(
            key.namespace,
            key.session_id,
            reading.project,
            pod.name if pod is not None else "",
            secret.name if secret is not None else "",
            reading.state(now_s, confirmed=self._is_confirmed(reading)),
            expires_s,
            remaining_s,
            None if look.at == math.inf else look.at + epoch_s,
            look.reasons[0],
            look.stage,
            look.blocked_on,
            self._hold(reading),
            look.failures,
            reading.refreshed_by,
        )

    def _survey(
        self,
        now_s: float,
        now_at: float,
        policy: DecisionContext,
        readings: tuple[SessionReading, ...],
        token: TokenStats,
    ) -> StatusSnapshot:
        time, startup, fence = self._issuer_time, self._startup, self._fence
        lease = LeaseStatus(
            fence.term, fence.is_open, fence.holder, fence.transitions, fence.fenced_total
        )
        return StatusSnapshot(
            now_s=now_s,
            taken_at=now_at,
            propagation_s=policy.propagation_s,
            readings=readings,
            excluded=frozenset(self._excluded),
            fleet=self._fleet,
            exposed=self._exposure.recent(),
            slow=self._worker.slow_places(),
            platform_allowed=self._platform_allowed() if self._platform_allowed else None,
            watches=tuple(reflector.stats() for reflector in self._reflectors()),
            breakers=tuple(breaker.stats() for breaker in self._breakers),
            issuer=IssuerStatus(
                time.observed,
                time.skew_s,
                time.error_s,
                token,
                time.belief.by.value if time.belief is not None else "",
                time.named_offsets_s(),
            ),
            queue=self._queue.stats(),
            lease=lease,
            reconciler=_copied(self._worker.stats),
            confirmations=self._directory.stats(),
            startup=StartupStatus(
                startup.sessions, startup.finished.is_set(), startup.seconds, startup.outcomes
            ),
        )


def _copied(stats: ReconcileStats) -> ReconcileStats:
    return replace(stats, refreshes=dict(stats.refreshes), failures=dict(stats.failures))
