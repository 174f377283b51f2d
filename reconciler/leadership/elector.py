"""The elector: plays by the lease rules against the API server, and opens or closes the fence.

It runs on any event loop. In production that loop has a thread and a connection of its own, so
that a stall of the main loop costs neither the Lease nor, if the Lease is lost, a late write.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import structlog

from reconciler.clock import Clock
from reconciler.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    KubeError,
    NotFound,
    ProtocolError,
    TransportError,
)
from reconciler.kube.api import Kube, ListOptions
from reconciler.kube.authorization import AuthorizerMemory
from reconciler.kube.authorized import AuthorizedKube
from reconciler.kube.resource_version import is_newer
from reconciler.leadership import lease as records
from reconciler.leadership import rules
from reconciler.leadership.election_log import ElectionLog
from reconciler.leadership.lease import Identity, LeaseObject, LeaseRecord, lease_resource
from reconciler.leadership.lease_gate import LeaseFence
from reconciler.leadership.rules import (
    Acquire,
    ElectionTiming,
    LeaseHold,
    Lost,
    ObservedLease,
    Renew,
    Wait,
)

log = structlog.get_logger()

SPREAD_S = 0.3
"""Followers try at the end of the holder's claim plus at most this."""

LONGEST_SLEEP_S = 1.0
"""The clock may have gone on while the machine was suspended and the loop's timers stood still."""

WATCH_S = 300
"""What a watch of the Lease may last; the server ends it then."""

COLD_S = 5.0
"""How long a replica whose stores are not filled yet leaves a free Lease to those that are warm."""

NO_TOKEN_S = 15.0
"""How long a replica that has had no token leaves a free Lease to those that have one: beyond the
end of a claim, so that a container which crashed twice is started again before (a kubelet waits
for 10 s). With no token anywhere the Lease is taken after it: sessions are confirmed, and the first
token finds a leader at once."""

YIELD_S = 300.0
"""Shortest term of a leader that lacks a token: replicas that all lack one do not take turns."""

LEFT_S = 10.0
"""How long a leader that yielded leaves the Lease to the others once its claim has ended: a standby
with a token takes it in `SPREAD_S` and one request, one without waits for `NO_TOKEN_S`, so that the
same replica leads on then, under the same term."""

WARM_S = 0.02
"""How often a cold replica looks whether it is warm now."""

STALL_S = 30.0
"""Age of the main loop's last sign of life from which on its Lease is left to others: two leases
of the default length, and longer than any garbage collection."""


@dataclass(frozen=True, slots=True)
class ElectionConfig:
    """What an elector stands for.

    Args:
        namespace: Of the Lease.
        name: Of the Lease.
        age_s: Seconds since the main loop's last sign of life.
        warm: True once the stores are filled.
        has_token: True once the token source has given a token in this process.
        token_life_s: Whole life of the token that came last; inf before the first.
        lacks_token: True while the token source has got none for so long that another replica may
            fare better.
    """

    namespace: str
    name: str
    identity: Identity
    timing: ElectionTiming
    age_s: Callable[[], float]
    is_ready: Callable[[], bool]
    has_token: Callable[[], bool] = lambda: True
    token_life_s: Callable[[], float] = lambda: math.inf
    lacks_token: Callable[[], bool] = lambda: False


