"""The elector: applies the lease rules against the API server, and opens or closes the fence.

It runs on any event loop. In production that loop has its own thread and connection, so that a
stall of the main loop does not lose the Lease, and cannot cause a late write if the Lease is lost.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random

import msgspec
import structlog

from reconciler.clock import LONG_AGO, Clock, Instant
from reconciler.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    KubeError,
    NotFound,
    ProtocolError,
    TransportError,
)
from reconciler.kube.api import Kube, ListOptions, is_newer
from reconciler.kube.authorization import AuthorizerMemory
from reconciler.kube.authorized import AuthorizedKube
from reconciler.leadership import election_rules, lease_timing
from reconciler.leadership import lease as records
from reconciler.leadership.api import Candidate
from reconciler.leadership.election_log import Channel, ElectionLog
from reconciler.leadership.election_rules import Acquire, Lost, ObservedLease, Renew, Wait
from reconciler.leadership.lease import Identity, LeaseObject, LeaseRecord, lease_resource
from reconciler.leadership.lease_fence import LeaseFence
from reconciler.leadership.lease_timing import ElectionTiming, LeaseHold

log = structlog.get_logger()

MAX_JITTER_S = 0.3
"""Standbys try at the end of the holder's lease plus at most this."""

MAX_SLEEP_S = 1.0
"""The clock may advance while the machine is suspended and the loop's timers do not."""

WATCH_TIMEOUT_S = 300
"""Longest watch of the Lease; the server ends it then."""

UNSYNCED_DELAY_S = 5.0
"""How long a replica without synced caches leaves a free Lease to replicas with synced ones."""

NO_TOKEN_DELAY_S = 15.0
"""How long a replica that has had no token leaves a free Lease to replicas with a token, counted
from the end of the lease. In this time a container that crashed twice is started again (a kubelet
waits for 10 s). If no replica has a token, the Lease is acquired after it: sessions are confirmed,
and the first token finds a leader at once."""

MIN_TERM_S = 300.0
"""Shortest term of a leader that lacks a token, so that such replicas do not alternate."""

YIELD_DELAY_S = 10.0
"""How long a leader that yielded leaves the Lease to the others after its lease has ended. A
standby with a token acquires it in `MAX_JITTER_S` plus one request; one without a token waits for
`NO_TOKEN_DELAY_S`, so that the same replica then continues to lead, under the same term."""

MAX_UNANSWERED = 2
"""Writes in a row that were applied and not answered, after which a replica without a hold leaves
the Lease to the others. One lost answer is repeated at once; a replica that never gets one cannot
lead, and its renewals keep the others from it."""

MAX_LOST = 16
"""Writes without an answer that are recognised if they were applied. An older one is rejected by
the version that it names."""

READY_POLL_S = 0.02
"""How often a replica that waits checks whether it is ready."""

MAX_HEARTBEAT_AGE_S = 30.0
"""Age of the main loop's heartbeat above which its Lease is left to other replicas: two leases of
the default length, and longer than any garbage collection."""


class ElectionConfig(msgspec.Struct, frozen=True):
    """The Lease of an elector, and its replica.

    Args:
        namespace: Of the Lease.
        name: Of the Lease.
        candidate: The replica.
        heartbeat_age_s: Returns the seconds since the main loop's last heartbeat.
        annotations: Written to the Lease with each renewal.
    """

    namespace: str
    name: str
    identity: Identity
    timing: ElectionTiming
    candidate: Candidate
    heartbeat_age_s: Callable[[], float]
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)


class LeaderElector:
    """Competes for one Lease until `release`; losing it is not an error.

    Args:
        on_started_leading: Called with the term after the Lease is acquired and the fence open.
        on_stopped_leading: Called with the reason after the Lease is lost and the fence closed.
        on_history_rewound: Called with the reason when a read is older than what was observed
            before: etcd was restored. A Lease is written every few seconds, so that almost every
            restore changes it, and the first read after the restore shows that.
    """

    def __init__(
        self,
        kube: Kube,
        config: ElectionConfig,
        fence: LeaseFence,
        *,
        clock: Clock,
        random: Random,
        on_started_leading: Callable[[str], None],
        on_stopped_leading: Callable[[str], None],
        on_history_rewound: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._kube = AuthorizedKube(kube, AuthorizerMemory(), clock)
        self._config = config
        self._fence = fence
        self._clock = clock
        self._random = random
        self._on_started_leading = on_started_leading
        self._on_stopped_leading = on_stopped_leading
        self._on_history_rewound = on_history_rewound
        self._resource = lease_resource()
        self._observed: ObservedLease | None = None
        self._newest_version = ""
        self._hold: LeaseHold | None = None
        self._try_at: Instant = LONG_AGO
        self._lost: deque[str] = deque(maxlen=MAX_LOST)
        self._unanswered = 0
        self._jitter_s = 0.0
        self._waiting_since_at: Instant | None = None
        self._term_began_at: Instant = LONG_AGO
        self._passed_at = clock.monotonic()
        self._stopped_at: Instant = LONG_AGO
        self._stopped_s = 0.0
        self._yields_until: Instant = LONG_AGO
        self._releasing = False
        self._wake = asyncio.Event()
        # Two tries of a write are less than a deadline apart: see `request_s` and `_failed`.
        self._election_log = ElectionLog(_permissions(config), quiet_s=config.timing.deadline_s)

    @property
    def holder(self) -> str:
        """Holder of the Lease as last observed; "" for none."""
        record = self._observed.record if self._observed is not None else None
        return record.holder if record is not None else ""

    async def run(self) -> None:
        """Compete until `release`; then the Lease, if held, has been released.

        Cancel: the fence closes; a Lease that is held expires.
        """
        watching = asyncio.create_task(self._watch_lease(), name="lease watch")
        try:
            await self._elect(watching)
            await self._release()
        finally:
            self._fence.close()
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    def release(self) -> None:
        """Release the Lease and stop competing; `run` returns when that is done."""
        self._releasing = True
        self._wake.set()

    async def _elect(self, watching: asyncio.Task[None]) -> None:
        while not self._releasing:
            if watching.done():
                watching.result()
            self._wake.clear()
            decision = self._decide()
            match decision:
                case Acquire():
                    await self._acquire(decision)
                case Renew():
                    await self._renew(decision.record)
                case Lost():
                    self._lose(decision.reason)
                case Wait():
                    await self._sleep_until(decision.until)

    def _decide(self) -> election_rules.Decision:
        now_at, config = self._clock.monotonic(), self._config
        self._record_pass(now_at)
        decision = election_rules.decide(
            self._observed,
            self._hold,
            now_at,
            me=config.identity,
            timing=config.timing,
            try_at=self._try_at,
            jitter_s=self._jitter_s,
            token_life_s=config.candidate.token_life_s,
        )
        if isinstance(decision, Acquire | Renew) and (wait := self._must_wait(now_at)) is not None:
            if self._hold is not None:
                return Wait(min(wait.until, lease_timing.expires_at(self._hold, config.timing)))
            return wait
        if not isinstance(decision, Acquire) and now_at >= self._try_at:
            self._waiting_since_at = None
        return decision

    def _record_pass(self, now_at: Instant) -> None:
        """Record for how long this loop itself has not run: the main loop may run again by now.

        A process that is stopped, or a machine that is suspended, stops both loops. Two passes are
        two requests apart at most, which is the deadline: what exceeds it is a stop, also where one
        follows another before the main loop has its turn. A process with too little CPU has late
        passes one after another, and up to the deadline each of them counts.
        """
        heartbeat_at = now_at - self._config.heartbeat_age_s()
        if heartbeat_at > self._stopped_at:
            self._stopped_s = 0.0
        both_since_at = max(self._passed_at, heartbeat_at)
        if (late_s := now_at - both_since_at - self._config.timing.deadline_s) > 0:
            self._stopped_s += late_s
            self._stopped_at = now_at
        self._passed_at = now_at

    def _must_wait(self, now_at: Instant) -> Wait | None:
        """Return until when not to write the Lease: loop stalled, caches not synced, or no token.

        A leader that waits so behaves like one that is partitioned: its fence closes at the
        deadline, its Lease expires, and its requests have ended by then. Nothing is released while
        one may be in flight.
        """
        stalled_s = self._config.heartbeat_age_s() - self._stopped_s
        if stalled_s > MAX_HEARTBEAT_AGE_S:
            self._election_log.stalled(stalled_s)
            return Wait(now_at + MAX_SLEEP_S)
        self._election_log.loop_recovered()
        lacks_token = self._config.candidate.lacks_token
        if self._hold is not None:
            return self._must_yield(self._hold, now_at, lacks_token=lacks_token)
        if lacks_token and now_at < self._yields_until:
            return Wait(min(self._yields_until, now_at + READY_POLL_S))
        if self._waiting_since_at is None:
            self._waiting_since_at = now_at
        until = self._waiting_since_at + self._start_delay_s()
        return Wait(min(until, now_at + READY_POLL_S)) if now_at < until else None

    def _must_yield(self, hold: LeaseHold, now_at: Instant, *, lacks_token: bool) -> Wait | None:
        """Return until when a leader without a token does not renew, None if it continues."""
        if not lacks_token:
            self._election_log.kept()
            self._yields_until = LONG_AGO
            return None
        if now_at < self._term_began_at + MIN_TERM_S:
            return None
        self._election_log.yielded()
        self._yields_until = hold.renewed_at + self._config.timing.lease_s + YIELD_DELAY_S
        return Wait(now_at + MAX_SLEEP_S)

    def _start_delay_s(self) -> float:
        candidate = self._config.candidate
        if not candidate.has_had_token or candidate.lacks_token:
            return 0.0 if math.isfinite(self._yields_until) else NO_TOKEN_DELAY_S
        return UNSYNCED_DELAY_S if candidate.not_synced() else 0.0

    async def _acquire(self, decision: Acquire) -> None:
        record, me = decision.record, self._config.identity
        if record is not None and me.is_predecessor(record.holder):
            log.info("lease_taken_over", predecessor=record.holder)
        await self._write(record, decision.transitions)

    async def _renew(self, record: LeaseRecord) -> None:
        await self._write(record, record.transitions)

    async def _write(self, record: LeaseRecord | None, transitions: int) -> None:
        """Send one write that makes or keeps us the holder, and record its response."""
        config, timing = self._config, self._config.timing
        spec = records.holder_spec(
            record,
            str(config.identity),
            lease_s=timing.lease_s,
            transitions=transitions,
            wall_s=self._clock.wall(),
        )
        sent_at, before = self._clock.monotonic(), self._observed
        try:
            lease = await self._send(record, spec, limit_s=self._request_limit_s())
        except (KubeError, ProtocolError) as error:
            missing_namespace = record is None and isinstance(error, NotFound)
            if isinstance(error, Conflict | AlreadyExists | NotFound) and not missing_namespace:
                await self._resolve_conflict(before)
            else:
                self._lost.append(str(spec["renewTime"]))
                self._failed(error)
            return
        self._unanswered = 0
        self._lost.clear()
        self._observe(records.read(lease))
        self._answered("write")
        self._try_at = sent_at + timing.retry_s * self._random.uniform(0.9, 1.0)
        if self.holder != str(config.identity):
            return  # another writer was faster; the watch has delivered its version
        hold = lease_timing.hold_from(transitions, sent_at, timing)
        if self._clock.monotonic() < hold.expires_at:
            self._record_hold(hold)

    def _request_limit_s(self) -> float:
        """Return the longest wait for a response; a hanging request must not outlast a hold."""
        limit_s = self._config.timing.request_s
        if self._hold is None:
            return limit_s
        ends_at = lease_timing.expires_at(self._hold, self._config.timing)
        return max(0.0, min(limit_s, ends_at - self._clock.monotonic()))

    async def _send(
        self, record: LeaseRecord | None, spec: dict[str, object], *, limit_s: float
    ) -> LeaseObject:
        config = self._config
        if record is None:
            body = records.new_lease(config.name, spec, config.annotations)
            return await self._kube.create(self._resource, config.namespace, body, limit_s=limit_s)
        body = records.patch_of(record, spec, config.annotations)
        return await self._kube.patch(
            self._resource, config.namespace, config.name, body, limit_s=limit_s
        )

    def _record_hold(self, hold: LeaseHold) -> None:
        term = self._config.identity.term(hold.transitions)
        is_new = self._hold is None
        self._hold = hold
        self._fence.open(term, hold.expires_at, hold.answers_until)
        if is_new:
            self._term_began_at, self._yields_until = hold.renewed_at, LONG_AGO
            self._election_log.kept()
            log.info("lease_acquired", term=term, transitions=hold.transitions)
            self._on_started_leading(term)

    def _lose(self, reason: str) -> None:
        self._fence.close()
        self._hold = None
        # A Lease that is free again may be acquired before the next renewal.
        self._try_at = LONG_AGO
        self._leave_unanswered()
        log.warning("lease_lost", reason=reason)
        self._on_stopped_leading(reason)

    async def _resolve_conflict(self, before: ObservedLease | None) -> None:
        """Read the Lease after a version conflict: its present state decides.

        Args:
            before: The observation that the rejected write was based on. If the read shows nothing
                newer, the write was rejected for a reason other than its version.
        """
        self._pause(0.0, 0.1)
        try:
            await self._read(authoritative=True, limit_s=self._request_limit_s())
        except (KubeError, ProtocolError) as failure:
            self._failed(failure)
        else:
            if self._observed is before:
                self._pause(0.3, 0.6)

    def _failed(self, error: KubeError | ProtocolError) -> None:
        self._election_log.failed("write", error, now_at=self._clock.monotonic())
        self._pause(0.3, 0.6)
        self._count_unanswered()
        if self._hold is None:
            self._leave_unanswered()

    def _count_unanswered(self) -> None:
        """Count a write of ours whose answer was lost, if the Lease shows it.

        The Lease's holder and version alone would not show that: any client may annotate it.
        """
        record = self._observed.record if self._observed is not None else None
        if record is None or record.renewed not in self._lost:
            return
        while record.renewed in self._lost:  # those before it were not applied, or are overwritten
            self._lost.popleft()
        self._unanswered += 1

    def _leave_unanswered(self) -> None:
        """Leave the Lease to the others if our writes are applied, and their answers are lost."""
        if self._observed is not None and self._unanswered >= MAX_UNANSWERED:
            self._try_at = self._observed.at + self._config.timing.lease_s + YIELD_DELAY_S
            self._election_log.paused("write", until=self._try_at)

    def _answered(self, channel: Channel) -> None:
        self._election_log.answered(channel, now_at=self._clock.monotonic())

    def _pause(self, least: float, most: float) -> None:
        """Write nothing for a random fraction of the retry period between these two."""
        retry_s = self._config.timing.retry_s
        self._try_at = self._clock.monotonic() + retry_s * self._random.uniform(least, most)

    async def _watch_lease(self) -> None:
        """Watch the Lease until cancelled; a read at the start of each round finds lost events."""
        timing = self._config.timing
        while True:
            began_at = self._clock.monotonic()
            try:
                await self._watch(await self._read(limit_s=timing.request_s))
            except (KubeError, ProtocolError) as error:
                # A leader's renewals show the state, but not which permission is missing here.
                if self._hold is None or isinstance(error, Forbidden):
                    self._election_log.failed("watch", error, now_at=self._clock.monotonic())
            else:
                if self._clock.monotonic() - began_at > timing.retry_s:
                    continue  # a long watch has ended, and a release may be next
            await asyncio.sleep(timing.retry_s * self._random.uniform(0.3, 0.6))

    async def _watch(self, version: str) -> None:
        """Return when the watch has ended or failed.

        A holder renews well within its lease. After a longer silence the holder has failed, or this
        watch has; the next read shows which.
        """
        timing = self._config.timing
        watch = self._kube.watch(
            self._resource, self._scope(), version=version, timeout_s=WATCH_TIMEOUT_S
        )
        async with watch as stream:
            self._answered("watch")
            with suppress(TransportError):
                while (event := await stream.receive(idle_s=2.0 * timing.lease_s)) is not None:
                    if event.object is not None and event.type != "DELETED":
                        self._answered("watch")
                        self._observe(records.read(event.object))
                    elif event.type == "DELETED":
                        self._observe(None, event.version)

    async def _read(self, *, limit_s: float, authoritative: bool = False) -> str:
        """Read the Lease; return the version of the response.

        Raises:
            ProtocolError: The Lease exists but cannot be decoded; that must not look like absence.
        """
        before, newest = self._observed, self._newest_version
        page = await self._kube.list(self._resource, self._scope(), limit_s=limit_s)
        self._check_history(newest, page.version)
        if page.skipped:
            raise ProtocolError(f"the Lease {self._config.name} is not what the API server sends")
        authoritative = (
            authoritative and self._observed is before
        )  # else the watch has delivered something newer
        if page.items:
            self._observe(records.read(page.items[0]), authoritative=authoritative)
        else:
            self._observe(None, page.version, authoritative=authoritative)
        return page.version

    def _check_history(self, newest: str, version: str) -> None:
        """Report a consistent read that is older than what was known when it was sent.

        Without a restore of etcd this cannot happen. The next read is compared with this one, so
        that one restore is reported once.

        Args:
            newest: The newest version that was known when the read was sent, "" for none.
            version: The version of the read.
        """
        if not is_newer(newest, version):
            self._record_version(version)
            return
        self._newest_version = version
        known = f"the Lease has version {version}, and {newest} was known"
        self._on_history_rewound(f"{known}: was etcd restored?")

    def _record_version(self, version: str) -> None:
        if not self._newest_version or is_newer(version, self._newest_version):
            self._newest_version = version

    def _scope(self) -> ListOptions:
        """Select the one Lease. A watch by name is a list, too, and needs the same permission."""
        config = self._config
        return ListOptions(config.namespace, fields=f"metadata.name={config.name}")

    def _observe(
        self, record: LeaseRecord | None, version: str = "", *, authoritative: bool = False
    ) -> None:
        config = self._config
        version = record.version if record is not None else version
        self._record_version(version)
        observed = election_rules.observe(
            self._observed,
            record,
            version,
            self._clock.monotonic(),
            me=config.identity,
            timing=config.timing,
            authoritative=authoritative,
        )
        if observed is self._observed:
            return
        before, self._observed = self._observed, observed
        if before is None or before.edited_at != observed.edited_at:
            self._log_edited_duration(observed)
        self._fence.holder = self.holder
        self._fence.ends_at = election_rules.lease_end(
            observed, token_life_s=config.candidate.token_life_s
        )
        self._fence.transitions = max(0, observed.transitions)
        self._jitter_s = self._random.uniform(0.0, MAX_JITTER_S)
        if self.holder not in ("", str(config.identity)):
            self._yields_until = LONG_AGO
            self._unanswered = 0
        if self._hold is not None and self.holder != str(config.identity):
            self._lose(election_rules.loss_reason(record))
        self._election_log.leader_observed(self.holder, ours=self.holder == str(config.identity))
        self._count_unanswered()
        self._wake.set()

    def _log_edited_duration(self, observed: ObservedLease) -> None:
        if observed.record is None or observed.edited_at != observed.at:
            return
        life_s = self._config.candidate.token_life_s
        wait_s = max(
            0.0, election_rules.lease_end(observed, token_life_s=life_s) - self._clock.monotonic()
        )
        until_s = self._clock.wall() + wait_s
        self._election_log.edited(self.holder, observed.record.duration_s, wait_s, until_s)

    async def _release(self) -> None:
        """Release the Lease, if it is still held; after an error it expires."""
        hold, self._hold = self._hold, None
        self._fence.close()
        if hold is None:
            return
        self._on_stopped_leading("resigned")
        limit_s = self._config.timing.request_s
        try:
            try:
                await self._write_release(limit_s)
            except Conflict:
                # A renewal without a response, or an annotation by another client.
                await self._read(limit_s=limit_s, authoritative=True)
                await self._write_release(limit_s)
        except (KubeError, ProtocolError) as error:
            log.warning("lease_not_released", error=str(error))

    async def _write_release(self, limit_s: float) -> None:
        record = self._observed.record if self._observed is not None else None
        if record is None or record.holder != str(self._config.identity):
            return
        spec = records.released_spec(transitions=record.transitions, wall_s=self._clock.wall())
        await self._send(record, spec, limit_s=limit_s)
        log.info("lease_released")

    async def _sleep_until(self, until: Instant) -> None:
        wait_s = min(until - self._clock.monotonic(), MAX_SLEEP_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait_s)):
                await self._wake.wait()


def _permissions(config: ElectionConfig) -> str:
    return (
        f"list, watch, create, patch on leases.coordination.k8s.io {config.name}"
        f" in namespace {config.namespace}, which must exist"
    )
