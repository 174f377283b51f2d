"""The bulkhead's shell: its clock and timers, and the runs that wait for a worker."""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from reconciler.controller.decide.bulkhead import (
    SLOW_AFTER_S,
    Bulkhead,
    BulkheadRun,
    RequestResult,
    runs_at_most,
)
from reconciler.controller.decide.plan import Plan
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
from reconciler.workqueue.queue import WorkQueue

log = structlog.get_logger()

PLATFORM = "(platform)"
"""The platform among namespaces, as a place; no namespace has parentheses."""

ISSUER = "(issuer)"
"""The issuer, as a place."""

_NO_ANSWER = (TransportError, ServerError, PlatformUnavailable, IssuerUnavailable, ProtocolError)


@dataclass(frozen=True, slots=True)
class SlowPlaces:
    """`names` are namespaces, the pods of one, the platform or the issuer, as the log names them.

    `parked` counts sessions that are due and wait until fewer requests are under way in a place.
    """

    names: tuple[str, ...] = ()
    parked: int = 0


class BulkheadFull(ReconcilerError):
    """No more requests may begin in this place for now; nothing was sent."""

    def __init__(self, place: str) -> None:
        super().__init__(f"{place} has as many requests under way as it may have")
        self.place = place


def touches_in(namespace: str) -> str:
    """Return the place of a namespace's touches: pods have webhooks of their own."""
    return f"(pods) {namespace}"


class BulkheadShell:
    """Lends workers to runs, and lets their requests into the places where they go.

    Args:
        workers: See `Bulkhead`.
        most: See `Bulkhead`.
    """

    def __init__(
        self,
        queue: WorkQueue[SessionKey],
        runtime: Runtime,
        *,
        workers: int,
        most: Mapping[str, int],
    ) -> None:
        self._queue = queue
        self._clock = runtime.clock
        self._log_dedup = runtime.log_dedup
        self._bulkhead: Bulkhead[SessionKey] = Bulkhead(workers=workers, most=most)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.runs_at_most = runs_at_most(workers)
        """Runs at one time: those of the workers, and those that wait for slow requests."""

    async def begin(self) -> BulkheadRun:
        """Wait for a free worker and return its run; the caller owes an `end`.

        Cancel: nothing is lost.
        """
        while (run := self._bulkhead.begin()) is None:
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._wake_worker()
                raise
        if not self._bulkhead.is_busy:
            self._wake_worker()
        return run

    def end(self, run: BulkheadRun) -> None:
        """End a run, and call the keys for which there is room now."""
        self._bulkhead.end(run)
        self._call_parked()
        self._wake_worker()

    @contextmanager
    def at(self, place: str, run: BulkheadRun) -> Iterator[None]:
        """Make one request in a place; while it lasts, and by its end, it is judged.

        Raises:
            BulkheadFull: Not now.
        """
        if not self._bulkhead.enter(place, run, self._clock.monotonic()):
            raise BulkheadFull(place)
        if run.is_detached:
            self._wake_worker()
        timer = asyncio.get_running_loop().call_later(SLOW_AFTER_S, self._overdue, run, place)
        answer = RequestResult.NOTHING
        try:
            yield
            answer = RequestResult.ANSWERED
        except _NO_ANSWER:
            answer = RequestResult.FAILED
            raise
        except (NotLeaderError, BulkheadFull):
            raise
        except Exception:  # a refusal is an answer, too
            answer = RequestResult.ANSWERED
            raise
        finally:
            timer.cancel()
            self._bulkhead.leave(run, answer, self._clock.monotonic())

    def check(self, place: str, run: BulkheadRun) -> None:
        """Raise `BulkheadFull` where `at` would."""
        if not self._bulkhead.has_room(place, run, self._clock.monotonic()):
            raise BulkheadFull(place)

    def slow_places(self) -> SlowPlaces:
        """Return the places that are slow now, and how many sessions wait for room."""
        suspects = self._bulkhead.suspects(self._clock.monotonic())
        return SlowPlaces(suspects, self._bulkhead.parked_total)

    def record_started(self, key: SessionKey) -> None:
        """Note that a key runs."""
        self._bulkhead.take(key)

    def park(self, place: str, key: SessionKey, plan: Plan) -> None:
        """Have a key called, by its urgency, when there is room in a place."""
        now_at = self._clock.monotonic()
        ends_at = now_at + plan.slack_s
        self._bulkhead.park(
            place, key, group=key.namespace, band=plan.priority, ends_at=ends_at, now_at=now_at
        )

    def record_finished(self, key: SessionKey) -> None:
        """Note that a key's run ended in front of no full place."""
        self._bulkhead.forget(key)

    def _call_parked(self) -> None:
        now_at = self._clock.monotonic()
        for key, position in self._bulkhead.calls(now_at):
            slack_s = position.ends_at - now_at
            self._queue.add(key, reason="place_free", priority=position.priority, slack_s=slack_s)

    def _overdue(self, run: BulkheadRun, place: str) -> None:
        if self._log_dedup.should_log("requests_slow", place):
            log.warning("requests_slow", place=place, seconds=SLOW_AFTER_S)
        if self._bulkhead.overdue(run, self._clock.monotonic()):
            self._wake_worker()

    def _wake_worker(self) -> None:
        """Have those that wait for a worker look; each that finds none waits on."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
