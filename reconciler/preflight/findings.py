"""The findings of the checks, each with what to do about it (pure)."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

import msgspec

from reconciler.kube.secret_mounts import SecretMounts
from reconciler.preflight.permissions import AccessQuery, Permission, rule

Area = Literal["settings", "cluster", "rights", "issuer", "clock", "platform", "shards"]
Level = Literal["OK", "WARN", "FAIL"]
"""`FAIL` keeps the controller from its work; `WARN` does not."""

SKEW_WARN_S = 5.0
SKEW_LIMIT_S = 60.0
"""Above this, the API server rejects projected account tokens. Source: go-jose, DefaultLeeway."""

WALL, API_SERVER, DATE = "wall_clock", "api_server_date", "issuer_date"
"""Sources of the issuer's time, as `tokens/server_clock.py` names them."""

NODE_REMEDY = "synchronise the node's clock (NTP)"


class Finding(msgspec.Struct, frozen=True):
    """One finding.

    Args:
        message: What was found, in one line.
        remedy: What to do about it, "" if there is nothing to do.
    """

    area: Area
    level: Level
    message: str
    remedy: str = ""


Answer = tuple[Permission, AccessQuery, bool]
"""A right, the question about it to the authorizer, and whether it is granted."""


def of_rights(answers: Iterable[Answer], *, cluster_wide: bool) -> list[Finding]:
    """Return the missing rights, one finding a kind, with the rule that grants them."""
    asked = list(answers)
    missing = [(right, ask) for right, ask, granted in asked if not granted]
    if not missing:
        count = len(asked)
        return [Finding("rights", "OK", f"all {count} rights that are used are granted")]
    return [
        _missing_rights([ask for _, ask in group], _reasons(group), cluster_wide=cluster_wide)
        for group in _grouped(missing)
    ]


MOST_NAMED = 3
"""Most pods that one finding names."""


def of_mounts(pods: Sequence[SecretMounts]) -> list[Finding]:
    """Return a warning that names the session pods which mount their Secret by subPath."""
    found = [pod for pod in pods if pod.by_subpath]
    if not found:
        return []
    named = ", ".join(
        f"{pod.namespace}/{pod.pod} (container {', '.join(pod.by_subpath)})"
        for pod in found[:MOST_NAMED]
    )
    more = f", and {len(found) - MOST_NAMED:,} more" if len(found) > MOST_NAMED else ""
    return [
        Finding(
            "cluster",
            "WARN",
            f"the kubelet never updates the token of {len(found):,} of {len(pods):,} session pods,"
            f" which mount the Secret by subPath: {named}{more}",
            "mount the Secret as a directory, without subPath, in the template of session pods",
        )
    ]


def of_excess(answers: Iterable[Answer]) -> list[Finding]:
    """Return the rights that are granted and never used."""
    excess = [(right, ask) for right, ask, granted in answers if granted]
    return [
        Finding(
            "rights",
            "WARN",
            f"the account may also {_verbs(ask for _, ask in group)} {group[0][1].resource}"
            f" {_where(group[0][1])}, which is never used",
            "revoke it, unless another program uses the same account",
        )
        for group in _grouped(excess)
    ]


class ClockFinding(NamedTuple):
    """One clock that is wrong.

    Args:
        clock: `wall_clock`, `issuer_date`, `api_server_date`, or `issuer` if the other two
            machines agree with each other.
        off_s: The clock minus the issuer's time as its tokens prove it; for `issuer` the issuer's
            time minus this machine's.
    """

    clock: str
    off_s: float
    finding: Finding


def of_clock(skew_s: float) -> Finding:
    """Return the finding for the issuer's time minus ours, in seconds."""
    return _of_clock("this machine's clock is", skew_s, NODE_REMEDY)


