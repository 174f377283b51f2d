"""Sends one real request to each endpoint that the controller depends on."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from urllib.parse import urlsplit

from reconciler.clock import Clock
from reconciler.controller.decide import refresh_plan
from reconciler.errors import (
    Forbidden,
    IssuerError,
    IssuerRefused,
    IssuerUnavailable,
    ProtocolError,
    RemoteError,
    SettingsError,
)
from reconciler.factories import static_source, token_endpoint
from reconciler.kube.auth.connection import Credentials
from reconciler.kube.auth.credentials import find_credentials
from reconciler.kube.client import HttpKube
from reconciler.naming import is_namespace
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.net.client_session import open_session, shown_origin, shown_url, unusable_bundles
from reconciler.platform.client import PlatformClient
from reconciler.platform.models import project_namespace
from reconciler.preflight import findings
from reconciler.preflight.access_review import PARALLEL, ask_all, list_mounts, list_sessions
from reconciler.preflight.environment import proxy_of
from reconciler.preflight.findings import Finding
from reconciler.preflight.permissions import EXCESS_PERMISSIONS, questions, used
from reconciler.preflight.shards import check_shards
from reconciler.preflight.wait_for_credentials import missing
from reconciler.settings import Settings, unknown_variables
from reconciler.telemetry.otlp_settings import read_otlp
from reconciler.tokens.date_clock import DateClock
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.refusals import refusal_hint
from reconciler.tokens.server_clock import PROOF
from reconciler.tokens.source import RETRY_S
from reconciler.tokens.token import Token
from reconciler.tokens.token_response import to_token

_NO_NAMESPACE = Finding(
    "rights", "FAIL", "no session namespace is known: the platform returned no project",
    "fix the platform first, or add a namespace to @platform in RECONCILER_NAMESPACES",
)  # fmt: skip


async def run_checks(
    settings: Settings, clock: Clock, *, kubeconfig: str = "", context: str = ""
) -> list[Finding]:
    """Return the findings, area by area. Nothing is written; the issuer gives a token, and logs it.

    Args:
        kubeconfig: Instead of the one in the settings.
        context: Of the kubeconfig, instead of its current one.

    Cost: seconds; each request has the controller's own time limit.
    """
    account = partial(
        find_credentials, kubeconfig or settings.kubeconfig, clock, context=context or None
    )
    issuer_time = IssuerTime(clock)
    if settings.finds_namespaces:
        issuer, token = await _issuer(settings, clock, issuer_time)
        platform, projects = await _platform(settings, clock, token)
        found = [project_namespace(project, settings.platform_mode) for project in projects]
        names = dict.fromkeys([*settings.listed_namespaces, *filter(is_namespace, found)])
        cluster = await _cluster(settings, account, tuple(names), issuer_time, clock)
    else:
        (cluster, (issuer, token)) = await asyncio.gather(
            _cluster(settings, account, tuple(settings.namespaces), issuer_time, clock),
            _issuer(settings, clock, issuer_time),
        )
        platform, _ = await _platform(settings, clock, token)
    return [
        _settings(settings),
        *misspelled(),
        *_telemetry(),
        *_bundles(),
        *cluster,
        *issuer,
        *_clocks(issuer_time),
        platform,
    ]


def _settings(settings: Settings) -> Finding:
    if problem := missing(settings):
        return Finding("settings", "FAIL", problem, "provide the file; `run` waits for it")
    where = ", ".join(settings.listed_namespaces) or "all namespaces"
    if settings.finds_namespaces:
        where = " and ".join([*settings.listed_namespaces, "the namespaces of every project"])
    if settings.shard.count > 1:
        where = f"shard {settings.shard} of the sessions in {where}"
    else:
        where = f"sessions in {where}"
    source = shown_url(settings.token_url()) if settings.is_oidc else "the settings"
    return Finding("settings", "OK", f"{where}; tokens from {source}")


def misspelled() -> list[Finding]:
    """Return a warning for each variable that is spelled like a setting and is none."""
    return [findings.of_unknown_variable(*each) for each in unknown_variables(os.environ).items()]


def _telemetry() -> list[Finding]:
    """Return a warning for each variable of OpenTelemetry that has no effect."""
    return [
        Finding(
            "settings",
            "WARN",
            f"{each.variable} {each.reason}",
            "correct or unset it; tokens are refreshed without it",
        )
        for each in read_otlp(os.environ).unserved
    ]


def _bundles() -> list[Finding]:
    """Return a warning for each CA bundle that is there and cannot be used."""
    return [
        Finding(
            "settings",
            "WARN",
            f"{bundle} is not used: {problem}",
            "put certificates in PEM into it, whole and not indented",
        )
        for bundle, problem in unusable_bundles().items()
    ]


async def _cluster(
    settings: Settings,
    account: Callable[..., Credentials],
    namespaces: tuple[str, ...],
    issuer_time: IssuerTime,
    clock: Clock,
) -> list[Finding]:
    """Ask the authorizer about each right: for sessions' namespaces and the Lease's, by account.

    The accounts may be the same. If all rights are granted, one list confirms them, and with shards
    the Leases show which of them has a leader.

    Args:
        namespaces: Of the sessions; none = all, or none known yet if the platform names them.
    """
    cluster_wide = not settings.namespaces
    in_sessions = bool(namespaces) or cluster_wide
    needed = used(touch=settings.touch, elects=settings.leader_elect, lease=settings.lease)
    wanted = questions(needed, namespaces=namespaces, own=settings.namespace)
    excess = questions(EXCESS_PERMISSIONS, namespaces=namespaces, own=settings.namespace)
    limit_s = settings.request_limit_s
    url = ""
    ignored: list[str] = []
    shards: list[Finding] = []
    server_time = DateClock(clock)

    def on_date(date: str | None) -> None:
        issuer_time.observe_api_server(date)
        server_time.observe_date(date)

    try:
        session_account = account(
            token_file=settings.project_kube_token_file, ignored=ignored.append
        )
        url = (await session_account.connection()).url
        async with _kube(session_account, settings, on_date) as kube:
            with suppress(Forbidden):  # the server responds, and denies this page
                await kube.ready(limit_s=limit_s)
            asks = [pair for pair in wanted if pair[0].where == "sessions" and in_sessions]
            answers = await ask_all(kube, asks, limit_s=limit_s)
            unneeded = await ask_all(kube, excess if in_sessions else [], limit_s=limit_s)
            granted = findings.of_rights(answers, cluster_wide=cluster_wide)
            # Without a right the list fails, and says no more than the finding does.
            lists = in_sessions and not findings.has_failed(granted)
            listed = [await list_sessions(kube, settings, namespaces)] if lists else []
            # If the metadata cannot be listed, the finding above says so.
            if lists and not findings.has_failed(listed):
                listed += findings.of_mounts(await list_mounts(kube, settings, namespaces))
        async with _kube(account(), settings, on_date) as kube:
            asks = [pair for pair in wanted if pair[0].where == "own"]
            answers += await ask_all(kube, asks, limit_s=limit_s)
            if settings.leader_elect and settings.shard.count > 1:
                shards = await check_shards(kube, settings, server_time.now_s)
    except (RemoteError, ProtocolError, SettingsError) as error:
        hint = "check KUBECONFIG, or in a pod its service account"
        return [findings.of_failure("cluster", error, hint=hint, **_proxy(url))]
    reached = Finding("cluster", "OK", f"the API server at {shown_origin(url)} is reachable")
    return [
        reached,
        *(_ignored_field(field) for field in ignored),
        *([] if in_sessions else [_NO_NAMESPACE]),
        *findings.of_rights(answers, cluster_wide=cluster_wide),
        *findings.of_excess(unneeded),
        *listed,
        *shards,
    ]


async def _issuer(
    settings: Settings, clock: Clock, issuer_time: IssuerTime
) -> tuple[list[Finding], Token | None]:
    """Request a token as the controller does, and observe the issuer's time.

    If a clock differs from it, request two more: three tokens in a row prove the issuer's time.
    """
    if missing(settings):  # the finding of the settings names what is missing
        message, remedy = "not checked: its credentials are missing", "fix the settings first"
        return [Finding("issuer", "FAIL", message, remedy)], None
    try:
        if not settings.is_oidc:
            token = await static_source(settings, clock).get(min_remaining=0.0)
            found = findings.of_static_token(token.ttl_s, _life(token, settings))
            return [*found, *_odd(token)], token
        async with open_session(settings.token_url(), clock) as session:
            endpoint = token_endpoint(settings, session, clock)
            response = await endpoint.request_token()
            now_s = issuer_time.observe(response.times, response.date_s)
            for _ in range(PROOF - 1):
                if not findings.of_clocks(issuer_time.named_offsets_s()):
                    break
                await asyncio.sleep(RETRY_S)
                response = await endpoint.request_token()
                now_s = issuer_time.observe(response.times, response.date_s)
        token = to_token(response, now_s=now_s)
    except (IssuerError, SettingsError) as error:
        failure = findings.of_failure(
            "issuer",
            error,
            hint=_issuer_hint(error, settings),
            **_proxy(settings.token_url() if settings.is_oidc else ""),
        )
        return [failure], None
    return [_life(token, settings), *_odd(token)], token


async def _platform(
    settings: Settings, clock: Clock, token: Token | None
) -> tuple[Finding, list[str]]:
    """Request a page of running sessions with the token that runners would get.

    Returns: The finding, and the projects if they determine the namespaces.
    """
    projects: list[str] = []
    if token is None:
        message, remedy = "not checked: there is no token", "fix the issuer first"
        return Finding("platform", "FAIL", message, remedy), projects
    url = settings.api_server_url

    async def bearer(_: bool) -> str:
        return token.reveal()

    async with open_session(url, clock) as session:
        client = PlatformClient(
            session, url, bearer, clock, CircuitBreaker("platform", clock, Random()),
            limit_s=settings.platform_limit_s,
        )  # fmt: skip
        try:
            await client.probe()
            if settings.finds_namespaces:
                projects = [project.id for project in (await client.list_projects()).items]
        except RemoteError as error:
            hint = (
                findings.hint_of_refused_token(is_oidc=settings.is_oidc)
                if error.status in (401, 403)
                else findings.hint_of_connection(
                    error.reason, variable="AMBIENT_API_SERVER_URL", shown=shown_url(url)
                )
                or f"check AMBIENT_API_SERVER_URL, which is {shown_url(url)}"
            )
            return findings.of_failure("platform", error, hint=hint, **_proxy(url)), projects
    return Finding(
        "platform", "OK", f"{shown_url(url)} accepts the token and lists sessions"
    ), projects


def _ignored_field(field: str) -> Finding:
    message = f"{field} of the kubeconfig has no effect here"
    return Finding("cluster", "WARN", message, "remove it, or use a context without it")


def _kube(
    account: Credentials, settings: Settings, on_date: Callable[[str | None], None]
) -> HttpKube:
    return HttpKube(account, settings.names(), connections=PARALLEL, on_date=on_date)


def _life(token: Token, settings: Settings) -> Finding:
    slack_s = refresh_plan.slack_s(token.ttl_s, settings.propagation_allowance_s)
    return findings.of_token(token.ttl_s, slack_s=slack_s, touch=settings.touch)


def _odd(token: Token) -> list[Finding]:
    return [findings.of_oddity(token.warning)] if token.warning else []


def _clocks(issuer_time: IssuerTime) -> list[Finding]:
    """Return a finding for each clock that is wrong, or one that all are right."""
    if not issuer_time.observed:
        return []
    found = findings.of_clocks(issuer_time.named_offsets_s())
    return [each.finding for each in found] or [findings.of_clock(issuer_time.skew_s)]


def _issuer_hint(error: Exception, settings: Settings) -> str:
    if isinstance(error, SettingsError) or not settings.is_oidc:
        return "check AMBIENT_API_TOKEN"
    if isinstance(error, IssuerRefused):
        return refusal_hint(error.reason, error.status)
    kind = error.reason if isinstance(error, IssuerUnavailable) else ""
    shown = shown_url(settings.token_url())
    hint = findings.hint_of_connection(kind, variable="OIDC_TOKEN_URL", shown=shown)
    return hint or "check that OIDC_TOKEN_URL is the token endpoint"


def _proxy(url: str) -> dict[str, str]:
    """Return the proxy for `url`, without its password, and the host of `url`."""
    return {"proxy": proxy_of(url), "host": urlsplit(url).hostname or ""}
