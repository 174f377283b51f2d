"""All parts of the main job joined: stores fed by reflectors, workers fed by the queue."""

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import structlog

from reconciler.clock import Clock
from reconciler.controller.decide import error_policy, refresh_grid
from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.decide.sharding import of_shard
from reconciler.controller.events.recorder import EventRecorder
from reconciler.controller.namespaces.discovery import NamespaceDiscovery, NamespaceUsage
from reconciler.controller.namespaces.informers import InformerPair, NamespaceInformers
from reconciler.controller.reconcile.actions import SessionActions
from reconciler.controller.reconcile.bulkhead_shell import PLATFORM, BulkheadShell
from reconciler.controller.reconcile.pod_toucher import PodToucher
from reconciler.controller.reconcile.reconciler import Reconciler
from reconciler.controller.reconcile.run import Observer, ReconcileStats
from reconciler.controller.reconcile.secret_writer import SecretWriter
from reconciler.controller.reconcile.session_lookup import SessionLookup
from reconciler.controller.reconcile.worker import Workers
from reconciler.controller.runtime import ControllerConfig, LogDedup, Runtime, Stores
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.controller.state.startup import StartupProgress
from reconciler.controller.status.collector import ControllerParts, StatusCollector
from reconciler.controller.status.endpoint_log import REPORT_S, EndpointLog
from reconciler.controller.status.exposure import TOUCHED_S, EstimatedExposure
from reconciler.controller.status.history import BlockedSessions, RunHistory
from reconciler.controller.triggers.event_handler import EventHandler
from reconciler.controller.triggers.resync import LEADER_START, Resync
from reconciler.controller.triggers.revocation_check import RevocationCheck
from reconciler.errors import IssuerError
from reconciler.informer.reflector import ObjectHandlers, Reflector
from reconciler.informer.store import Store
from reconciler.kube.api import ApiResource, Kube, ListOptions, ObjectMeta
from reconciler.kube.authorization import AuthorizerMemory
from reconciler.kube.authorized import AuthorizedKube
from reconciler.kube.decoding import metadata_resource
from reconciler.leadership.api import Leadership, WriteFence
from reconciler.naming import LIVE_PODS, SessionKey
from reconciler.net.circuit_breaker import BreakerStats, CircuitBreaker
from reconciler.platform.api import Platform
from reconciler.platform.models import namespace_of
from reconciler.telemetry.trace import Tracer
from reconciler.tokens.issuer_time import ClockMove, IssuerTime
from reconciler.tokens.refusals import refusal_hint, refused_part
from reconciler.tokens.source import TokenSource
from reconciler.workqueue.items import Trigger
from reconciler.workqueue.queue import WorkQueue

log = structlog.get_logger()

STUCK_S = 1000.0
"""Three times the longest life of a watch, and beyond the longest pause, list and turn: each end
of a list or a watch, each event and each bookmark shows that the reflector works."""

FRESH_S = 2.0
"""Age of the first lists up to which they need no second one when this replica begins to lead."""

LEASE_TTL = 1 / 6
"""Longest lease, in lives of a token: a takeover must fit into the slack several times."""

WITHOUT_LIFE = 0.6
"""For how long no token may come, as a fraction of a life, before a leader leaves the Lease to
another replica. Each session has come due by then, so that each Secret holds the standby token with
0.4 of its life left: enough for a takeover."""

WITHOUT_S = 60.0
"""The same before the first token, when it is not known how long one lives."""

MAX_LOGGED = 10
"""Names in one line."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the controller needs from outside; each part has a real and a simulated form."""

    kube: Kube
    platform: Platform
    source: TokenSource
    issuer_time: IssuerTime
    clock: Clock
    random: Random
    fence: WriteFence
    leadership: Leadership
    kube_breaker: CircuitBreaker
    platform_breaker: CircuitBreaker
    issuer_breaker: CircuitBreaker
    background_tasks: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = ()
    """What must run with the controller, such as the requests for the standby token."""
    tracer: Tracer | None = None
    """The tracer of the telemetry; without one, no trace is exported."""
    platform_allowed: Callable[[], int] | None = None
    """Returns how many requests to the platform may be in flight now; None: there is no limit."""
    observers: tuple[Observer, ...] = ()
    """Called with every run, after the controller's own observers."""


