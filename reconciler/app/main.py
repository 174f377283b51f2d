"""The composition root: settings become parts, one TaskGroup runs them, signals end it."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random
from typing import Any
from uuid import uuid4

import structlog

from reconciler import __version__
from reconciler.app.election import Election
from reconciler.app.orphan_reaper import OrphanReaper
from reconciler.app.telemetry import Telemetry, open_telemetry
from reconciler.clock import LONG_AGO, Clock, Instant, SystemClock
from reconciler.controller.controller import Controller, Dependencies
from reconciler.controller.decide.bulkhead import max_runs
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.runtime import ControllerConfig
from reconciler.controller.state.mac_key import MacKeyFile
from reconciler.controller.status.replica_report import ReplicaReport, Reporter
from reconciler.factories import client_secret, static_source, static_token, token_endpoint
from reconciler.kube.auth.credentials import find_credentials
from reconciler.kube.client import HttpKube
from reconciler.leadership.lease import Identity
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.net.client_session import open_session
from reconciler.platform.client import Bearer, PlatformClient
from reconciler.preflight import environment
from reconciler.preflight.wait_for_credentials import wait_for_files
from reconciler.settings import Settings
from reconciler.statuspage.server import mount
from reconciler.telemetry.http_server import serve_health
from reconciler.telemetry.log_setup import configure_logs
from reconciler.telemetry.stderr_writer import StderrWriter
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.source import OidcSource, TokenSource
from reconciler.tokens.static import StaticSource
from reconciler.tokens.token import Token

log = structlog.get_logger()

Task = Callable[[], Coroutine[Any, Any, None]]
"""What runs in the controller's TaskGroup."""

BEARER_REMAINING = 0.2
"""Least remaining life, as a fraction, of the token that we show the platform."""

PROBES = 4
"""Connections for probes, Events and single reads, in addition to those of the runs."""

FORCE_S = 10.0
"""Least time between two token requests that a refusal of the platform causes."""


def run(settings: Settings, outlet: StderrWriter) -> None:
    """Run the controller until a signal; raises `SettingsError` for what only a person can fix.

    Args:
        outlet: The writer to standard error, where the log goes.
    """
    configure_logs(settings.log_level, settings.log_format)
    outlet.on_drained = _warn_of_dropped
    gc.freeze()  # what was imported stays
    gc.enable()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(settings, outlet))


def _warn_of_dropped(lines: int) -> None:
    log.warning("log_lines_dropped", lines=lines, reason="no process read the log in time")