def of_clocks(offsets_s: Mapping[str, float]) -> list[ClockFinding]:
    """Return a finding for each clock that is wrong by more than `SKEW_WARN_S`.

    Our clock and the API server's belong to two machines: if both differ from the issuer's time by
    the same, the issuer's clock is wrong. A Date header that differs from the tokens in the same
    response comes from a gateway, unless all other clocks agree with it.

    Args:
        offsets_s: Each clock minus the issuer's time, in seconds, by source; `wall_clock` is always
            among them after the issuer's first response.
    """
    off = {name: off_s for name, off_s in offsets_s.items() if abs(off_s) > SKEW_WARN_S}
    wall_s, api_s = offsets_s.get(WALL, 0.0), offsets_s.get(API_SERVER)
    date_s = off.get(DATE)
    is_issuer = WALL in off and api_s is not None and _alike(wall_s, api_s)
    found = []
    if is_issuer:
        clocks = "this machine's clock and the API server's are"
        finding = _of_clock(clocks, -wall_s, "synchronise the issuer's clock (NTP)")
        found.append(ClockFinding("issuer", -wall_s, finding))
    elif WALL in off:
        found.append(ClockFinding(WALL, wall_s, of_clock(-wall_s)))
    if API_SERVER in off and not is_issuer:
        finding = _of_clock("the API server's clock is", -off[API_SERVER], "synchronise it (NTP)")
        found.append(ClockFinding(API_SERVER, off[API_SERVER], finding))
    if date_s is not None and not (is_issuer and _alike(date_s, wall_s)):
        direction = "ahead of" if date_s > 0 else "behind"
        message = (
            f"the Date header of the issuer's responses is {abs(date_s):.0f} s {direction} the "
            "tokens in them; it is not used"
        )
        remedy = "synchronise the clock of the gateway or proxy that sets it (NTP)"
        found.append(ClockFinding(DATE, date_s, Finding("clock", "WARN", message, remedy)))
    return found


def _alike(one_s: float, other_s: float) -> bool:
    return abs(one_s - other_s) <= SKEW_WARN_S


def _of_clock(clock: str, skew_s: float, remedy: str) -> Finding:
    direction = "behind" if skew_s > 0 else "ahead of"
    message = f"{clock} {abs(skew_s):.0f} s {direction} the issuer's"
    if abs(skew_s) > SKEW_LIMIT_S:
        return Finding("clock", "FAIL", message, remedy)
    if abs(skew_s) > SKEW_WARN_S:
        return Finding("clock", "WARN", f"{message}; deadlines follow the issuer's", remedy)
    return Finding("clock", "OK", f"within {SKEW_WARN_S:.0f} s of the issuer's")


def of_token(ttl_s: float, *, slack_s: float, touch: bool) -> Finding:
    """Compare a token's life with the kubelet's delay.

    Args:
        slack_s: How long a fault may last before a token expires, without pod touches.
    """
    if ttl_s == float("inf"):
        return Finding("issuer", "WARN", "the token has no expiry that can be read")
    message = f"gives tokens of {ttl_s:.0f} s"
    if slack_s <= 0 and not touch:
        return Finding(
            "issuer",
            "FAIL",
            f"{message}, which is less than the kubelet's delay needs",
            "set RECONCILER_TOUCH=true, or configure longer tokens at the issuer",
        )
    return Finding("issuer", "OK", message)


def describe_unknown_variable(variable: str, nearest: str) -> str:
    """Return that a variable has no effect, with the nearest setting ("" = there is none)."""
    hint = f"; the nearest is {nearest}" if nearest else ""
    return f"{variable} is no setting and has no effect{hint}"


def of_unknown_variable(variable: str, nearest: str) -> Finding:
    """Return a warning for a variable that looks like a setting and is none."""
    return Finding(
        "settings",
        "WARN",
        describe_unknown_variable(variable, nearest),
        f"set {nearest} instead" if nearest else "unset it",
    )


def of_oddity(oddity: str) -> Finding:
    """Return a warning for an unusual token, which runners get nevertheless."""
    return Finding(
        "issuer", "WARN", f"the token is odd: {oddity}", "check that the platform accepts it"
    )


