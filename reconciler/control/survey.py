"""What the controller knows, read for people: sessions, fleet, watches, endpoints, queue, lease.

Nothing here decides or changes anything, and nothing here is or holds a token. The status page and
the metrics are made of one survey, taken at most so often, whoever asks.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from reconciler.breaker import Breaker, BreakerStats
from reconciler.clock import Clock
from reconciler.control.directory import Directory, DirectoryStats
from reconciler.control.exposure import Exposure
from reconciler.control.fleet import Fleet, Row
from reconciler.control.gate import Gate
from reconciler.control.history import History, Past
from reconciler.control.plan import Policy
from reconciler.control.planner import Planner
from reconciler.control.reading import Reading, read
from reconciler.control.resync import StartupResync
from reconciler.control.worker import Worker, WorkerStats
from reconciler.informer.reflector import Reflector, ReflectorStats
from reconciler.names import SessionKey
from reconciler.observe.once import Once
from reconciler.queue.bands import Band
from reconciler.queue.stats import QueueStats
from reconciler.queue.work import Look
from reconciler.queue.workqueue import WorkQueue
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.source import TokenSource, TokenStats

log = structlog.get_logger()

SLICE = 200
"""Sessions read in one turn of the loop: a millisecond or two."""

EVERY_S = 60.0
"""A survey is taken at least this often, so that the exposure of pods that end is counted; whoever
scrapes or watches asks for younger ones."""

HOLDS = frozenset({"paused", "secret_name_taken", "not_confirmed", "pod_leaving"})
"""Reasons for which nothing is written to a session that has a pod."""


_UNKNOWN = Look("", math.inf, Band.ROUTINE, ("",), "", 0)
"""Of a key that the queue does not hold: nobody will look."""


@dataclass(frozen=True, slots=True)
class LeaseView:
    """`holder` is who leads as far as was seen, "" = nobody; `transitions` is the Lease's count."""

    term: str
    leading: bool
    holder: str
    transitions: int
    refused_total: int


@dataclass(frozen=True, slots=True)
class IssuerView:
    """`skew_s` is the issuer's time less our wall clock, known to `error_s` either way once it was
    `heard`."""

    heard: bool
    skew_s: float
    error_s: float
    token: TokenStats


@dataclass(frozen=True, slots=True)
class StartupView:
    """`seconds` is 0.0 until it is finished."""

    sessions: int
    finished: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Survey:
    """One reading; `now_s` is its instant (epoch, issuer's time), `taken_at` the same, monotonic.

    Order: rows come as the store has them, pods first; whoever shows them sorts.
    """

    now_s: float
    taken_at: float
    propagation_s: float
    rows: tuple[Row, ...]
    fleet: Fleet
    watches: tuple[ReflectorStats, ...]
    breakers: tuple[BreakerStats, ...]
    issuer: IssuerView
    queue: QueueStats
    lease: LeaseView
    worker: WorkerStats
    directory: DirectoryStats
    startup: StartupView


