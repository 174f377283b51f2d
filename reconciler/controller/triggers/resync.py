"""The startup resync, all sessions at once, and the periodic one, a trickle."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from random import Random

import structlog

from reconciler.clock import Clock
from reconciler.controller.decide.plan import Action
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.controller.triggers.event_handler import EventHandler
from reconciler.errors import OF_AN_ENDPOINT, RemoteError
from reconciler.naming import SessionKey
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.api import Platform
from reconciler.platform.session_list import RunningSessions, list_running_sessions
from reconciler.telemetry.log_dedup import LogDedup
from reconciler.telemetry.trace import SpanId, Trace, Tracer, span
from reconciler.workqueue.items import Trigger

log = structlog.get_logger()

JITTER_FRACTION = 0.5
"""The periodic resync spreads its sessions over this part of its period."""

LEADER_START = "follow"
"""Reason with which a follower queues: such work is taken up when it begins to lead."""

ASK_IN_S = 2.0
"""A replica that begins asks about no single session sooner: its first list takes a second or two
as a rule, and confirms nearly all."""

SLICE = 100
"""Sessions planned in one turn of the loop: ten thousand at once would stall it for half a second,
and the first writes would wait for the last plan."""


class StartupResync:
    """Follows the sessions of the startup resync until each came to rest once.

    Order: `begin` before the first key is considered; `settled` from the workers at any time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: set[SessionKey] = set()
        self._open: set[SessionKey] = set()
        self._outcomes: dict[str, int] = {}
        self._began_at: float | None = None
        self._listed = False
        self._trace_id = ""
        self.finished = asyncio.Event()
        self.seconds = 0.0
        self.on_finished: Callable[[], None] | None = None

    def begin(self, trace_id: str = "") -> None:
        """Begin anew; `trace_id` names the resync in the line that says that it has finished."""
        self._trace_id = trace_id
        self._began_at = self._clock.monotonic()
        self._outcomes = {}
        self._known, self._open = set(), set()
        self._listed = False
        self.finished.clear()

    @property
    def outcomes(self) -> dict[str, int]:
        """How the sessions that came to rest did so, sorted by name."""
        return dict(sorted(self._outcomes.items()))

    @property
    def sessions(self) -> int:
        """Number of sessions that were found so far."""
        return len(self._known)

    def knows(self, key: SessionKey) -> bool:
        return key in self._known

    def add(self, key: SessionKey, *, due: bool) -> None:
        """Count a session once, whoever names it; one that is not due has come to rest."""
        if key in self._known:
            return
        self._known.add(key)
        self._open.add(key)
        if not due:
            self.record_result(key, "unchanged")

    def all_listed(self) -> None:
        """No more sessions will be added; with none open it is finished."""
        self._listed = True
        self._finish_if_done()

    def record_result(self, key: SessionKey, outcome: str) -> None:
        if self._began_at is None:
            return
        if key not in self._known and outcome != "unchanged":
            self._known.add(key)  # urgent, and so quick that it was not listed yet
        elif key not in self._open:
            return
        self._open.discard(key)
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._open or not self._listed or self._began_at is None:
            return
        self.seconds = self._clock.monotonic() - self._began_at
        self._began_at = None
        self.finished.set()
        log.info(
            "startup_resync_finished",
            sessions=self.sessions,
            seconds=round(self.seconds, 3),
            **self.outcomes,
            # It ends in the run of whichever session comes to rest last.
            **({"trace_id": self._trace_id} if self._trace_id else {}),
        )
        if self.on_finished is not None:
            self.on_finished()


