"""All parts of the main job joined: stores fed by reflectors, workers fed by the queue."""

import asyncio
import math
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import structlog

from reconciler.controller.decide import error_policy, refresh_grid
from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.decide.sharding import of_shard
from reconciler.controller.events.recorder import EventRecorder
from reconciler.controller.namespaces.discovery import NamespaceDiscovery, NamespaceUsage
from reconciler.controller.namespaces.informers import InformerPair, NamespaceInformers
from reconciler.controller.ports import Endpoints, Ports
from reconciler.controller.reconcile.actions import SessionActions
from reconciler.controller.reconcile.bulkhead_shell import PLATFORM, BulkheadShell
from reconciler.controller.reconcile.pod_toucher import PodToucher
from reconciler.controller.reconcile.reconciler import Reconciler
from reconciler.controller.reconcile.run import ReconcileStats
from reconciler.controller.reconcile.secret_writer import SecretWriter
from reconciler.controller.reconcile.session_lookup import SessionLookup
from reconciler.controller.reconcile.worker import Workers
from reconciler.controller.runtime import ControllerConfig, LogDedup, Runtime, Stores
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.controller.status.collector import ControllerParts, StatusCollector
from reconciler.controller.status.endpoint_log import REPORT_S, EndpointLog
from reconciler.controller.status.exposure import TOUCHED_S, EstimatedExposure
from reconciler.controller.status.health import Health
from reconciler.controller.status.history import BlockedSessions, RunHistory
from reconciler.controller.status.replica_report import ReplicaReport
from reconciler.controller.status.trend import Trend
from reconciler.controller.term import Term
from reconciler.controller.triggers.event_handler import EventHandler
from reconciler.controller.triggers.replan import Replan
from reconciler.controller.triggers.resync import LEADER_START, Resync
from reconciler.controller.triggers.revocation_check import RevocationCheck
from reconciler.controller.triggers.startup import StartupProgress
from reconciler.errors import IssuerError
from reconciler.informer.reflector import ObjectHandlers, Reflector
from reconciler.informer.store import Store
from reconciler.kube.api import ApiResource, ListOptions, ObjectMeta
from reconciler.kube.authorization import AuthorizerMemory
from reconciler.kube.authorized import AuthorizedKube
from reconciler.kube.decoding import metadata_resource
from reconciler.naming import LIVE_PODS, SessionKey
from reconciler.platform.models import namespace_of
from reconciler.telemetry.trace import Tracer
from reconciler.tokens.issuer_time import ClockMove
from reconciler.workqueue.queue import WorkQueue

log = structlog.get_logger()

FRESH_S = 2.0
"""Age of the first lists up to which they need no second one when this replica begins to lead."""

LEASE_TTL = 1 / 6
"""Longest lease, in lives of a token: a takeover must fit into the slack several times."""