def of_failure(
    area: Area, error: Exception, *, hint: str, proxy: str = "", host: str = ""
) -> Finding:
    """Return the failure of an endpoint.

    Args:
        hint: What to check.
        proxy: `host:port` of the proxy that the environment sets for it, or "".
        host: The endpoint's host, for NO_PROXY.
    """
    remedy = hint
    if proxy:
        remedy += f"; requests use the proxy {proxy}; if they should not, add {host} to NO_PROXY"
    return Finding(area, "FAIL", str(error), remedy)


def hint_of_refused_token(*, is_oidc: bool) -> str:
    """Return what to check where the platform rejects a token of the issuer.

    An issuer may leave out a scope that it does not know, and does not know what the platform
    requires: a token without the right scope or audience is a valid token of the issuer.
    """
    trust = "check that the platform trusts this issuer and client"
    scope = (
        ", and that the token has the scope and audience that it requires (RECONCILER_OIDC_SCOPE,"
        " RECONCILER_OIDC_AUDIENCE, RECONCILER_OIDC_RESOURCE)"
    )
    return f"{trust}{scope if is_oidc else ''}"


def hint_of_connection(kind: str, *, variable: str, shown: str) -> str:
    """Return what to check where there was no response; "" if the connection did not fail.

    Args:
        kind: As of `http.kind_of`, or `timeout`.
        variable: The setting that names the endpoint.
        shown: Its value, as it may be shown.
    """
    match kind:
        case "dns":
            return f"check the host in {variable}, which is {shown}, and this machine's DNS"
        case "tls":
            return (
                "add its CA to those that SSL_CERT_FILE or SSL_CERT_DIR name (in a cluster: to the"
                " ConfigMap token-reconciler-ca), and check that its certificate is for the host in"
                f" {variable}"
            )
        case "connection" | "timeout":
            return (
                f"check the route to {shown}: the port, whether the server runs, and that no"
                " firewall or NetworkPolicy blocks this machine or pod"
            )
        case "proxy":
            return "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    return ""


def of_static_token(ttl_s: float, life: Finding) -> list[Finding]:
    """Return that no issuer is used, and the finding for the static token's life."""
    message = "none is used: runners get the token in AMBIENT_API_TOKEN"
    if life.level == "OK":
        return [Finding("issuer", "OK", f"{message}, which lives for {ttl_s:.0f} s")]
    return [Finding("issuer", "OK", message), life]


def has_failed(found: Iterable[Finding]) -> bool:
    return any(finding.level == "FAIL" for finding in found)


def _missing_rights(asks: Sequence[AccessQuery], reasons: str, *, cluster_wide: bool) -> Finding:
    first = asks[0]
    message = f"cannot {reasons} {_where(first)}: {_verbs(asks)} {first.resource}"
    role = f"a Role in namespace {first.namespace}" if first.namespace else "a ClusterRole"
    remedy = f"grant {rule(asks)} in {role}"
    if cluster_wide and not first.namespace:
        remedy += ", or list the namespaces in RECONCILER_NAMESPACES"
    return Finding("rights", "FAIL", message, remedy)


def _grouped(
    pairs: Iterable[tuple[Permission, AccessQuery]],
) -> list[list[tuple[Permission, AccessQuery]]]:
    """Return the pairs rule by rule: same namespace, kind and name."""

    def kind(pair: tuple[Permission, AccessQuery]) -> tuple[str, str, str, str]:
        ask = pair[1]
        return ask.namespace, ask.group, ask.resource, ask.name

    return [list(group) for _, group in groupby(sorted(pairs, key=kind), key=kind)]


def _reasons(group: Iterable[tuple[Permission, AccessQuery]]) -> str:
    return " or ".join(dict.fromkeys(right.purpose for right, _ in group))


def _verbs(asks: Iterable[AccessQuery]) -> str:
    return ", ".join(dict.fromkeys(ask.verb for ask in asks))


def _where(ask: AccessQuery) -> str:
    return f"in namespace {ask.namespace}" if ask.namespace else "in all namespaces"