class Resync:
    """Asks the platform who runs and has each of them considered.

    Args:
        namespaces: Those that are worked in, or none for all.
        found: Told the namespaces of running sessions, where all are worked in.
    """

    def __init__(
        self,
        *,
        client: Platform,
        directory: ConfirmationCache,
        planner: SessionStateReader,
        feed: EventHandler,
        breaker: CircuitBreaker,
        startup: StartupResync,
        once: LogDedup,
        random: Random,
        period_s: float,
        parallel: int,
        namespaces: Iterable[str],
        found: Callable[[Iterable[str]], None],
        tracer: Tracer,
    ) -> None:
        self._client = client
        self._directory = directory
        self._planner = planner
        self._feed = feed
        self._breaker = breaker
        self._startup = startup
        self._once = once
        self._random = random
        self._period_s = period_s
        self._parallel = parallel
        self._namespaces = frozenset(namespaces)
        self._found = found
        self._tracer = tracer
        self.causes: dict[str, SpanId] = {}
        """The latest resync of each kind, by the reason with which it queues: what runs link to."""

    async def run(self) -> None:
        """Run the startup resync, then one look per period, for ever.

        Cancel: sessions already queued stay queued.
        """
        await self._run_startup()
        while True:
            await self._sleep_until_next()
            await self._run_periodic()

    async def plan_all(self, reason: str, *, news: Trigger = Trigger.NONE) -> None:
        """Give each session with a pod its deadline, so that a follower knows them when it leads.

        Args:
            reason: Of the runs that are due now.
            news: What shortens the wait of sessions that failed.
        """
        for index, key in enumerate(self._planner.live_keys()):
            self._feed.enqueue(key, reason, news=news)
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    async def _run_startup(self) -> None:
        """Queue every session; one to be confirmed gives the list its time, see `plan`."""
        trace = self._begin("startup_resync")
        self.causes[LEADER_START] = trace.id
        self._startup.on_finished = partial(self._end_startup, trace)
        with trace:
            await self._queue_all(trace.hex_id)

    async def _queue_all(self, trace_id: str) -> None:
        self._startup.begin(trace_id)
        live = self._planner.live_keys()
        log.info("startup_resync_started", pods=len(live))
        with span("queue_pods", f"{len(live)} pods"):
            for index, key in enumerate(live):
                self._consider(key, ask_in_s=ASK_IN_S)
                if index % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
        listed = await self._sweep()
        keys = self._keys(listed) if listed else ()
        self._planner.listed()
        for index, key in enumerate(dict.fromkeys([*live, *keys])):
            if not self._startup.knows(key):
                self._consider(key)
            else:  # it may wait for the list since it was considered
                self._feed.enqueue(key, "startup_resync")
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        self._startup.all_listed()
        self._directory.prune(live)

    def _consider(self, key: SessionKey, *, ask_in_s: float = 0.0) -> None:
        action = self._feed.enqueue(key, "startup_resync", ask_in_s=ask_in_s)
        if action is not Action.REMOVE:
            self._startup.add(key, due=action is not Action.WAIT)

    def _begin(self, reason: str) -> Trace:
        trace = self._tracer.begin(reason)
        self.causes[reason] = trace.id
        return trace

    def _end_startup(self, trace: Trace) -> None:
        """End the trace when the last session came to rest, with one step for all of them."""
        startup = self._startup
        refreshing = trace.add("refresh", f"{startup.sessions} sessions", trace)
        trace.ended_at = self._tracer.monotonic()
        if refreshing is not None:
            refreshing.began_at, refreshing.ended_at = trace.began_at, trace.ended_at
        counts = {f"sessions.{name}": count for name, count in startup.outcomes.items()}
        trace.attributes |= {"sessions": startup.sessions, **counts}
        self._tracer.end(trace)

    async def _run_periodic(self) -> None:
        with self._begin("resync") as trace:
            await self._look(trace)
        self._tracer.end(trace)

    async def _look(self, trace: Trace) -> None:
        found = await self._sweep()
        if found is None:
            return
        live = self._planner.live_keys()
        keys = list(dict.fromkeys([*self._keys(found), *live]))
        trace.attributes |= {"sessions": len(keys), "pods": len(live)}
        pause_s = self._period_s * JITTER_FRACTION / max(1, len(keys))
        for index, key in enumerate(keys):
            self._feed.enqueue(key, "resync")
            if index % 50 == 49:
                await asyncio.sleep(pause_s * 50)
        self._directory.prune(live)

    async def _sweep(self) -> RunningSessions | None:
        """List all projects' running sessions; None when the platform gave no list at all."""
        try:
            with span("sweep"):
                found = await list_running_sessions(self._client, parallel=self._parallel)
        except RemoteError as error:
            if not isinstance(error, OF_AN_ENDPOINT) and self._once.should_log(
                "platform_not_listed"
            ):
                log.warning("platform_not_listed", error=str(error))
            return None
        self._once.reset("platform_not_listed")
        for project, failure in found.failures.items():
            if not isinstance(failure, OF_AN_ENDPOINT) and self._once.should_log(
                "project_not_listed", project
            ):
                log.warning("project_not_listed", project=project, error=str(failure))
        for oddity in found.anomalies:
            if self._once.should_log("session_invalid", oddity):
                log.warning("session_invalid", fact=oddity)
        return found

    def _keys(self, found: RunningSessions) -> list[SessionKey]:
        keys = self._directory.update(
            found.sessions, complete=found.complete, whole=found.complete_projects
        )
        if not self._namespaces:
            self._found({key.namespace for key in keys})
            return keys
        return [key for key in keys if key.namespace in self._namespaces]

    async def _sleep_until_next(self) -> None:
        """Sleep a period, spread so that replicas and restarts do not meet; or until it is back."""
        await asyncio.sleep(self._period_s * self._random.uniform(0.8, 1.0))
        await self._breaker.wait_closed()
