"""The composition root: settings become parts, one TaskGroup runs them, signals end it."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random
from uuid import uuid4

import structlog

from reconciler import __version__
from reconciler.app import memory
from reconciler.app.election import Election
from reconciler.app.telemetry import MetricsEndpoint, Telemetry, open_telemetry
from reconciler.clock import Clock, SystemClock
from reconciler.controller.compose import compose
from reconciler.controller.controller import Controller
from reconciler.controller.decide.bulkhead import max_runs
from reconciler.controller.ports import IssuerPort, Ports
from reconciler.controller.runtime import ControllerConfig
from reconciler.controller.status.replica_report import Reporter
from reconciler.factories import client_secret, static_source, static_token, token_endpoint
from reconciler.kube.auth.child_processes import OrphanReaper
from reconciler.kube.auth.credentials import find_credentials
from reconciler.kube.client import HttpKube
from reconciler.leadership.lease import Identity
from reconciler.net.client_session import Trust, open_session
from reconciler.platform.client import PlatformClient
from reconciler.preflight import environment
from reconciler.preflight.wait_for_credentials import wait_for_files
from reconciler.settings import Settings
from reconciler.statuspage.identity import Links, PageIdentity, cluster_name
from reconciler.statuspage.server import mount
from reconciler.telemetry.http_server import serve_health
from reconciler.telemetry.log_setup import configure_logs
from reconciler.telemetry.stderr_writer import StderrWriter
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.static import StaticSource

log = structlog.get_logger()

PROBES = 4
"""Connections for probes, Events and single reads, in addition to those of the runs."""


def run(settings: Settings, outlet: StderrWriter) -> None:
    """Run the controller until a signal; raises `SettingsError` for what only a person can fix.

    Args:
        outlet: The writer to standard error, where the log goes.
    """
    configure_logs(settings.log_level, settings.log_format)
    gc.freeze()  # what was imported stays
    gc.enable()
    memory.map_large_blocks()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run_until_signal(settings, outlet))


async def run_until_signal(settings: Settings, outlet: StderrWriter) -> None:
    """Run the controller on the present loop, whose SIGTERM and SIGINT handlers it sets.

    Raises: as `run`.
    """
    stop = asyncio.Event()
    _stop_on_signals(stop)
    if not await wait_for_files(settings, stop):
        return
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        telemetry = await stack.enter_async_context(open_telemetry(clock, replica=settings.replica))
        controller = await stack.enter_async_context(build(settings, clock, telemetry))
        metrics = MetricsEndpoint(
            telemetry.metrics_registry,
            controller.status_collector,
            controller.events.stats,
            clock,
            per_session=settings.metrics_per_session,
            log_lines_dropped=lambda: outlet.dropped_total,
        )
        stack.callback(metrics.close)
        page = mount(
            controller.status_collector,
            not_ready=controller.health.readiness_problem,
            identity=_identity(settings),
            clock=clock,
        )
        await stack.enter_async_context(
            serve_health(
                settings.listen,
                live=controller.health.liveness_problem,
                ready=controller.health.readiness_problem,
                scrape=metrics.scrape,
                mounts=(page,) if settings.status_page else (),
            )
        )
        log.info(
            "started",
            version=__version__,
            replica=settings.replica,
            **environment.described(settings),
        )
        environment.warn(settings)
        if os.getpid() == 1:
            reaping = asyncio.create_task(OrphanReaper().run(), name="reap_orphans")
            stack.callback(reaping.cancel)
        await controller.run(stop)
    log.info("stopped", writes_refused=controller.writes_refused)


@asynccontextmanager
async def build(
    settings: Settings, clock: Clock, telemetry: Telemetry
) -> AsyncIterator[Controller]:
    """Make the controller and its connections, which close with the context."""
    random, issuer_time = Random(), IssuerTime(clock)
    me = Identity(settings.replica, settings.pod_uid, uuid4().hex[:8])
    secret = client_secret(settings) if settings.is_oidc else static_token(settings)
    trust = Trust()
    async with AsyncExitStack() as stack:
        # Before the API server: a wrong setting is named first, wherever it runs.
        tokens = await _open_tokens(stack, settings, telemetry, clock, trust)
        election = Election(settings, me, clock, _loop_factory())
        background_tasks = election.background_tasks
        if settings.is_oidc:
            background_tasks += (partial(environment.watch_clock, issuer_time, clock),)
        session = await stack.enter_async_context(
            open_session(settings.api_server_url, clock, what="platform", trust=trust)
        )
        kube = await _open_kube(stack, settings, me, issuer_time, clock)
        ports = Ports(
            kube=kube,
            tokens=tokens,
            secret=secret.read(),
            reread_secret=secret.read if settings.is_oidc else None,
            connect_platform=partial(
                PlatformClient,
                session,
                settings.api_server_url,
                clock=clock,
                limit_s=settings.platform_limit_s,
                parallel=settings.platform_share,
            ),
            issuer_time=issuer_time,
            clock=clock,
            random=random,
            fence=election.fence,
            leadership=election.leadership,
            reporter=await _make_reporter(stack, settings, me, kube, clock),
            background_tasks=background_tasks,
            tracer=telemetry.tracer,
            observers=telemetry.observers,
        )
        controller = compose(ports, _config(settings))
        await stack.enter_async_context(
            election.contend(controller.health, controller.informers.distrust)
        )
        yield controller


async def _open_tokens(
    stack: AsyncExitStack,
    settings: Settings,
    telemetry: Telemetry,
    clock: Clock,
    trust: Trust,
) -> IssuerPort | StaticSource:
    """Open the connection to the issuer, or read the static token."""
    if not settings.is_oidc:
        return static_source(settings, clock)
    session = await stack.enter_async_context(
        open_session(settings.token_url(), clock, what="issuer", trust=trust)
    )
    endpoint = token_endpoint(settings, session, clock)
    return IssuerPort(
        telemetry.measure_token_request(endpoint.request_token),
        refresh_on_key_rotation=settings.refresh_on_key_rotation,
    )


async def _open_kube(
    stack: AsyncExitStack,
    settings: Settings,
    me: Identity,
    issuer_time: IssuerTime,
    clock: Clock,
) -> HttpKube:
    """Open the connections to the API server, as the account for the projects' namespaces."""
    credentials = find_credentials(
        settings.kubeconfig,
        clock,
        token_file=settings.project_kube_token_file,
        ignored=environment.warn_of_ignored,
    )
    kube = HttpKube(
        credentials,
        settings.names(),
        connections=max_runs(settings.workers) + PROBES,
        replica=str(me),
        on_date=issuer_time.observe_api_server,
    )
    return await stack.enter_async_context(kube)