class Surveyor:
    """Takes surveys in slices and keeps the newest; several who ask share one.

    Cost: 9 us a session, at most `SLICE` of them in one turn of the loop.

    Args:
        delivery_s: What a pod needs at most to see a token written in time, in seconds.
    """

    def __init__(
        self,
        *,
        planner: Planner,
        queue: WorkQueue[SessionKey],
        directory: Directory,
        worker: Worker,
        history: History,
        exposure: Exposure,
        startup: StartupResync,
        reflectors: Callable[[], Sequence[Reflector]],
        breakers: Sequence[Breaker],
        source: TokenSource,
        issuer_time: IssuerTime,
        gate: Gate,
        clock: Clock,
        once: Once,
        delivery_s: float,
    ) -> None:
        self._planner = planner
        self._queue = queue
        self._directory = directory
        self._worker = worker
        self._history = history
        self._exposure = exposure
        self._startup = startup
        self._reflectors = reflectors
        self._breakers = breakers
        self._source = source
        self._issuer_time = issuer_time
        self._gate = gate
        self._clock = clock
        self._once = once
        self._delivery_s = delivery_s
        self._lock = asyncio.Lock()
        self._known: dict[SessionKey, Reading] = {}
        self.latest: Survey | None = None

    async def run(self) -> None:
        """Take a survey every `EVERY_S`, for ever; a defect here must not take the tokens along."""
        while True:
            try:
                await self.survey(max_age_s=EVERY_S / 2)
            except Exception:
                if self._once.first("survey_crashed"):
                    log.exception("survey_crashed")
            await asyncio.sleep(EVERY_S)

    async def survey(self, *, max_age_s: float = 1.0) -> Survey:
        """Return the newest survey if it is young enough, else take one.

        Cancel: the next who asks begins anew.
        """
        async with self._lock:
            latest = self.latest
            if latest is not None and self._clock.monotonic() - latest.taken_at <= max_age_s:
                return latest
            self.latest = latest = await self._take()
            return latest

    def attempts(self, key: SessionKey) -> tuple[Past, ...]:
        """Return a session's last attempts, the newest first; asked for the rows that are shown."""
        return self._history.of(key)

    async def _take(self) -> Survey:
        planner = self._planner
        now_s, now_at = planner.now_s(), self._clock.monotonic()
        policy = planner.policy()
        token = self._source.stats()
        counted_s = self._exposure.begin(now_s)
        fleet = Fleet()
        rows: list[Row] = []
        known: dict[SessionKey, Reading] = {}
        for index, key in enumerate(self._keys()):
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            reading = self._read(key, policy, now_s)
            pod = reading.pod
            if pod is None and reading.secret is None:
                continue
            known[key] = reading
            row = self._row(key, reading, now_s - now_at, now_s)
            rows.append(row)
            fleet.add(row, spare_s=token.best_remaining_s)
            if pod is not None and row.expires_s is not None:
                self._exposure.count(row.expires_s, pod.created_s, counted_s, now_s=now_s)
        self._known = known
        fleet.survive(self._delivery_s)
        fleet.exposure_s = self._exposure.total_s
        return self._survey(now_s, now_at, policy, tuple(rows), fleet, token)

    def _keys(self) -> list[SessionKey]:
        live = self._planner.live_keys()
        return [*live, *(key for key in self._directory.running() if key not in live)]

    def _read(self, key: SessionKey, policy: Policy, now_s: float) -> Reading:
        """Return what a session's objects say, read anew only if one of them has changed."""
        pod, secret = self._planner.objects(key)
        known = self._known.get(key)
        if known is not None and known.is_of(pod, secret, policy):
            return known
        return read(key, pod, secret, policy, now_s)

    def _row(self, key: SessionKey, reading: Reading, epoch_s: float, now_s: float) -> Row:
        """Put a session's line together; `epoch_s` takes the monotonic clock to the epoch."""
        pod, secret, expires_s = reading.pod, reading.secret, reading.expires_s
        remaining_s = None if expires_s is None else expires_s - now_s
        look = self._queue.look(key) or _UNKNOWN
        reason = look.reasons[0]
        return Row(
            key.namespace,
            key.session_id,
            reading.project,
            pod.name if pod is not None else "",
            secret.name if secret is not None else "",
            reading.state(remaining_s),
            expires_s,
            remaining_s,
            None if look.at == math.inf else look.at + epoch_s,
            reason,
            look.stage,
            look.gate,
            "paused" if reading.paused else reason if reason in HOLDS else "",
            look.failures,
            reading.refreshed_by,
        )

    def _survey(
        self,
        now_s: float,
        now_at: float,
        policy: Policy,
        rows: tuple[Row, ...],
        fleet: Fleet,
        token: TokenStats,
    ) -> Survey:
        time, startup, gate = self._issuer_time, self._startup, self._gate
        lease = LeaseView(
            gate.term, gate.is_open, gate.holder, gate.transitions, gate.refused_total
        )
        return Survey(
            now_s=now_s,
            taken_at=now_at,
            propagation_s=policy.propagation_s,
            rows=rows,
            fleet=fleet,
            watches=tuple(reflector.stats() for reflector in self._reflectors()),
            breakers=tuple(breaker.stats() for breaker in self._breakers),
            issuer=IssuerView(time.observed, time.skew_s, time.error_s, token),
            queue=self._queue.stats(),
            lease=lease,
            worker=_copied(self._worker.stats),
            directory=self._directory.stats(),
            startup=StartupView(startup.sessions, startup.finished.is_set(), startup.seconds),
        )


def _copied(stats: WorkerStats) -> WorkerStats:
    return replace(stats, refreshes=dict(stats.refreshes), failures=dict(stats.failures))