class Controller:
    """One replica's main job: it makes the parts, joins them, and runs them."""

    def __init__(self, dependencies: Dependencies, config: ControllerConfig) -> None:
        self._dependencies = dependencies
        self._config = config
        names, clock = config.names, dependencies.clock
        self.log_dedup = LogDedup(clock)
        self.tracer = dependencies.tracer or Tracer(clock, Random())
        self._runtime = Runtime(clock, dependencies.random, self.log_dedup, self.tracer)
        self._kube = AuthorizedKube(dependencies.kube, AuthorizerMemory(self._on_authorized), clock)
        self.pods, self.secrets = Store("pods"), Store("secrets")
        self._stores = Stores(
            self.pods,
            self.secrets,
            of_shard(metadata_resource("pods", names), config.shard),
            of_shard(
                metadata_resource("secrets", names, on_data=self._warn_of_value), config.shard
            ),
        )
        self.queue: WorkQueue[SessionKey] = WorkQueue(clock)
        self.queue.pause()
        self._endpoint_log = EndpointLog(clock)
        self.startup = StartupProgress(clock)
        self.confirmations = ConfirmationCache(
            clock,
            names,
            config.confirmation_mac,
            lambda session: namespace_of(session, config.mode),
        )
        self.sessions = SessionStateReader(
            stores=self._stores,
            confirmations=self.confirmations,
            source=dependencies.source,
            issuer_time=dependencies.issuer_time,
            fence=dependencies.fence,
            config=config,
            clock=clock,
        )
        self.touches = PodTouches() if config.touch else None
        self.event_handler = EventHandler(
            self.sessions, self.queue, self.touches, self.startup, clock
        )
        usage = NamespaceUsage(
            stores=self._stores,
            confirmations=self.confirmations,
            sessions=self.sessions,
            queue=self.queue,
            touches=self.touches,
        )
        all_namespaces = () if config.finds_namespaces else (None,)
        self.informers = NamespaceInformers(
            config.namespaces or all_namespaces, make=self._make_informers, evict=usage.evict
        )
        self.discovery = self._make_discovery(usage) if config.finds_namespaces else None
        on_namespaces = self.discovery.add if self.discovery is not None else _ignore
        session_lookup = SessionLookup(
            dependencies.platform,
            self.confirmations,
            self.sessions,
            self.log_dedup,
            on_namespaces,
        )
        self.history = RunHistory(clock)
        self.exposure = EstimatedExposure(config.propagation_s)
        self.blocked_sessions = BlockedSessions()
        self.events = EventRecorder(
            kube=self._kube,
            fence=dependencies.fence,
            breaker=dependencies.kube_breaker,
            clock=clock,
            log_dedup=self.log_dedup,
            component=names.field_manager,
            timeout_s=config.request_limit_s,
        )
        self.bulkhead = BulkheadShell(
            self.queue,
            self._runtime,
            workers=config.workers,
            most={PLATFORM: config.platform_parallel},
        )
        self.stats = ReconcileStats({}, {})
        self._workers = self._make_workers(session_lookup)
        self.resync = Resync(
            platform=dependencies.platform,
            confirmations=self.confirmations,
            sessions=self.sessions,
            event_handler=self.event_handler,
            startup=self.startup,
            on_namespaces=on_namespaces,
            config=config,
            runtime=self._runtime,
        )
        self.revocation_check = RevocationCheck(
            secrets=self.secrets,
            confirmations=self.confirmations,
            sessions=self.sessions,
            session_lookup=session_lookup,
            event_handler=self.event_handler,
            config=config,
            clock=clock,
        )
        self.status_collector = StatusCollector(
            self._collect_parts(),
            self._runtime,
            delivery_s=TOUCHED_S if config.touch else config.propagation_s,
        )
        self._time_moved = asyncio.Event()
        self._subscribe()

    def _make_discovery(self, usage: NamespaceUsage) -> NamespaceDiscovery:
        return NamespaceDiscovery(
            platform=self._dependencies.platform,
            informers=self.informers,
            usage=usage,
            config=self._config,
            runtime=self._runtime,
        )

    def _make_workers(self, session_lookup: SessionLookup) -> Workers:
        return Workers(
            queue=self.queue,
            reconciler=self._make_reconciler(session_lookup),
            sessions=self.sessions,
            bulkhead=self.bulkhead,
            startup=self.startup,
            observers=(
                self.history.observe,
                self.exposure.observe,
                self.blocked_sessions.observe,
                self.events.observe,
                *self._dependencies.observers,
            ),
            stats=self.stats,
            runtime=self._runtime,
        )

    def _make_reconciler(self, session_lookup: SessionLookup) -> Reconciler:
        dependencies = self._dependencies
        writer = SecretWriter(
            kube=self._kube,
            stores=self._stores,
            fence=dependencies.fence,
            config=self._config,
            on_rewound=self.relist_all,
        )
        actions = SessionActions(
            sessions=self.sessions,
            writer=writer,
            source=dependencies.source,
            session_lookup=session_lookup,
            touches=self.touches,
            bulkhead=self.bulkhead,
            stats=self.stats,
            runtime=self._runtime,
        )
        toucher = None
        if self.touches is not None:
            toucher = PodToucher(
                self.touches,
                sessions=self.sessions,
                writer=writer,
                bulkhead=self.bulkhead,
                stats=self.stats,
                runtime=self._runtime,
            )
        return Reconciler(
            sessions=self.sessions,
            actions=actions,
            touches=self.touches,
            toucher=toucher,
            startup=self.startup,
            kube_breaker=dependencies.kube_breaker,
            runtime=self._runtime,
        )

    def _collect_parts(self) -> ControllerParts:
        dependencies = self._dependencies
        return ControllerParts(
            stores=self._stores,
            queue=self.queue,
            confirmations=self.confirmations,
            sessions=self.sessions,
            startup=self.startup,
            informers=self.informers,
            bulkhead=self.bulkhead,
            stats=self.stats,
            history=self.history,
            blocked_sessions=self.blocked_sessions,
            exposure=self.exposure,
            source=dependencies.source,
            issuer_time=dependencies.issuer_time,
            fence=dependencies.fence,
            breakers=self._breakers(),
            platform_allowed=dependencies.platform_allowed,
            shard=self._config.shard,
        )

    def _subscribe(self) -> None:
        """Have the dependencies, which exist before the controller, call it."""
        dependencies = self._dependencies
        dependencies.source.fleet_life_s = self._fleet_life_s
        dependencies.source.on_better = self._on_better_token
        for breaker, endpoint in (
            (dependencies.kube_breaker, error_policy.KUBE),
            (dependencies.issuer_breaker, error_policy.ISSUER),
            (dependencies.platform_breaker, error_policy.PLATFORM),
        ):
            breaker.on_condition = self._endpoint_log.changed
            breaker.on_recovery(partial(self._wake_blocked, endpoint))
        dependencies.issuer_time.on_moved = self._on_time_moved

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then finish what is in flight.

        Order: sync the stores, then stand by; during each term lead, with the startup resync first.
        At the end no more keys are taken, those in flight end (bounded), the Lease is released, and
        only then the watches are closed.
        Raises: ExceptionGroup for a defect of ours; no failure of a peer ends it.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in self._tasks()]
            await stop.wait()
            if not await self.queue.drain(self._config.drain_s):
                # A write may still arrive, and the Lease must be ours until then.
                log.warning("drain_timeout", in_flight=self.queue.stats().schedule.running)
            else:
                await self._dependencies.leadership.release()
            for task in tasks:
                task.cancel()

    async def plan_all(self) -> None:
        """Plan each session again: the static token or the signing key was replaced."""
        self.sessions.clear_context()
        await self.resync.plan_all("token_replaced", news=Trigger.REQUESTED)

    def _warn_of_value(self) -> None:
        """Log that a Secret came with its data, which was not requested.

        The data was not decoded, but its bytes went through this process.
        """
        if self.log_dedup.should_log("secret_value_received"):
            log.warning(
                "secret_value_received",
                reason="the API server, or what is before it, sent data instead of metadata",
            )

    def relist_all(self, namespace: str, why: str) -> None:
        """List everything again: the API server has lost a part of its history, in all namespaces.

        Args:
            namespace: Where an object was read that is older than what was known.
            why: What was read, and what was known before.
        """
        if self.log_dedup.should_log("history_rewound"):
            log.warning("history_rewound", namespace=namespace, error=why)
        for reflector in self.informers.reflectors:
            reflector.distrust()

    async def rewrite_confirmations(self) -> None:
        """Plan each session again: its confirmation is to be signed with the new key."""
        await self.resync.plan_all("confirmation_key_changed")

    @property
    def writes_refused(self) -> int:
        """Number of writes that the fence has blocked since the start."""
        return self._dependencies.fence.fenced_total

    def liveness_problem(self) -> str:
        """Return "" unless a watch has stalled in a way that only a restart repairs.

        A list that times out is no such case: a restart would not repair the API server, and would
        empty the stores.
        """
        if self._dependencies.kube_breaker.is_open:
            return ""
        for reflector in self.informers.reflectors:
            stuck_s = reflector.stats().stuck_s
            if stuck_s is not None and stuck_s > STUCK_S:
                return f"the watch of {reflector.name} is stuck for {stuck_s:.0f} s"
        return ""

    @property
    def has_had_token(self) -> bool:
        """Whether the token source has returned a token in this process, expired or not."""
        return self._dependencies.source.stats().issued_total > 0

    @property
    def lacks_token(self) -> bool:
        """Whether no token has come for so long that another replica may have one."""
        stats = self._dependencies.source.stats()
        life_s = stats.latest_ttl_s
        return stats.without_s > (WITHOUT_S if life_s is None else WITHOUT_LIFE * life_s)

    @property
    def token_life_s(self) -> float:
        """Whole lifetime of the last token; inf before the first, or without an expiry."""
        life_s = self._dependencies.source.stats().latest_ttl_s
        return math.inf if life_s is None else life_s

    def readiness_problem(self) -> str:
        """Return "" once the stores are synced and the source has returned a token, else the cause.

        A rollout must not replace replicas that have a standby token by ones that cannot get any.
        After the first token a replica stays ready: a later outage affects the other replicas, too.
        """
        if why := self.not_synced():
            return why
        if self.has_had_token:
            return ""
        last = self._dependencies.source.stats().last_error
        issuer = self._dependencies.issuer_breaker.stats()
        code, status = issuer.last_reason, issuer.last_status
        refused = f", and the issuer refuses {refused_part(code, status)}"
        return (
            "waiting for the first token"
            + (refused if issuer.refuses else "")
            + _last_error(last)
            + (f"; {refusal_hint(code, status)}" if issuer.refuses else "")
        )

    def not_synced(self) -> str:
        """Return "" once the stores hold a first list, else what is missing.

        It does not depend on the resync, on the platform, or on one of several namespaces that
        forbids the lists: a replica with synced stores can take over. Only a replica without any
        namespace needs the platform, once; it must not replace one that knows the namespaces.
        """
        if self.discovery is not None and not self.discovery.has_started:
            return "waiting for the platform to name a project" + self._why_not_named()
        if missing := self.informers.uninitialized():
            more = f" and {len(missing) - MAX_LOGGED} more" if len(missing) > MAX_LOGGED else ""
            why = f"waiting for the first list of {', '.join(missing[:MAX_LOGGED])}{more}"
            return why + _last_error(self._list_error())
        if not any(reflector.stats().synced for reflector in self.informers.reflectors):
            return "no right to list pods or Secrets anywhere" + _last_error(self._list_error())
        return ""

    def problems(self) -> dict[str, str]:
        """Return what keeps this replica from refreshing tokens, or a part of them, now.

        Returns: Reason of an Event -> one line that names the cause; empty if there is nothing.
        """
        if why := self.readiness_problem():
            return {"NotReady": why}
        found = {}
        dependencies = self._dependencies
        ends = (
            ("issuer", dependencies.issuer_breaker.stats()),
            ("platform", dependencies.platform_breaker.stats()),
        )
        failing = [
            f"the {name} {_condition(stats)}: {stats.last_error}"
            for name, stats in ends
            if stats.condition != "ok"
        ]
        if failing:
            found["EndpointFailing"] = "; ".join(failing)
        refused = [each for each in self.informers.reflectors if each.is_forbidden]
        if refused:
            named = ", ".join(each.name for each in refused[:MAX_LOGGED])
            more = f" and {len(refused) - MAX_LOGGED} more" if len(refused) > MAX_LOGGED else ""
            found["ListForbidden"] = f"no right to list or watch {named}{more}" + _last_error(
                refused[0].stats().protocol.last_error
            )
        return found

    def _list_error(self) -> str:
        """Return the last error of a reflector that is not synced yet, or ""."""
        found = (reflector.stats() for reflector in self.informers.reflectors)
        errors = (stats.protocol.last_error for stats in found if not stats.synced)
        return next((error for error in errors if error), "")

    def _why_not_named(self) -> str:
        """Return which endpoint prevents the list of the projects, or ""."""
        dependencies = self._dependencies
        for name, breaker in (
            ("issuer", dependencies.issuer_breaker),
            ("platform", dependencies.platform_breaker),
        ):
            if breaker.refuses:
                stats = breaker.stats()
                what = refused_part(stats.last_reason, stats.last_status)
                return f"; the {name} refuses {what}: {breaker.last_error}"
            if breaker.is_open:
                return f"; the {name} is unreachable: {breaker.last_error}"
        return ""

    def _tasks(self) -> list[Coroutine[Any, Any, None]]:
        dependencies = self._dependencies
        return [
            self.informers.run(),
            *([self.discovery.run()] if self.discovery is not None else []),
            *(self._workers.run() for _ in range(self.bulkhead.runs_at_most)),
            *(part() for part in dependencies.background_tasks),
            dependencies.kube_breaker.probe_while_down(dependencies.kube.ready),
            dependencies.platform_breaker.probe_while_down(dependencies.platform.probe),
            dependencies.platform_breaker.probe_while_refused(dependencies.platform.probe),
            self._sync_and_lead(),
            self._log_term_ends(),
            self._log_unready(),
            self._replan_on_time_move(),
            self.status_collector.run(),
            self.events.run(),
        ]

    async def _sync_and_lead(self) -> None:
        if self.discovery is not None:
            await self.discovery.wait_started()
        await self.informers.wait_initialized()
        log.info("stores_synced", pods=len(self.pods), secrets=len(self.secrets))
        with suppress(IssuerError):
            # The response also contains the issuer's time, which all decisions need.
            await self._dependencies.source.get(min_remaining=0.0)
        if not self.has_had_token:
            # The shortest remaining life decides how often the issuer is asked from now on.
            await self.status_collector.update(max_age_s=0.0)
        self._config.on_synced()
        self._warn_of_short_life()
        self.event_handler.open()
        leadership, synced_at = self._dependencies.leadership, self._dependencies.clock.monotonic()
        if not leadership.leads:
            await self.resync.plan_all(LEADER_START)
        while True:
            await leadership.wait_started()
            fresh = self._dependencies.clock.monotonic() - synced_at < FRESH_S
            await self._run_term(relist=not fresh)

    async def _run_term(self, *, relist: bool) -> None:
        """Work for one term as the leader; with `relist`, list everything at the same time."""
        self.confirmations.begin_term()
        self.sessions.begin_term()
        if self.touches is not None:
            self.touches.clear()
        self.queue.resume()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.resync.run()),
                    group.create_task(self.revocation_check.run()),
                ]
                if relist:
                    tasks.append(group.create_task(self.informers.relist()))
                await self._dependencies.leadership.wait_stopped()
                for task in tasks:
                    task.cancel()
        finally:
            self.queue.pause()
            self.sessions.end_term()

    async def _log_term_ends(self) -> None:
        """Log the blocked writes at the end of each term, once nothing is in flight."""
        leadership = self._dependencies.leadership
        while True:
            await leadership.wait_started()
            await leadership.wait_stopped()
            await self.queue.wait_idle()
            log.info("leadership_ended", writes_refused=self._dependencies.fence.fenced_total)

    def _warn_of_short_life(self) -> None:
        """Log it if tokens live too short for the Lease, or for the kubelet without touches."""
        token, config = self._dependencies.source.best(), self._config
        if token is None or math.isinf(token.ttl_s):
            return
        longest_s = token.ttl_s * LEASE_TTL
        if config.lease_s > longest_s:
            log.warning(
                "lease_duration_too_long",
                token_ttl_s=token.ttl_s,
                lease_s=config.lease_s,
                at_most_s=round(longest_s, 1),
            )
        if config.touch:
            return
        slack_s = refresh_grid.slack_s(token.ttl_s, config.propagation_s)
        if slack_s <= 0:
            log.warning(
                "token_ttl_too_short",
                token_ttl_s=token.ttl_s,
                propagation_allowance_s=config.propagation_s,
                slack_s=round(slack_s, 1),
            )

    async def _log_unready(self) -> None:
        """Log once a minute what this replica still waits for, and which endpoints fail."""
        while True:
            await asyncio.sleep(REPORT_S)
            if why := self.readiness_problem():
                log.warning("not_ready", reason=why)
            for breaker in self._breakers():
                self._endpoint_log.report(breaker.stats())

    def _on_time_moved(self, move: ClockMove) -> None:
        """Discard what was derived from the previous estimate of the issuer's time."""
        now_at, now_s = self._dependencies.clock.monotonic(), self.sessions.now_s()
        self.exposure.time_moved(now_s - (now_at - move.since_at), move.moved_s)
        self.sessions.clear_context()
        if not move.is_first:
            log.warning("issuer_time_moved", moved_s=round(move.moved_s, 1))
        self._time_moved.set()

    async def _replan_on_time_move(self) -> None:
        """Plan each session again whenever the estimate of the issuer's time has moved."""
        while True:
            await self._time_moved.wait()
            self._time_moved.clear()
            self.sessions.records.clear()  # the records were made with the old time
            await self.resync.plan_all("issuer_time_moved", news=Trigger.REQUESTED)

    def _fleet_life_s(self) -> float | None:
        """Return the shortest remaining life of the sessions' tokens, by the latest snapshot."""
        latest = self.status_collector.latest
        if latest is None or latest.fleet.remaining_min_s is None:
            return None
        return latest.fleet.remaining_min_s - (
            self._dependencies.clock.monotonic() - latest.taken_at
        )

    def _on_better_token(self) -> None:
        """Wake what waits for a token, or for a better one than its own, most urgent first.

        This does not need an outage: one failed request, or a cache that returned the same token
        again, is enough.
        """
        self.queue.wake_blocked(error_policy.ISSUER)

    def _wake_blocked(self, endpoint: str) -> None:
        woken = self.queue.wake_blocked(endpoint)
        self._endpoint_log.recovered(endpoint, woken)

    def _on_authorized(self, namespace: str | None) -> None:
        """Wake what waits for a permission in a namespace (None: anywhere)."""
        self.informers.retry_forbidden(namespace)
        woken = self.queue.wake_blocked(
            error_policy.PERMISSIONS,
            only=lambda key: namespace is None or key.namespace == namespace,
        )
        log.info("authorized_again", namespace=namespace, sessions_woken=woken)

    def _breakers(self) -> tuple[CircuitBreaker, ...]:
        dependencies = self._dependencies
        return dependencies.kube_breaker, dependencies.platform_breaker, dependencies.issuer_breaker

    def _make_informers(self, namespace: str | None) -> InformerPair:
        stores, events = self._stores, self.event_handler
        pods = self._reflector(
            stores.pod_resource,
            stores.pods,
            namespace,
            LIVE_PODS,
            ObjectHandlers(events.pod_changed),
        )
        secrets = self._reflector(
            stores.secret_resource,
            stores.secrets,
            namespace,
            "",
            ObjectHandlers(events.secret_changed, events.secret_seen),
        )
        return InformerPair(pods, secrets)

    def _reflector(
        self,
        resource: ApiResource[ObjectMeta],
        store: Store,
        namespace: str | None,
        fields: str,
        handlers: ObjectHandlers,
    ) -> Reflector:
        return Reflector(
            self._kube,
            resource,
            ListOptions(namespace, self._config.names.selector(), fields),
            store,
            clock=self._runtime.clock,
            random=self._runtime.random,
            breaker=self._dependencies.kube_breaker,
            handlers=handlers,
        )


def _ignore(_namespaces: Iterable[str]) -> None:
    """Ignore namespaces that the platform names: all, or the configured ones, are watched."""


def _last_error(error: str) -> str:
    return f"; the last error was: {error}" if error else ""


def _condition(stats: BreakerStats) -> str:
    if stats.down:
        return "is unreachable"
    return f"refuses {refused_part(stats.last_reason, stats.last_status)}"
