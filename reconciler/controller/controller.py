"""All parts of the main job joined: stores fed by reflectors, workers fed by the queue."""

import asyncio
import math
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import structlog

from reconciler.controller.decide import refresh_plan, write_errors
from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.events.recorder import EventRecorder
from reconciler.controller.namespaces.discovery import NamespaceDiscovery, NamespaceUsage
from reconciler.controller.namespaces.informers import NamespaceInformers
from reconciler.controller.ports import Endpoints, Ports
from reconciler.controller.reconcile.bulkhead_shell import BulkheadShell
from reconciler.controller.reconcile.denied_retries import DeniedRetries
from reconciler.controller.reconcile.pod_toucher import PodToucher
from reconciler.controller.reconcile.reconciler import Reconciler, SessionActions
from reconciler.controller.reconcile.run import ReconcileStats
from reconciler.controller.reconcile.secret_writer import SecretWriter
from reconciler.controller.reconcile.session_lookup import SessionLookup
from reconciler.controller.reconcile.worker import Workers
from reconciler.controller.runtime import ControllerConfig, LogDedup, Runtime, make_stores
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.controller.status.collector import ControllerParts, StatusCollector
from reconciler.controller.status.endpoint_log import REPORT_S, EndpointLog
from reconciler.controller.status.exposure import EstimatedExposure
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
from reconciler.kube.authorization import AuthorizerMemory
from reconciler.kube.authorized import AuthorizedKube
from reconciler.naming import SessionKey
from reconciler.platform.models import namespace_of
from reconciler.telemetry.trace import Tracer
from reconciler.tokens.issuer_time import ClockMove
from reconciler.workqueue.queue import WorkQueue

log = structlog.get_logger()

FRESH_S = 2.0
"""Age of the first lists up to which they need no second one when this replica begins to lead."""