async def _make_reporter(
    stack: AsyncExitStack, settings: Settings, me: Identity, kube: HttpKube, clock: Clock
) -> Reporter:
    """Report as our own account: that of the projects may have no permission in our namespace."""
    own = kube
    if settings.project_kube_token_file is not None:
        own = await stack.enter_async_context(
            HttpKube(
                find_credentials(settings.kubeconfig, clock),
                settings.names(),
                connections=1,
                replica=f"{me} report",
                peer="",
            )
        )
    return Reporter(
        namespace=settings.namespace,
        lease=settings.lease,
        component=settings.names().field_manager,
        replica=settings.replica,
        kube=own,
        lasting=environment.ignored_variables(),
    )


def _config(settings: Settings) -> ControllerConfig:
    return ControllerConfig(
        names=settings.names(),
        namespaces=tuple(settings.listed_namespaces),
        finds_namespaces=settings.finds_namespaces,
        max_namespaces=settings.max_namespaces,
        mode=settings.platform_mode,
        workers=settings.workers,
        propagation_s=settings.propagation_allowance_s,
        startup=settings.startup_resync,
        resync_s=settings.resync_s,
        touch=settings.touch,
        request_limit_s=settings.request_limit_s,
        platform_parallel=settings.platform_share,
        drain_s=settings.drain_s,
        lease_s=float(settings.lease_duration_s) if settings.leader_elect else 0.0,
        shard=settings.shard,
        on_synced=memory.freeze,
    )


def _identity(settings: Settings) -> PageIdentity:
    return PageIdentity(
        replica=settings.replica,
        namespace=settings.namespace,
        cluster=cluster_name(os.environ),
        port=int(settings.listen.rpartition(":")[2]),
        ignored=tuple(environment.ignored_variables().values()),
        links=Links(
            dashboard=settings.dashboard_url or "",
            runbooks=settings.runbook_url or "",
            traces=settings.trace_url or "",
        ),
    )


def _stop_on_signals(stop: asyncio.Event) -> None:
    """Drain at the first SIGTERM or SIGINT; at the second, end now."""

    def on_signal() -> None:
        if stop.is_set():
            sys.exit(128 + signal.SIGTERM)
        log.info("stopping")
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Take uvloop where it is installed: a third less CPU a request."""
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop
