"""The environment in the log: its first lines name what may cause a failure."""

import asyncio
import math
import os
from urllib.parse import urlsplit

import structlog

from reconciler.clock import LONG_AGO, Clock, Instant
from reconciler.net.client_session import environment_proxy, has_system_trust, shown_url
from reconciler.preflight import findings
from reconciler.settings import Settings, unknown_variables
from reconciler.tokens.issuer_time import IssuerTime

log = structlog.get_logger()

CLOCK_PERIOD_S = 1.0
"""Seconds between two comparisons of the clocks; one costs nothing."""

MIN_COMPARISONS = 3
"""Comparisons in a row in which a clock is wrong before it is logged."""

REPEAT_S = 3600.0
"""Seconds after which a wrong clock is logged again: clocks drift in hours."""


def proxy_of(url: str) -> str:
    """Return `host:port` of the proxy that the environment sets for `url`, "" for none."""
    proxy = environment_proxy(url) if url else None
    return urlsplit(shown_url(proxy)).netloc if proxy else ""


def described(settings: Settings) -> dict[str, str]:
    """Return shard, endpoints, and their proxies if there are any, for the first log line."""
    endpoints = {"platform": settings.api_server_url}
    if settings.is_oidc:
        endpoints["issuer"] = settings.token_url()
    urls = endpoints | {"kube": _in_cluster_url()}
    proxies = {f"{name}_proxy": proxy_of(url) for name, url in urls.items()}
    shown = {name: shown_url(url) for name, url in endpoints.items()}
    shard = {"shard": str(settings.shard)} if settings.shard.count > 1 else {}
    return shard | shown | {name: proxy for name, proxy in proxies.items() if proxy}


def _in_cluster_url() -> str:
    """Return the URL of the API server in a pod, "" outside of one."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    return f"https://[{host}]" if ":" in host else f"https://{host}" if host else ""


def warn(settings: Settings) -> None:
    """Log what is certain to fail, and settings without effect."""
    urls = (settings.api_server_url, settings.token_url() if settings.is_oidc else "")
    if any(url.startswith("https:") for url in urls) and not has_system_trust():
        log.warning(
            "no_ca_certificates", reason="no CA is known that could verify https certificates"
        )
    if settings.is_oidc and (settings.api_token or settings.api_token_file):
        log.warning("static_token_ignored", reason="client credentials are set and win over it")
    for name, nearest in unknown_variables(os.environ).items():
        log.warning("variable_unknown", variable=name, nearest=nearest or None)


def ignored_variables() -> dict[str, str]:
    """Return a report of the variables that are no settings; empty without any."""
    found = [
        findings.describe_unknown_variable(*each) for each in unknown_variables(os.environ).items()
    ]
    return {"VariableUnknown": "; ".join(found)} if found else {}


def warn_of_ignored(field: str) -> None:
    """Log that a field of the kubeconfig has no effect."""
    log.warning("kubeconfig_field_ignored", field=field, reason="this program does not support it")


async def watch_clock(issuer_time: IssuerTime, clock: Clock) -> None:
    """Log each clock that is wrong, and again when its offset changes; runs until it is cancelled.

    A clock that stays wrong is logged once in `REPEAT_S`. The first time is after
    `MIN_COMPARISONS`: which clock is wrong may depend on one that has not been observed yet.
    """
    logged: dict[str, tuple[float, Instant]] = {}
    comparisons: dict[str, int] = {}
    while True:
        await asyncio.sleep(CLOCK_PERIOD_S)
        now_at = clock.monotonic()
        clock_findings = findings.of_clocks(issuer_time.named_offsets_s())
        logged = {each.clock: logged[each.clock] for each in clock_findings if each.clock in logged}
        comparisons = {each.clock: comparisons.get(each.clock, 0) + 1 for each in clock_findings}
        for clock_finding in clock_findings:
            if comparisons[clock_finding.clock] < MIN_COMPARISONS:
                continue
            off_s, logged_at = logged.get(clock_finding.clock, (math.inf, LONG_AGO))
            is_same = abs(clock_finding.off_s - off_s) <= findings.SKEW_WARN_S
            if is_same and now_at - logged_at < REPEAT_S:
                continue
            logged[clock_finding.clock] = clock_finding.off_s, now_at
            log.warning(
                "clock_skew",
                clock=clock_finding.clock,
                off_s=round(clock_finding.off_s, 1),
                skew_s=round(issuer_time.skew_s, 1),
                reason=clock_finding.finding.message,
            )