class Controller:
    """One replica's main job: it makes the parts, joins them, and runs them."""

    def __init__(self, ports: Ports, endpoints: Endpoints, config: ControllerConfig) -> None:
        self._ports = ports
        self.endpoints = endpoints
        self._config = config
        clock = ports.clock
        tracer = ports.tracer or Tracer(clock, Random())
        self._runtime = Runtime(clock, ports.random, LogDedup(clock), tracer)
        self._kube = AuthorizedKube(ports.kube, AuthorizerMemory(self._on_authorized), clock)
        self._stores = self._make_stores()
        self.pods, self.secrets = self._stores.pods, self._stores.secrets
        self.queue: WorkQueue[SessionKey] = WorkQueue(clock)
        self._endpoint_log = EndpointLog(clock, endpoints.breakers)
        self.startup = StartupProgress(clock)
        self.confirmations = self._make_confirmations()
        self.sessions = self._make_sessions()
        self.touches = PodTouches() if config.touch else None
        self.event_handler = EventHandler(
            self.sessions, self.queue, self.touches, self.startup, clock
        )
        usage = self._make_usage()
        all_namespaces = () if config.finds_namespaces else (None,)
        self.informers = NamespaceInformers(
            config.namespaces or all_namespaces, make=self._make_informers, evict=usage.evict
        )
        self.discovery = self._make_discovery(usage) if config.finds_namespaces else None
        self._on_namespaces = self.discovery.add if self.discovery is not None else _ignore
        session_lookup = SessionLookup(
            endpoints.platform,
            self.confirmations,
            self.sessions,
            self._runtime.log_dedup,
            self._on_namespaces,
        )
        self.history = RunHistory(clock)
        self.exposure = EstimatedExposure(config.propagation_s)
        self.trend = Trend()
        self.blocked_sessions = BlockedSessions()
        self.events = self._make_event_recorder()
        self.bulkhead = BulkheadShell(
            self.queue,
            self._runtime,
            workers=config.workers,
            most={PLATFORM: config.platform_parallel},
        )
        self.stats = ReconcileStats({}, {})
        self._workers = self._make_workers(session_lookup)
        self.resync = self._make_resync()
        self.status_collector = StatusCollector(
            self._collect_parts(),
            self._runtime,
            delivery_s=TOUCHED_S if config.touch else config.propagation_s,
        )
        self.health = self._make_health()
        self._report = self._make_report()
        self._term = self._make_term(self._make_revocation_check(session_lookup))
        self._listen()
        self._replan = self._make_replan()

    def _make_stores(self) -> Stores:
        names, shard = self._config.names, self._config.shard
        return Stores(
            pods=Store("pods"),
            secrets=Store("secrets"),
            pod_resource=of_shard(metadata_resource("pods", names), shard),
            secret_resource=of_shard(
                metadata_resource("secrets", names, on_data=self._warn_of_value), shard
            ),
        )

    def _make_confirmations(self) -> ConfirmationCache:
        config = self._config
        return ConfirmationCache(
            self._runtime.clock,
            config.names,
            self.endpoints.confirmation_mac,
            lambda session: namespace_of(session, config.mode),
        )

    def _make_sessions(self) -> SessionStateReader:
        return SessionStateReader(
            stores=self._stores,
            confirmations=self.confirmations,
            source=self.endpoints.source,
            issuer_time=self._ports.issuer_time,
            fence=self._ports.fence,
            config=self._config,
            clock=self._runtime.clock,
        )

    def _make_usage(self) -> NamespaceUsage:
        return NamespaceUsage(
            stores=self._stores,
            confirmations=self.confirmations,
            sessions=self.sessions,
            queue=self.queue,
            touches=self.touches,
        )

    def _make_discovery(self, usage: NamespaceUsage) -> NamespaceDiscovery:
        return NamespaceDiscovery(
            platform=self.endpoints.platform,
            informers=self.informers,
            usage=usage,
            config=self._config,
            runtime=self._runtime,
        )

    def _make_event_recorder(self) -> EventRecorder:
        return EventRecorder(
            kube=self._kube,
            fence=self._ports.fence,
            breaker=self.endpoints.kube_breaker,
            clock=self._runtime.clock,
            log_dedup=self._runtime.log_dedup,
            component=self._config.names.field_manager,
            timeout_s=self._config.request_limit_s,
        )

    def _make_workers(self, session_lookup: SessionLookup) -> Workers:
        return Workers(
            queue=self.queue,
            reconciler=self._make_reconciler(session_lookup),
            sessions=self.sessions,
            bulkhead=self.bulkhead,
            observers=(
                self.startup.observe,
                self.history.observe,
                self.exposure.observe,
                self.trend.observe,
                self.blocked_sessions.observe,
                self.events.observe,
                *self._ports.observers,
            ),
            stats=self.stats,
            runtime=self._runtime,
        )

    def _make_reconciler(self, session_lookup: SessionLookup) -> Reconciler:
        ports, endpoints = self._ports, self.endpoints
        writer = SecretWriter(
            kube=self._kube,
            stores=self._stores,
            fence=ports.fence,
            confirmation_mac=endpoints.confirmation_mac,
            config=self._config,
            on_rewound=self.relist_all,
        )
        actions = SessionActions(
            sessions=self.sessions,
            writer=writer,
            source=endpoints.source,
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
            kube_breaker=endpoints.kube_breaker,
            runtime=self._runtime,
        )

    def _make_resync(self) -> Resync:
        return Resync(
            platform=self.endpoints.platform,
            confirmations=self.confirmations,
            sessions=self.sessions,
            event_handler=self.event_handler,
            startup=self.startup,
            on_namespaces=self._on_namespaces,
            config=self._config,
            runtime=self._runtime,
        )

    def _make_revocation_check(self, session_lookup: SessionLookup) -> RevocationCheck:
        return RevocationCheck(
            secrets=self.secrets,
            confirmations=self.confirmations,
            sessions=self.sessions,
            session_lookup=session_lookup,
            event_handler=self.event_handler,
            config=self._config,
            clock=self._runtime.clock,
        )

    def _collect_parts(self) -> ControllerParts:
        ports, endpoints = self._ports, self.endpoints
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
            trend=self.trend,
            source=endpoints.source,
            issuer_time=ports.issuer_time,
            fence=ports.fence,
            breakers=endpoints.breakers,
            platform=endpoints.platform,
            shard=self._config.shard,
        )

    def _make_health(self) -> Health:
        endpoints = self.endpoints
        return Health(
            informers=self.informers,
            discovery=self.discovery,
            source=endpoints.source,
            kube_breaker=endpoints.kube_breaker,
            platform_breaker=endpoints.platform_breaker,
            issuer_breaker=endpoints.issuer_breaker,
        )

    def _make_report(self) -> ReplicaReport | None:
        if self._ports.reporter is None:
            return None
        return ReplicaReport(
            self._ports.reporter,
            breaker=self.endpoints.kube_breaker,
            clock=self._runtime.clock,
            log_dedup=self._runtime.log_dedup,
            problems=self.health.problems,
        )

    def _make_term(self, revocation_check: RevocationCheck) -> Term:
        return Term(
            self._ports.leadership,
            queue=self.queue,
            informers=self.informers,
            confirmations=self.confirmations,
            sessions=self.sessions,
            touches=self.touches,
            resync=self.resync,
            revocation_check=revocation_check,
        )

    def _make_replan(self) -> Replan:
        return Replan(
            self.sessions,
            self.resync,
            source=self.endpoints.source,
            issuer_time=self._ports.issuer_time,
            mac_key=self.endpoints.mac_key,
        )

    def _listen(self) -> None:
        """Subscribe to the issuer's time, to better tokens and to endpoints that recover."""
        self._ports.issuer_time.on_moved(self._on_time_moved)
        self.endpoints.source.on_better(self._on_better_token)
        for breaker in self.endpoints.breakers:
            breaker.on_recovery(partial(self._wake_blocked, breaker.name))

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then finish what is in flight; call it once.

        Order: sync the stores, then stand by; during each term lead, with the startup resync first.
        At the end no more keys are taken, those in flight end (bounded), the Lease is released, and
        only then the watches are closed.
        Raises: ExceptionGroup for a defect of ours; no failure of a peer ends it.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part) for part in self._tasks()]
                await stop.wait()
                if not await self.queue.drain(self._config.drain_s):
                    # A write may still arrive, and the Lease must be ours until then.
                    log.warning("drain_timeout", in_flight=self.queue.stats().schedule.running)
                else:
                    await self._ports.leadership.release()
                for task in tasks:
                    task.cancel()
        finally:
            await self.endpoints.source.close()

    def _warn_of_value(self) -> None:
        """Log that a Secret came with its data, which was not requested.

        The data was not decoded, but its bytes went through this process.
        """
        if self._runtime.log_dedup.should_log("secret_value_received"):
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
        if self._runtime.log_dedup.should_log("history_rewound"):
            log.warning("history_rewound", namespace=namespace, error=why)
        for reflector in self.informers.reflectors:
            reflector.distrust()

    @property
    def writes_refused(self) -> int:
        """Number of writes that the fence has blocked since the start."""
        return self._ports.fence.fenced_total

    def _tasks(self) -> list[Coroutine[Any, Any, None]]:
        ports, endpoints = self._ports, self.endpoints
        return [
            self.informers.run(),
            *([self.discovery.run()] if self.discovery is not None else []),
            *(self._workers.run() for _ in range(self.bulkhead.runs_at_most)),
            *(part() for part in (*endpoints.background_tasks, *ports.background_tasks)),
            *([self._report.run()] if self._report is not None else []),
            endpoints.kube_breaker.probe_while_down(ports.kube.ready),
            endpoints.platform_breaker.probe_while_down(endpoints.platform.probe),
            endpoints.platform_breaker.probe_while_refused(endpoints.platform.probe),
            self._sync_and_lead(),
            self._term.log_ends(ports.fence),
            self._log_unready(),
            self._replan.run(),
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
            await self.endpoints.source.get(min_remaining=0.0)
        if not self.health.has_had_token:
            # The shortest remaining life decides how often the issuer is asked from now on.
            await self.status_collector.update(max_age_s=0.0)
        self._config.on_synced()
        self._warn_of_short_life()
        self.event_handler.open()
        leadership, synced_at = self._ports.leadership, self._ports.clock.monotonic()
        if not leadership.leads:
            await self.resync.plan_all(LEADER_START)
        while True:
            await leadership.wait_started()
            fresh = self._ports.clock.monotonic() - synced_at < FRESH_S
            await self._term.run(relist=not fresh)

    def _warn_of_short_life(self) -> None:
        """Log it if tokens live too short for the Lease, or for the kubelet without touches."""
        token, config = self.endpoints.source.best(), self._config
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
            if why := self.health.readiness_problem():
                log.warning("not_ready", reason=why)
            for breaker in self.endpoints.breakers:
                self._endpoint_log.report(breaker.stats())

    def _on_time_moved(self, move: ClockMove) -> None:
        now_at, now_s = self._ports.clock.monotonic(), self.sessions.now_s()
        self.exposure.time_moved(now_s - (now_at - move.since_at), move.moved_s)

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
            breaker=self.endpoints.kube_breaker,
            handlers=handlers,
        )


def _ignore(_namespaces: Iterable[str]) -> None:
    """Ignore namespaces that the platform names: all, or the configured ones, are watched."""