STANDBY_AFTER_S = 1.0
"""A replica that leads this soon after its first lists plans all sessions in its startup resync,
and not before: a free Lease is acquired within 0.1 s. Of a refresh that is 0.03 ms."""

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
        self._runtime = runtime = Runtime(config, clock, ports.random, LogDedup(clock), tracer)
        self._kube = AuthorizedKube(ports.kube, AuthorizerMemory(self._on_authorized), clock)
        self._stores = make_stores(runtime)
        self.pods, self.secrets = self._stores.pods, self._stores.secrets
        self.queue: WorkQueue[SessionKey] = WorkQueue(clock)
        self._endpoint_log = EndpointLog(clock, endpoints.breakers)
        self.startup = StartupProgress(clock)
        self.confirmations = ConfirmationCache(
            clock,
            endpoints.confirmation_mac,
            lambda session: namespace_of(session, config.mode),
        )
        self.sessions = SessionStateReader(
            stores=self._stores,
            confirmations=self.confirmations,
            source=endpoints.source,
            issuer_time=ports.issuer_time,
            fence=ports.fence,
            runtime=runtime,
        )
        self.touches = PodTouches(enabled=config.touch)
        self._denied_retries = DeniedRetries(self.sessions, self.touches, self.queue, clock)
        self.event_handler = EventHandler(
            self.sessions, self.queue, self.touches, self.startup, clock
        )
        self.informers, self.discovery = self._make_informers()
        on_namespaces = self.discovery.add if self.discovery is not None else _ignore
        session_lookup = SessionLookup(
            endpoints.platform, self.confirmations, self.sessions, runtime.log_dedup, on_namespaces
        )
        self.history = RunHistory(clock)
        self.exposure = EstimatedExposure(config.propagation_s)
        self.trend = Trend()
        self.blocked_sessions = BlockedSessions()
        self.events = EventRecorder(
            kube=self._kube, fence=ports.fence, breaker=endpoints.kube_breaker, runtime=runtime
        )
        self.bulkhead = BulkheadShell(self.queue, runtime)
        self.stats = ReconcileStats({}, {})
        self._workers = self._make_workers(session_lookup)
        self.resync = Resync(
            platform=endpoints.platform,
            confirmations=self.confirmations,
            sessions=self.sessions,
            event_handler=self.event_handler,
            startup=self.startup,
            on_namespaces=on_namespaces,
            runtime=runtime,
        )
        self.status_collector = StatusCollector(self._collect_parts(), runtime)
        self.health = Health(
            informers=self.informers,
            discovery=self.discovery,
            source=endpoints.source,
            kube_breaker=endpoints.kube_breaker,
            platform_breaker=endpoints.platform_breaker,
            issuer_breaker=endpoints.issuer_breaker,
        )
        self._report: ReplicaReport | None = None
        if ports.reporter is not None:
            self._report = ReplicaReport(
                ports.reporter,
                breaker=endpoints.kube_breaker,
                problems=self.health.problems,
                runtime=runtime,
            )
        self._term = self._make_term(session_lookup)
        self._listen()
        self._replan = Replan(
            self.sessions,
            self.resync,
            source=endpoints.source,
            issuer_time=ports.issuer_time,
            mac_key=endpoints.mac_key,
        )

    def _make_informers(self) -> tuple[NamespaceInformers, NamespaceDiscovery | None]:
        endpoints, runtime = self.endpoints, self._runtime
        usage = NamespaceUsage(
            stores=self._stores,
            confirmations=self.confirmations,
            sessions=self.sessions,
            queue=self.queue,
            touches=self.touches,
        )
        informers = NamespaceInformers(
            kube=self._kube,
            breaker=endpoints.kube_breaker,
            stores=self._stores,
            event_handler=self.event_handler,
            evict=usage.evict,
            runtime=runtime,
        )
        discovery = None
        if runtime.config.finds_namespaces:
            discovery = NamespaceDiscovery(
                platform=endpoints.platform, informers=informers, usage=usage, runtime=runtime
            )
        return informers, discovery

    def _make_workers(self, session_lookup: SessionLookup) -> Workers:
        return Workers(
            queue=self.queue,
            reconciler=self._make_reconciler(session_lookup),
            sessions=self.sessions,
            denied_retries=self._denied_retries,
            bulkhead=self.bulkhead,
            # Those of the ports come first: they decide whether a run's trace is exported.
            observers=(
                *self._ports.observers,
                self.startup.observe,
                self.history.observe,
                self.exposure.observe,
                self.trend.observe,
                self.blocked_sessions.observe,
                self.events.observe,
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
            runtime=self._runtime,
            on_rewound=self.informers.distrust,
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
        toucher = PodToucher(
            self.touches,
            sessions=self.sessions,
            writer=writer,
            denied_retries=self._denied_retries,
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
            events=self.events,
            trend=self.trend,
            source=endpoints.source,
            issuer_time=ports.issuer_time,
            fence=ports.fence,
            breakers=endpoints.breakers,
            platform=endpoints.platform,
        )

    def _make_term(self, session_lookup: SessionLookup) -> Term:
        return Term(
            self._ports.leadership,
            queue=self.queue,
            informers=self.informers,
            confirmations=self.confirmations,
            sessions=self.sessions,
            touches=self.touches,
            resync=self.resync,
            revocation_check=RevocationCheck(
                secrets=self.secrets,
                confirmations=self.confirmations,
                sessions=self.sessions,
                session_lookup=session_lookup,
                event_handler=self.event_handler,
                runtime=self._runtime,
            ),
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
        with suppress(TimeoutError):
            async with asyncio.timeout(STANDBY_AFTER_S):
                await leadership.wait_started()
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
        slack_s = refresh_plan.slack_s(token.ttl_s, config.propagation_s)
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
        self.queue.wake_blocked(write_errors.ISSUER)

    def _wake_blocked(self, endpoint: str) -> None:
        woken = self.queue.wake_blocked(endpoint)
        self._endpoint_log.recovered(endpoint, woken)

    def _on_authorized(self, namespace: str | None) -> None:
        """Wake what waits for a permission in a namespace (None: anywhere)."""
        self.informers.retry_forbidden(namespace)
        woken = self.queue.wake_blocked(
            write_errors.PERMISSIONS,
            only=lambda key: namespace is None or key.namespace == namespace,
        )
        log.info("authorized_again", namespace=namespace, sessions_woken=woken)


def _ignore(_namespaces: Iterable[str]) -> None:
    """Ignore namespaces that the platform names: all, or the configured ones, are watched."""
