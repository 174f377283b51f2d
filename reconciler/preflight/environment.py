"""What the log says of the surroundings, so that its first lines name what a failure comes from."""

import asyncio
import math
import os
from urllib.parse import urlsplit

import structlog

from reconciler.clock import Clock
from reconciler.net.client_session import environment_proxy, has_system_trust, shown_url
from reconciler.preflight import findings
from reconciler.settings import Settings, unknown_variables
from reconciler.tokens.issuer_time import IssuerTime

log = structlog.get_logger()

LOOK_S = 1.0
"""Between looks at the clocks: it costs nothing, and the log's start is read."""

LOOKS = 3
"""Looks in a row that find a clock off before it is named."""

AGAIN_S = 3600.0
"""A clock that drifts does so in hours."""


def proxy_of(url: str) -> str:
    """Return `host:port` of the proxy that the environment gives for `url`, "" for none."""
    proxy = environment_proxy(url) if url else None
    return urlsplit(shown_url(proxy)).netloc if proxy else ""


def described(settings: Settings) -> dict[str, str]:
    """Return what the first log line says of the way out; proxies only where there are any."""
    ends = {"platform": settings.api_server_url}
    if settings.is_oidc:
        ends["issuer"] = settings.token_url()
    ways = ends | {"kube": _in_cluster_url()}
    proxies = {f"{name}_proxy": proxy_of(url) for name, url in ways.items()}
    shown = {name: shown_url(url) for name, url in ends.items()}
    return shown | {name: proxy for name, proxy in proxies.items() if proxy}


def _in_cluster_url() -> str:
    """Return where a pod's own API server is, "" outside of one."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    return f"https://[{host}]" if ":" in host else f"https://{host}" if host else ""


def warn(settings: Settings) -> None:
    """Say what will fail for certain, and what is set in vain."""
    urls = (settings.api_server_url, settings.token_url() if settings.is_oidc else "")
    if any(url.startswith("https:") for url in urls) and not has_system_trust():
        log.warning("no_ca_certificates", why="no CA is known that could vouch for https")
    if settings.is_oidc and (settings.api_token or settings.api_token_file):
        log.warning("static_token_ignored", why="client credentials are set and win over it")
    for name, nearest in unknown_variables(os.environ).items():
        log.warning("variable_unknown", variable=name, nearest=nearest or None)


def ignored_variables() -> dict[str, str]:
    """Return the variables that are no setting as a trouble of this replica; empty without any."""
    found = [findings.says_unknown(*each) for each in unknown_variables(os.environ).items()]
    return {"VariableUnknown": "; ".join(found)} if found else {}


def warn_of_ignored(field: str) -> None:
    """Say that a field of the kubeconfig has no effect."""
    log.warning("kubeconfig_field_ignored", field=field, why="this program does not support it")


async def watch_clock(issuer_time: IssuerTime, clock: Clock) -> None:
    """Run for ever: name each clock that is off, once, and again when it is off by another amount.

    A clock that stays off is named once in `AGAIN_S`, and the first time after `LOOKS` looks: which
    one it is may depend on one that was not heard yet.
    """
    said: dict[str, tuple[float, float]] = {}
    looks: dict[str, int] = {}
    while True:
        await asyncio.sleep(LOOK_S)
        now_at = clock.monotonic()
        clock_findings = findings.of_clocks(issuer_time.named_offsets_s())
        said = {each.witness: said[each.witness] for each in clock_findings if each.witness in said}
        looks = {each.witness: looks.get(each.witness, 0) + 1 for each in clock_findings}
        for finding in clock_findings:
            if looks[finding.witness] < LOOKS:
                continue
            off_s, said_at = said.get(finding.witness, (math.inf, -math.inf))
            is_same = abs(finding.off_s - off_s) <= findings.SKEW_NOTED_S
            if is_same and now_at - said_at < AGAIN_S:
                continue
            said[finding.witness] = finding.off_s, now_at
            log.warning(
                "clock_skew",
                witness=finding.witness,
                off_s=round(finding.off_s, 1),
                skew_s=round(issuer_time.skew_s, 1),
                why=finding.verdict.message,
            )
