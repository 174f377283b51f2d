"""The bulkhead with its clock and timers, and the runs that wait for a worker."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog

from reconciler.controller.decide.bulkhead import (
    SLOW_AFTER_S,
    Bulkhead,
    BulkheadRun,
    RequestResult,
    max_runs,
)
from reconciler.controller.decide.refresh_plan import Plan
from reconciler.controller.runtime import Runtime
from reconciler.errors import (
    IssuerUnavailable,
    NotLeaderError,
    PlatformUnavailable,
    ProtocolError,
    ReconcilerError,
    ServerError,
    TransportError,
)
from reconciler.naming import SessionKey
from reconciler.workqueue.items import ScheduleRequest
from reconciler.workqueue.queue import WorkQueue

log = structlog.get_logger()

PLATFORM_TARGET = "(platform)"
"""No namespace has parentheses."""

ISSUER_TARGET = "(issuer)"

_NO_ANSWER = (TransportError, ServerError, PlatformUnavailable, IssuerUnavailable, ProtocolError)


class SlowTargets(msgspec.Struct, frozen=True):
    """`names` are namespaces, the pods of one, the platform or the issuer, as the log names them.

    `parked` counts sessions that are due and wait until a target has room for their request.
    """

    names: tuple[str, ...] = ()
    parked: int = 0


class BulkheadFull(ReconcilerError):
    """The target has as many requests in flight as it may have; nothing was sent."""

    def __init__(self, target: str) -> None:
        super().__init__(f"{target} has as many requests in flight as it may have")
        self.target = target


def touches_in(namespace: str) -> str:
    """Return the target name of a namespace's touches: other webhooks apply to pods."""
    return f"(pods) {namespace}"


class BulkheadShell:
    """Gives workers to runs, and limits the requests to each target."""

    def __init__(self, queue: WorkQueue[SessionKey], runtime: Runtime) -> None:
        config = runtime.config
        self._queue = queue
        self._clock = runtime.clock
        self._log_dedup = runtime.log_dedup
        self._bulkhead: Bulkhead[SessionKey] = Bulkhead(
            workers=config.workers, max_in_flight={PLATFORM_TARGET: config.platform_parallel}
        )
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.runs_at_most = max_runs(config.workers)
        """Most runs at one time: those of the workers, and those that wait for slow requests."""

    async def begin(self) -> BulkheadRun:
        """Wait for a free worker and return its run; the caller must call `end`.

        Cancel: nothing is lost.
        """
        while (slot := self._bulkhead.begin()) is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_worker()
                raise
        if not self._bulkhead.is_busy:
            self._wake_worker()
        return slot

    def keep(self, slot: BulkheadRun) -> bool:
        """Keep the worker of a run that has ended for the next one; False if the run holds none.

        `end` and `begin` would wake another one, which would find no worker and wait again.
        """
        if slot.is_detached:
            return False
        self._call_parked()
        return True

    def end(self, slot: BulkheadRun) -> None:
        """End a run, and queue the parked keys for which there is room now."""
        self._bulkhead.end(slot)
        self._call_parked()
        self._wake_worker()

    @contextmanager
    def at(self, target: str, slot: BulkheadRun) -> Iterator[None]:
        """Count one request to a target while the block runs; its duration and result are recorded.

        Raises:
            BulkheadFull: There is no room for the request.
        """
        if not self._bulkhead.enter(target, slot, self._clock.monotonic()):
            raise BulkheadFull(target)
        if slot.is_detached:
            self._wake_worker()
        timer = asyncio.get_running_loop().call_later(SLOW_AFTER_S, self._overdue, slot, target)
        answer = RequestResult.NO_RESULT
        try:
            yield
            answer = RequestResult.ANSWERED
        except _NO_ANSWER:
            answer = RequestResult.FAILED
            raise
        except (NotLeaderError, BulkheadFull):
            raise
        except Exception:  # a refusal is also an answer
            answer = RequestResult.ANSWERED
            raise
        finally:
            timer.cancel()
            self._bulkhead.leave(slot, answer, self._clock.monotonic())

    def check(self, target: str, slot: BulkheadRun) -> None:
        """Raise `BulkheadFull` where `at` would."""
        if not self._bulkhead.has_room(target, slot, self._clock.monotonic()):
            raise BulkheadFull(target)

    def slow_targets(self) -> SlowTargets:
        """Return the targets that are slow now, and how many sessions wait for room."""
        suspects = self._bulkhead.suspects(self._clock.monotonic())
        return SlowTargets(suspects, self._bulkhead.parked_total)

    @property
    def waiting(self) -> int:
        """Number of keys that wait for room at any target."""
        return self._bulkhead.waiting

    def record_started(self, key: SessionKey) -> None:
        """Note that a run of a key has started."""
        self._bulkhead.unpark(key)

    def park(self, target: str, key: SessionKey, plan: Plan) -> None:
        """Queue a key again, by its urgency, when the target has room."""
        now_at = self._clock.monotonic()
        ends_at = now_at + plan.slack_s
        self._bulkhead.park(
            target,
            key,
            group=key.namespace,
            priority=plan.priority,
            slack_ends_at=ends_at,
            now_at=now_at,
        )

    def record_finished(self, key: SessionKey) -> None:
        """Note that a key's run ended without `BulkheadFull`."""
        self._bulkhead.forget(key)

    def _call_parked(self) -> None:
        now_at = self._clock.monotonic()
        for key, position in self._bulkhead.calls(now_at):
            slack_s = position.slack_ends_at - now_at
            request = ScheduleRequest(now_at, position.priority, slack_s, "target_free")
            self._queue.add(key, request)

    def _overdue(self, slot: BulkheadRun, target: str) -> None:
        if self._log_dedup.should_log("requests_slow", target):
            log.warning("requests_slow", target=target, seconds=SLOW_AFTER_S)
        if self._bulkhead.overdue(slot, self._clock.monotonic()):
            self._wake_worker()

    def _wake_worker(self) -> None:
        """Wake the first that waits for a worker; if it finds none it waits again."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