async def _run(settings: Settings, outlet: StderrWriter) -> None:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    if not await wait_for_files(settings, stop):
        return
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        telemetry = await stack.enter_async_context(
            open_telemetry(
                clock,
                replica=settings.replica,
                per_session=settings.metrics_per_session,
                log_lines_dropped=lambda: outlet.dropped_total,
            )
        )
        controller = await stack.enter_async_context(build(settings, clock, telemetry))
        telemetry.attach(controller)
        page = mount(
            controller.status_collector,
            not_ready=controller.readiness_problem,
            replica=settings.replica,
            clock=clock,
            ignored=tuple(environment.ignored_variables().values()),
        )
        await stack.enter_async_context(
            serve_health(
                settings.listen,
                live=controller.liveness_problem,
                ready=controller.readiness_problem,
                scrape=telemetry.scrape,
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
    random = Random()
    names = settings.names()
    me = Identity(settings.replica, settings.pod_uid, uuid4().hex[:8])
    breakers = [CircuitBreaker(name, clock, random) for name in ("kube", "platform", "issuer")]
    kube_breaker, platform_breaker, issuer_breaker = breakers
    issuer_time = IssuerTime(clock)
    key_of = client_secret if settings.is_oidc else static_token
    key_source = key_of(settings)
    secret = key_source.read()
    mac = ConfirmationMac(secret, clock.monotonic)

    async def confirm_again() -> None:
        await controller.rewrite_confirmations()

    async def keep_reporting() -> None:
        await report.run()

    async with AsyncExitStack() as stack:
        source, background_tasks = await _open_source(
            stack, settings, telemetry, issuer_time, issuer_breaker, clock, random
        )
        if settings.is_oidc:
            mac_key = MacKeyFile(key_source.read, secret, mac, confirm_again)
            background_tasks += (mac_key.run,)
        session = await stack.enter_async_context(
            open_session(settings.api_server_url, clock, what="platform")
        )
        platform = PlatformClient(
            session,
            settings.api_server_url,
            bearer=_bearer(source, clock),
            clock=clock,
            breaker=platform_breaker,
            limit_s=settings.platform_limit_s,
            parallel=settings.platform_share,
        )
        kube = await _open_kube(stack, settings, me, issuer_time, clock)
        election = Election(settings, me, clock, _loop_factory())
        background_tasks += election.background_tasks
        dependencies = Dependencies(
            kube=kube,
            platform=platform,
            platform_allowed=lambda: platform.allowed,
            source=source,
            issuer_time=issuer_time,
            clock=clock,
            random=random,
            fence=election.fence,
            leadership=election.leadership,
            kube_breaker=kube_breaker,
            platform_breaker=platform_breaker,
            issuer_breaker=issuer_breaker,
            background_tasks=(*background_tasks, keep_reporting),
            tracer=telemetry.tracer,
            observers=telemetry.observers,
        )
        controller = Controller(dependencies, _config(settings, mac))
        if isinstance(source, StaticSource):
            source.on_replaced = partial(_replaced, mac, controller)
        elif isinstance(source, OidcSource):
            source.on_replaced = lambda _: controller.plan_all()
        own = kube
        if settings.project_kube_token_file is not None:
            own = await _open_own_kube(stack, settings, me, clock)
        ignored = environment.ignored_variables()
        report = ReplicaReport(
            Reporter(settings.namespace, settings.lease, names.field_manager, settings.replica),
            kube=own,
            breaker=kube_breaker,
            clock=clock,
            log_dedup=controller.log_dedup,
            problems=lambda: controller.problems() | ignored,
        )
        await stack.enter_async_context(election.contend(controller))
        yield controller


async def _open_source(
    stack: AsyncExitStack,
    settings: Settings,
    telemetry: Telemetry,
    issuer_time: IssuerTime,
    breaker: CircuitBreaker,
    clock: Clock,
    random: Random,
) -> tuple[TokenSource, tuple[Task, ...]]:
    """Make the token source, and the tasks that it needs to have running."""
    if not settings.is_oidc:
        static = static_source(settings, clock)
        return static, (static.watch_file,)
    session = await stack.enter_async_context(
        open_session(settings.token_url(), clock, what="issuer")
    )
    endpoint = token_endpoint(settings, session, clock)
    source = OidcSource(
        telemetry.measure_token_request(endpoint.request_token),
        clock=clock,
        issuer_time=issuer_time,
        breaker=breaker,
        random=random,
        refresh_on_key_rotation=settings.refresh_on_key_rotation,
    )
    stack.push_async_callback(source.close)
    return source, (source.keep_standby, partial(environment.watch_clock, issuer_time, clock))


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


async def _open_own_kube(
    stack: AsyncExitStack, settings: Settings, me: Identity, clock: Clock
) -> HttpKube:
    """Open a connection as our own account: that of the projects may have no permission here."""
    credentials = find_credentials(settings.kubeconfig, clock)
    kube = HttpKube(credentials, settings.names(), connections=1, replica=f"{me} report", peer="")
    return await stack.enter_async_context(kube)


async def _replaced(mac: ConfirmationMac, controller: Controller, token: Token) -> None:
    """Take in another static token; without an issuer it is also the key of the confirmations."""
    mac.set_key(token.reveal())
    await controller.plan_all()


def _config(settings: Settings, mac: ConfirmationMac) -> ControllerConfig:
    return ControllerConfig(
        names=settings.names(),
        confirmation_mac=mac,
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
        on_synced=_freeze_memory,
    )


def _freeze_memory() -> None:
    """Collect garbage seldom: the first lists stay in memory, and a refresh makes no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _bearer(source: TokenSource, clock: Clock) -> Bearer:
    """Show the platform the token that the runners get; request another if that one is refused."""
    forced_at: Instant = LONG_AGO

    async def bearer(refused: bool) -> str:
        nonlocal forced_at
        if refused and clock.monotonic() - forced_at >= FORCE_S:
            forced_at = clock.monotonic()
            return (await source.refresh()).reveal()
        return (await source.get(min_remaining=BEARER_REMAINING)).reveal()

    return bearer


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