class LeaderElector:
    """Contends for one Lease until it resigns; losing it is no error.

    Args:
        began: Told the term when the Lease becomes ours, after the fence was opened.
        ended: Told why when it is ours no more, after the fence was closed.
        rewound: Told why where a read is of an earlier history than what was seen before: etcd was
            restored. A Lease is written every few seconds, so that hardly a restore leaves it as it
            was, and the first read after it says so.
    """

    def __init__(
        self,
        kube: Kube,
        candidate: ElectionConfig,
        fence: LeaseFence,
        *,
        clock: Clock,
        random: Random,
        began: Callable[[str], None],
        ended: Callable[[str], None],
        rewound: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._kube = AuthorizedKube(kube, AuthorizerMemory(), clock)
        self._candidate = candidate
        self._fence = fence
        self._clock = clock
        self._random = random
        self._began = began
        self._ended = ended
        self._rewound = rewound
        self._resource = lease_resource()
        self._sight: ObservedLease | None = None
        self._reached = ""
        self._tenure: LeaseHold | None = None
        self._try_at = -math.inf
        self._spread_s = 0.0
        self._unfit_at: float | None = None
        self._term_began_at = -math.inf
        self._left_until = -math.inf
        self._resigning = False
        self._woken = asyncio.Event()
        self._tidings = ElectionLog(_rights(candidate))
        self.transitions_total = 0

    @property
    def holder(self) -> str:
        """Who holds the Lease as far as we saw; "" for nobody."""
        record = self._sight.record if self._sight is not None else None
        return record.holder if record is not None else ""

    async def run(self) -> None:
        """Contend until `resign`; then the Lease, if it was ours, has been released.

        Cancel: the fence closes; a Lease that is ours runs out by itself.
        """
        watching = asyncio.create_task(self._follow(), name="lease watch")
        try:
            await self._contend(watching)
            await self._release()
        finally:
            self._fence.close()
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    def release(self) -> None:
        """Give the Lease up and contend no more; `run` returns when that is done."""
        self._resigning = True
        self._woken.set()

    async def _contend(self, watching: asyncio.Task[None]) -> None:
        while not self._resigning:
            if watching.done():
                watching.result()
            self._woken.clear()
            decision = self._decide()
            match decision:
                case Acquire():
                    await self._take(decision)
                case Renew():
                    await self._renew(decision.record)
                case Lost():
                    self._lose(decision.reason)
                case Wait():
                    await self._sleep_until(decision.until)

    def _decide(self) -> rules.Decision:
        now_at, candidate = self._clock.monotonic(), self._candidate
        decision = rules.decide(
            self._sight,
            self._tenure,
            now_at,
            me=candidate.identity,
            timing=candidate.timing,
            try_at=self._try_at,
            spread_s=self._spread_s,
            token_life_s=candidate.token_life_s(),
        )
        if isinstance(decision, Acquire | Renew) and (wait := self._unfit(now_at)) is not None:
            if self._tenure is not None:
                return Wait(min(wait.until, rules.expires_at(self._tenure, candidate.timing)))
            return wait
        if not isinstance(decision, Acquire) and now_at >= self._try_at:
            self._unfit_at = None
        return decision

    def _unfit(self, now_at: float) -> Wait | None:
        """Return until when to leave the Lease alone: loop stalled, stores cold, or no token.

        A leader that does so is one that is cut off: its fence shuts at the deadline, its Lease
        runs out, and what it sent has ended by then. Nothing is released while it may be under way.
        """
        stalled_s = self._candidate.age_s()
        if stalled_s > STALL_S:
            self._tidings.stalled(stalled_s)
            return Wait(now_at + LONGEST_SLEEP_S)
        self._tidings.loop_recovered()
        lacks_token = self._candidate.lacks_token()
        if self._tenure is not None:
            return self._yielding(self._tenure, now_at, lacks_token=lacks_token)
        if lacks_token and now_at < self._left_until:
            return Wait(min(self._left_until, now_at + WARM_S))
        if self._unfit_at is None:
            self._unfit_at = now_at
        until = self._unfit_at + self._patience_s()
        return Wait(min(until, now_at + WARM_S)) if now_at < until else None

    def _yielding(self, tenure: LeaseHold, now_at: float, *, lacks_token: bool) -> Wait | None:
        """Return until when a leader renews no more for want of a token, None if it goes on."""
        if not lacks_token:
            self._tidings.stays()
            self._left_until = -math.inf
            return None
        if now_at < self._term_began_at + YIELD_S:
            return None
        self._tidings.leaves()
        self._left_until = tenure.renewed_at + self._candidate.timing.lease_s + LEFT_S
        return Wait(now_at + LONGEST_SLEEP_S)

    def _patience_s(self) -> float:
        candidate = self._candidate
        if not candidate.has_token() or candidate.lacks_token():
            return 0.0 if math.isfinite(self._left_until) else NO_TOKEN_S
        return 0.0 if self._candidate.is_ready() else COLD_S

    async def _take(self, decision: Acquire) -> None:
        record, me = decision.record, self._candidate.identity
        if record is not None and me.is_predecessor(record.holder):
            log.info("lease_taken_over", predecessor=record.holder)
        await self._write(record, decision.transitions)

    async def _renew(self, record: LeaseRecord) -> None:
        await self._write(record, record.transitions)

    async def _write(self, record: LeaseRecord | None, transitions: int) -> None:
        """Send one write that makes or keeps us the holder, and take its answer in."""
        candidate, timing = self._candidate, self._candidate.timing
        spec = records.claim(
            record,
            str(candidate.identity),
            lease_s=timing.lease_s,
            transitions=transitions,
            wall_s=self._clock.wall(),
        )
        sent_at, before = self._clock.monotonic(), self._sight
        try:
            lease = await self._send(record, spec, limit_s=self._limit_s())
        except (KubeError, ProtocolError) as error:
            missing_namespace = record is None and isinstance(error, NotFound)
            if isinstance(error, Conflict | AlreadyExists | NotFound) and not missing_namespace:
                await self._disagreed(before)
            else:
                self._failed(error)
            return
        self._see(records.read(lease))
        self._tidings.answered("write")
        self._try_at = sent_at + timing.retry_s * self._random.uniform(0.9, 1.0)
        if self.holder != str(candidate.identity):
            return  # somebody was quicker with the next version, and the watch was with that one
        tenure = rules.hold_from(transitions, sent_at, timing)
        if self._clock.monotonic() < tenure.expires_at:
            self._hold(tenure)

    def _limit_s(self) -> float:
        """Return the longest wait for an answer: a tenure ends in time though a request hangs."""
        limit_s = self._candidate.timing.request_s
        if self._tenure is None:
            return limit_s
        ends_at = rules.expires_at(self._tenure, self._candidate.timing)
        return max(0.0, min(limit_s, ends_at - self._clock.monotonic()))

    async def _send(
        self, record: LeaseRecord | None, spec: dict[str, object], *, limit_s: float
    ) -> LeaseObject:
        candidate = self._candidate
        if record is None:
            body = records.new_lease(candidate.name, spec)
            return await self._kube.create(
                self._resource, candidate.namespace, body, limit_s=limit_s
            )
        body = records.patch_of(record, spec)
        return await self._kube.patch(
            self._resource, candidate.namespace, candidate.name, body, limit_s=limit_s
        )

    def _hold(self, tenure: LeaseHold) -> None:
        term = self._candidate.identity.term(tenure.transitions)
        is_new = self._tenure is None
        self._tenure = tenure
        self._fence.open(term, tenure.expires_at)
        if is_new:
            self._term_began_at, self._left_until = tenure.renewed_at, -math.inf
            self._tidings.stays()
            self.transitions_total += 1
            log.info("lease_acquired", term=term, transitions=tenure.transitions)
            self._began(term)

    def _lose(self, why: str) -> None:
        self._fence.close()
        self._tenure = None
        self._try_at = -math.inf  # a Lease that is free again is not left alone until the renewal
        log.warning("lease_lost", why=why)
        self._ended(why)

    async def _disagreed(self, before: ObservedLease | None) -> None:
        """Versions differ: read the Lease, as whatever is true now decides.

        Args:
            before: What the refused write was based on; if the read shows no more, it was refused
                for a reason that the versions do not tell.
        """
        self._pause(0.0, 0.1)
        try:
            await self._read(settled=True, limit_s=self._limit_s())
        except (KubeError, ProtocolError) as failure:
            self._failed(failure)
        else:
            if self._sight is before:
                self._pause(0.3, 0.6)

    def _failed(self, error: KubeError | ProtocolError) -> None:
        self._tidings.failed("write", error)
        self._pause(0.3, 0.6)

    def _pause(self, least: float, most: float) -> None:
        """Write nothing for a part of the retry period between these two."""
        retry_s = self._candidate.timing.retry_s
        self._try_at = self._clock.monotonic() + retry_s * self._random.uniform(least, most)

    async def _follow(self) -> None:
        """Watch the Lease for ever; each round begins with a read, so that a blind watch heals."""
        timing = self._candidate.timing
        while True:
            began_at = self._clock.monotonic()
            try:
                await self._watch(await self._read(limit_s=timing.request_s))
            except (KubeError, ProtocolError) as error:
                # A leader's renewals tell how things are, but not what right is missing here.
                if self._tenure is None or isinstance(error, Forbidden):
                    self._tidings.failed("watch", error)
            else:
                if self._clock.monotonic() - began_at > timing.retry_s:
                    continue  # a long watch has ended, and a release may be next
            await asyncio.sleep(timing.retry_s * self._random.uniform(0.3, 0.6))

    async def _watch(self, version: str) -> None:
        """Return when the watch has ended, in whatever way.

        A holder renews well within its lease; a longer silence is somebody's death, or ours, which
        the next read will tell.
        """
        timing = self._candidate.timing
        watch = self._kube.watch(self._resource, self._scope(), version=version, timeout_s=WATCH_S)
        async with watch as stream:
            self._tidings.answered("watch")
            with suppress(TransportError):
                while (event := await stream.receive(idle_s=2.0 * timing.lease_s)) is not None:
                    if event.object is not None and event.type != "DELETED":
                        self._tidings.answered("watch")
                        self._see(records.read(event.object))
                    elif event.type == "DELETED":
                        self._see(None, event.version)

    async def _read(self, *, limit_s: float, settled: bool = False) -> str:
        """Read the Lease; return the version of the answer.

        Raises:
            ProtocolError: It is there and not readable, which must not look like its absence.
        """
        before, reached = self._sight, self._reached
        page = await self._kube.list(self._resource, self._scope(), limit_s=limit_s)
        self._compare(reached, page.version)
        if page.skipped:
            raise ProtocolError(
                f"the Lease {self._candidate.name} is not what the API server sends"
            )
        settled = settled and self._sight is before  # else the watch has brought something newer
        if page.items:
            self._see(records.read(page.items[0]), settled=settled)
        else:
            self._see(None, page.version, settled=settled)
        return page.version

    def _compare(self, reached: str, version: str) -> None:
        """Tell of a consistent read that is older than what was known as it was sent.

        Within one history there is none. The read is the last word: the next one is compared with
        it, so that one restore is told of once.

        Args:
            reached: The newest version that was known as the read was sent, "" for none.
            version: The read's own.
        """
        if not is_newer(reached, version):
            self._reach(version)
            return
        self._reached = version
        known = f"the Lease has version {version}, and {reached} was known"
        self._rewound(f"{known}: was etcd restored?")

    def _reach(self, version: str) -> None:
        if not self._reached or is_newer(version, self._reached):
            self._reached = version

    def _scope(self) -> ListOptions:
        """The one Lease; a list, since a watch by name is one too and needs the same right."""
        candidate = self._candidate
        return ListOptions(candidate.namespace, fields=f"metadata.name={candidate.name}")

    def _see(self, record: LeaseRecord | None, version: str = "", *, settled: bool = False) -> None:
        candidate = self._candidate
        version = record.version if record is not None else version
        self._reach(version)
        sight = rules.observe(
            self._sight,
            record,
            version,
            self._clock.monotonic(),
            me=candidate.identity,
            timing=candidate.timing,
            settled=settled,
        )
        if sight is self._sight:
            return
        self._sight = sight
        self._tell_of_edit(sight)
        self._fence.holder = self.holder
        self._fence.transitions = max(0, sight.transitions)
        self._spread_s = self._random.uniform(0.0, SPREAD_S)
        if self.holder not in ("", str(candidate.identity)):
            self._left_until = -math.inf
        if self._tenure is not None and self.holder != str(candidate.identity):
            self._lose(rules.why_lost(record))
        self._tidings.leads(self.holder, ours=self.holder == str(candidate.identity))
        self._woken.set()

    def _tell_of_edit(self, sight: ObservedLease) -> None:
        if sight.record is None or sight.edited_at != sight.at:
            return
        life_s = self._candidate.token_life_s()
        waits_s = max(0.0, rules.claim_end(sight, token_life_s=life_s) - self._clock.monotonic())
        until_s = self._clock.wall() + waits_s
        self._tidings.edited(self.holder, sight.record.duration_s, waits_s, until_s)

    async def _release(self) -> None:
        """Give the Lease up, if it is ours still; a failure leaves it to run out."""
        tenure, self._tenure = self._tenure, None
        self._fence.close()
        if tenure is None:
            return
        self._ended("resigned")
        limit_s = self._candidate.timing.request_s
        try:
            try:
                await self._give_up(limit_s)
            except Conflict:
                # A renewal whose answer was lost, or somebody's annotation.
                await self._read(limit_s=limit_s, settled=True)
                await self._give_up(limit_s)
        except (KubeError, ProtocolError) as error:
            log.warning("lease_not_released", error=str(error))

    async def _give_up(self, limit_s: float) -> None:
        record = self._sight.record if self._sight is not None else None
        if record is None or record.holder != str(self._candidate.identity):
            return
        spec = records.release(transitions=record.transitions, wall_s=self._clock.wall())
        await self._send(record, spec, limit_s=limit_s)
        log.info("lease_released")

    async def _sleep_until(self, until: float) -> None:
        wait_s = min(until - self._clock.monotonic(), LONGEST_SLEEP_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait_s)):
                await self._woken.wait()


def _rights(candidate: ElectionConfig) -> str:
    return (
        f"list, watch, create, patch on leases.coordination.k8s.io {candidate.name}"
        f" in namespace {candidate.namespace}, which must exist"
    )
