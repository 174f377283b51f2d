"""The startup resync, all sessions at once, and the periodic one, spread over its period."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain

import structlog

from reconciler.controller.decide.refresh_plan import Action
from reconciler.controller.decide.sharding import owns
from reconciler.controller.runtime import Runtime
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.controller.triggers.event_handler import EventHandler
from reconciler.controller.triggers.startup import StartupProgress
from reconciler.errors import OF_AN_ENDPOINT, RemoteError
from reconciler.naming import SessionKey
from reconciler.platform.api import Platform
from reconciler.platform.models import PlatformSession, project_namespace
from reconciler.platform.session_list import RunningSessions, list_running_sessions
from reconciler.telemetry.trace import Trace, span
from reconciler.time_slice import TimeSlice
from reconciler.workqueue.items import Trigger

log = structlog.get_logger()

JITTER_FRACTION = 0.5
"""The periodic resync spreads its sessions over this part of its period."""

LEADER_START = "leader_start"
"""Reason of what a standby queues: its runs start when it begins to lead."""

LIST_FIRST_S = 2.0
"""A new leader looks up no single session sooner: its first list usually takes a second or two,
and confirms nearly all."""

PAUSE_EVERY = 50
"""Sessions that the periodic resync queues between two of its pauses."""

QUEUED = frozenset({Action.WRITE, Action.CREATE})
"""Actions whose run plans again: a confirmation that comes before that run changes nothing."""


class Resync:
    """Lists the platform's running sessions and queues each of them.

    A list of 100,000 sessions is a thousand pages, and takes a minute or more. Each page confirms
    its sessions when it comes, and the startup resync queues them then.

    Args:
        on_namespaces: Called with the namespaces of running sessions, where the configuration does
            not limit them.
    """

    def __init__(
        self,
        *,
        platform: Platform,
        confirmations: ConfirmationCache,
        sessions: SessionStateReader,
        event_handler: EventHandler,
        startup: StartupProgress,
        on_namespaces: Callable[[Iterable[str]], None],
        runtime: Runtime,
    ) -> None:
        config = runtime.config
        self._platform = platform
        self._confirmations = confirmations
        self._sessions = sessions
        self._event_handler = event_handler
        self._startup = startup
        self._on_namespaces = on_namespaces
        self._period_s = config.resync_s
        self._parallel = config.platform_parallel
        self._shard = config.shard
        self._mode = config.mode
        self._namespaces = frozenset(() if config.finds_namespaces else config.namespaces)
        self._log_dedup = runtime.log_dedup
        self._random = runtime.random
        self._tracer = runtime.tracer
        self._clock = runtime.clock

    async def run(self) -> None:
        """Run the startup resync, then one resync each period, until cancelled.

        Cancel: sessions already queued stay queued.
        """
        await self._run_startup()
        while True:
            await self._sleep_until_next()
            await self._run_periodic()

    async def plan_all(self, reason: str, *, news: Trigger = Trigger.NONE) -> None:
        """Queue each session with a pod at its deadline, so that a standby has them when it leads.

        Args:
            reason: Of the runs that are due now.
            news: What shortens the wait of sessions that failed.
        """
        turn = TimeSlice(self._clock)
        for key in self._sessions.live_keys():
            self._event_handler.enqueue(key, reason, news=news)
            await turn.item_done()

    async def _run_startup(self) -> None:
        """Queue every session; unconfirmed ones wait for their page of the list, see `plan`."""
        trace = self._tracer.begin_resync("startup_resync", "startup_resync", LEADER_START)
        self._startup.begin(trace.hex_id, partial(self._end_startup, trace))
        with trace:
            await self._queue_all()

    async def _queue_all(self) -> None:
        live = self._sessions.live_keys()
        log.info("startup_resync_started", pods=len(live))
        queued: set[SessionKey] = set()

        def queue(key: SessionKey, *, ask_in_s: float = 0.0) -> None:
            if key in queued:
                return
            action = self._event_handler.enqueue(key, "startup_resync", ask_in_s=ask_in_s)
            if action is not Action.REMOVE:
                self._startup.add(key, due=action is not Action.WAIT)
            if action in QUEUED:
                queued.add(key)

        async with asyncio.TaskGroup() as group:
            listing = group.create_task(self._list_sessions(queue))
            with span("queue_pods", f"{len(live)} pods"):
                turn = TimeSlice(self._clock)
                for key in live:
                    queue(key, ask_in_s=LIST_FIRST_S)
                    await turn.item_done()
        self._sessions.record_listed()
        turn = TimeSlice(self._clock)
        for key in await self._union(live, listing.result() or ()):
            queue(key)
            await turn.item_done()
        self._startup.all_listed()
        await self._confirmations.prune(self._sessions.has_pod)

    def _end_startup(self, trace: Trace) -> None:
        """End the trace after the last session's first result, with one span for all of them."""
        startup = self._startup
        refreshing = trace.add("refresh", f"{startup.sessions} sessions", trace)
        trace.ended_at = self._tracer.monotonic()
        if refreshing is not None:
            refreshing.began_at, refreshing.ended_at = trace.began_at, trace.ended_at
        counts = {f"sessions.{name}": count for name, count in startup.outcomes.items()}
        trace.attributes |= {"sessions": startup.sessions, **counts}
        self._tracer.end(trace)

    async def _run_periodic(self) -> None:
        with self._tracer.begin_resync("resync", "resync") as trace:
            await self._queue_listed(trace)
        self._tracer.end(trace)

    async def _queue_listed(self, trace: Trace) -> None:
        listed = await self._list_sessions(_ignore)
        if listed is None:
            return
        live = self._sessions.live_keys()
        keys = await self._union(listed, live)
        trace.attributes |= {"sessions": len(keys), "pods": len(live)}
        pause_s = self._period_s * JITTER_FRACTION / max(1, len(keys))
        for index, key in enumerate(keys):
            self._event_handler.enqueue(key, "resync")
            if index % PAUSE_EVERY == PAUSE_EVERY - 1:
                await asyncio.sleep(pause_s * PAUSE_EVERY)
        await self._confirmations.prune(self._sessions.has_pod)

    async def _union(self, *groups: Iterable[SessionKey]) -> tuple[SessionKey, ...]:
        """Return each key once, in the order in which it comes first."""
        found: dict[SessionKey, None] = {}
        turn = TimeSlice(self._clock)
        for key in chain(*groups):
            found[key] = None
            await turn.item_done()
        return tuple(found)

    async def _list_sessions(
        self, on_listed: Callable[[SessionKey], None]
    ) -> list[SessionKey] | None:
        """List all projects' running sessions; None if the platform returned no list.

        Args:
            on_listed: Called with each watched session of a page when the page comes, and the
                session is confirmed; a session may come again.

        Returns: The watched sessions, each once, those that came before a failure included.
        """
        recorded: set[SessionKey] = set()

        def take(rows: list[PlatformSession]) -> None:
            keys = [self._confirmations.record_running(row) for row in rows if self._is_own(row)]
            recorded.update(keys)
            for key in self._watched(keys):
                on_listed(key)

        try:
            with span("list_sessions"):
                found = await list_running_sessions(
                    self._platform, parallel=self._parallel, on_page=take
                )
        except RemoteError as error:
            if not isinstance(error, OF_AN_ENDPOINT) and self._log_dedup.should_log(
                "platform_not_listed"
            ):
                log.warning("platform_not_listed", error=str(error))
            return None
        self._log_dedup.reset("platform_not_listed")
        for project, failure in found.failures.items():
            if not isinstance(failure, OF_AN_ENDPOINT) and self._log_dedup.should_log(
                "project_not_listed", project
            ):
                log.warning("project_not_listed", project=project, error=str(failure))
        for anomaly in found.anomalies:
            if self._log_dedup.should_log("session_invalid", anomaly):
                log.warning("session_invalid", fact=anomaly)
        return self._watched(await self._record_list(found, recorded))

    async def _record_list(
        self, found: RunningSessions, recorded: set[SessionKey]
    ) -> list[SessionKey]:
        """Record what no page has confirmed, and the end of the list; return its keys.

        The sessions of other shards are not kept. They show that the list is not empty.
        """
        keys: list[SessionKey] = []
        listed: set[SessionKey] = set()
        turn = TimeSlice(self._clock)
        for session in found.sessions:
            key = self._confirmations.key_of(session)
            if owns(self._shard, key):
                # One that was revoked during the list is looked up: its row is older.
                if key not in recorded and not self._confirmations.is_revoked(key):
                    self._confirmations.record_running(session)
                keys.append(key)
                listed.add(key)
            await turn.item_done()
        await self._confirmations.record_list(
            listed,
            complete=found.complete and bool(found.sessions),
            complete_projects=found.complete_projects,
            covered={project_namespace(each, self._mode) for each in found.complete_projects},
        )
        return keys

    def _is_own(self, session: PlatformSession) -> bool:
        return owns(self._shard, self._confirmations.key_of(session))

    def _watched(self, keys: list[SessionKey]) -> list[SessionKey]:
        """Return the sessions in watched namespaces; where any may be, watch these, too."""
        if not self._namespaces:
            self._on_namespaces({key.namespace for key in keys})
            return keys
        return [key for key in keys if key.namespace in self._namespaces]

    async def _sleep_until_next(self) -> None:
        """Sleep for 0.8 to 1.0 of a period, so that replicas do not meet, and for an outage."""
        await asyncio.sleep(self._period_s * self._random.uniform(0.8, 1.0))
        await self._platform.breaker.wait_closed()


def _ignore(_key: SessionKey) -> None:
    """Wait for the whole list: the periodic resync queues its sessions over half a period."""
