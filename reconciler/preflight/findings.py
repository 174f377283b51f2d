"""What an examination found, in words a platform engineer can act on (pure)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

from reconciler.preflight.permissions import AccessQuery, Permission, rule

Area = Literal["settings", "cluster", "rights", "issuer", "clock", "platform"]
Level = Literal["ok", "note", "missing"]

SKEW_NOTED_S = 5.0
SKEW_LIMIT_S = 60.0
"""Beyond it the API server refuses projected account tokens. Source: go-jose, DefaultLeeway."""

WALL, API_SERVER, DATE = "wall_clock", "api_server_date", "issuer_date"
"""Witnesses of the issuer's time, as `tokens/server_clock.py` names them."""

NODE_REMEDY = "let the node keep its time (NTP)"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Args:
        level: `missing` stops the product from doing its work; `note` does not.
        remedy: What to do about it, "" where there is nothing to do.
    """

    area: Area
    level: Level
    message: str
    remedy: str = ""


Answer = tuple[Permission, AccessQuery, bool]
"""A right, the question that was asked about it, and whether it is held."""


def of_rights(answers: Iterable[Answer], *, cluster_wide: bool) -> list[Finding]:
    """Say which rights are missing, kind by kind, with the rule that grants them."""
    asked = list(answers)
    missing = [(right, ask) for right, ask, held in asked if not held]
    if not missing:
        count = len(asked)
        return [Finding("rights", "ok", f"all {count} that are used are held")]
    return [
        _missing([ask for _, ask in group], _reasons(group), cluster_wide=cluster_wide)
        for group in _grouped(missing)
    ]


def of_excess(answers: Iterable[Answer]) -> list[Finding]:
    """Name what is held and never used."""
    held = [(right, ask) for right, ask, is_held in answers if is_held]
    return [
        Finding(
            "rights",
            "note",
            f"the account may also {_verbs(ask for _, ask in group)} {group[0][1].resource}"
            f" {_place(group[0][1])}, which is never used",
            "take it away, unless another program shares the account",
        )
        for group in _grouped(held)
    ]


class ClockFinding(NamedTuple):
    """One clock that is off.

    Args:
        witness: `wall_clock`, `issuer_date`, `api_server_date`, or `issuer` where the other two
            machines agree that it is the issuer's own clock.
        off_s: The clock less the issuer's time as its tokens prove it; for `issuer` the issuer's
            time less this machine's.
    """

    witness: str
    off_s: float
    verdict: Finding


def of_clock(skew_s: float) -> Finding:
    """Judge the issuer's time less ours, seconds."""
    return _of_clock("this machine's clock is", skew_s, NODE_REMEDY)


def of_clocks(offsets_s: Mapping[str, float]) -> list[ClockFinding]:
    """Name each clock that is off; none where all are within `SKEW_NOTED_S`.

    Our clock and the API server's are two machines': where both differ from the issuer's time by
    the same, it is the issuer that is off. A Date header that differs from the tokens that it
    comes with is a gateway's, unless all other clocks agree with it.

    Args:
        offsets_s: Each clock less the issuer's time, seconds, by witness; `wall_clock` is always
            among them once the issuer was heard.
    """
    off = {name: off_s for name, off_s in offsets_s.items() if abs(off_s) > SKEW_NOTED_S}
    wall_s, api_s = offsets_s.get(WALL, 0.0), offsets_s.get(API_SERVER)
    date_s = off.get(DATE)
    is_issuer = WALL in off and api_s is not None and _alike(wall_s, api_s)
    found = []
    if is_issuer:
        says = "this machine's clock and the API server's are"
        verdict = _of_clock(says, -wall_s, "let the issuer keep its time (NTP)")
        found.append(ClockFinding("issuer", -wall_s, verdict))
    elif WALL in off:
        found.append(ClockFinding(WALL, wall_s, of_clock(-wall_s)))
    if API_SERVER in off and not is_issuer:
        verdict = _of_clock("the API server's clock is", -off[API_SERVER], "let it keep its time")
        found.append(ClockFinding(API_SERVER, off[API_SERVER], verdict))
    if date_s is not None and not (is_issuer and _alike(date_s, wall_s)):
        way = "ahead of" if date_s > 0 else "behind"
        says = (
            f"the Date header of the issuer's answers is {abs(date_s):.0f} s {way} the tokens that "
            "come with it; it is not used"
        )
        remedy = "let the gateway or proxy that stamps it keep its time (NTP)"
        found.append(ClockFinding(DATE, date_s, Finding("clock", "note", says, remedy)))
    return found


def _alike(one_s: float, other_s: float) -> bool:
    return abs(one_s - other_s) <= SKEW_NOTED_S


def _of_clock(whose: str, skew_s: float, remedy: str) -> Finding:
    way = "behind" if skew_s > 0 else "ahead of"
    says = f"{whose} {abs(skew_s):.0f} s {way} the issuer's"
    if abs(skew_s) > SKEW_LIMIT_S:
        return Finding("clock", "missing", says, remedy)
    if abs(skew_s) > SKEW_NOTED_S:
        return Finding("clock", "note", f"{says}; deadlines follow the issuer's", remedy)
    return Finding("clock", "ok", f"within {SKEW_NOTED_S:.0f} s of the issuer's")


def of_token(ttl_s: float, *, slack_s: float, touch: bool) -> Finding:
    """Judge a token's life against the kubelet's delay.

    Args:
        slack_s: What a fault may last before a token dies, by the kubelet's own pace.
    """
    if ttl_s == float("inf"):
        return Finding("issuer", "note", "the token never expires, as far as can be seen")
    says = f"gives tokens of {ttl_s:.0f} s"
    if slack_s <= 0 and not touch:
        return Finding(
            "issuer",
            "missing",
            f"{says}, which the kubelet's delay uses up",
            "set RECONCILER_TOUCH=true, or have the issuer give longer ones",
        )
    return Finding("issuer", "ok", says)


def says_unknown(variable: str, nearest: str) -> str:
    """Say that a variable has no effect, and what may have been meant ("" = not known)."""
    meant = f"; the nearest is {nearest}" if nearest else ""
    return f"{variable} is no setting and has no effect{meant}"


def of_unknown_variable(variable: str, nearest: str) -> Finding:
    """Note a variable that looks like one of ours and is none: what was meant is not set."""
    return Finding(
        "settings",
        "note",
        says_unknown(variable, nearest),
        f"set {nearest} in its place" if nearest else "unset it",
    )


def of_oddity(oddity: str) -> Finding:
    """Note what is strange about a token that is given to runners all the same."""
    return Finding(
        "issuer", "note", f"the token is odd: {oddity}", "see whether the platform accepts it"
    )


def of_failure(
    area: Area, error: Exception, *, hint: str, proxy: str = "", host: str = ""
) -> Finding:
    """Say what went wrong with an endpoint.

    Args:
        hint: What to look at.
        proxy: `host:port` of the proxy that the environment gives for it, or "".
        host: The endpoint's own name, for NO_PROXY.
    """
    remedy = hint
    if proxy:
        remedy += (
            f"; requests go through the proxy {proxy}: add {host} to NO_PROXY if they should not"
        )
    return Finding(area, "missing", str(error), remedy)


def hint_of_refused_token(*, is_oidc: bool) -> str:
    """Return what to look at where the platform refuses a token that the issuer has given.

    An issuer may leave out a scope that it does not know, and no issuer has to ask what the
    platform wants: tokens without the right scope or audience are its as well.
    """
    trust = "the platform refuses this token: do both trust the same issuer and client"
    wants = (
        ", and has it the scope and audience that the platform wants (RECONCILER_OIDC_SCOPE,"
        " RECONCILER_OIDC_AUDIENCE, RECONCILER_OIDC_RESOURCE)"
    )
    return f"{trust}{wants if is_oidc else ''}?"


def hint_of_way(kind: str, *, variable: str, shown: str) -> str:
    """Return what to look at where no answer came, "" where the way is not what failed.

    Args:
        kind: As of `http.kind_of`, or `timeout`.
        variable: The setting that names the endpoint.
        shown: Its value, as it may be shown.
    """
    match kind:
        case "dns":
            return f"look at the host in {variable}, which is {shown}, and at this machine's DNS"
        case "tls":
            return (
                "have its CA among those that SSL_CERT_FILE or SSL_CERT_DIR name (in a cluster:"
                f" mount the bundle), and see that its certificate is for the host in {variable}"
            )
        case "connection" | "timeout":
            return (
                f"look at the route to {shown}: is the port right, does it run, does a firewall"
                " or a NetworkPolicy let this machine or pod through?"
            )
        case "proxy":
            return "look at HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    return ""


def of_static_token(ttl_s: float, says_of_life: Finding) -> list[Finding]:
    """Say that no issuer is asked, and what is wrong with the static token's life, if anything."""
    says = "none is asked: AMBIENT_API_TOKEN is what runners are given"
    if says_of_life.level == "ok":
        return [Finding("issuer", "ok", f"{says}; its token lives for {ttl_s:.0f} s")]
    return [Finding("issuer", "ok", says), says_of_life]


def is_missing(verdicts: Iterable[Finding]) -> bool:
    return any(verdict.level == "missing" for verdict in verdicts)


def _missing(asks: Sequence[AccessQuery], reasons: str, *, cluster_wide: bool) -> Finding:
    first = asks[0]
    says = f"cannot {reasons} {_place(first)}: {_verbs(asks)} {first.resource}"
    where = f"a Role in namespace {first.namespace}" if first.namespace else "a ClusterRole"
    remedy = f"grant {rule(asks)} in {where}"
    if cluster_wide and not first.namespace:
        remedy += ", or list the namespaces in RECONCILER_NAMESPACES"
    return Finding("rights", "missing", says, remedy)


def _grouped(
    pairs: Iterable[tuple[Permission, AccessQuery]],
) -> list[list[tuple[Permission, AccessQuery]]]:
    """Return the pairs rule by rule: same namespace, kind and name."""

    def kind(pair: tuple[Permission, AccessQuery]) -> tuple[str, str, str, str]:
        ask = pair[1]
        return ask.namespace, ask.group, ask.resource, ask.name

    return [list(group) for _, group in groupby(sorted(pairs, key=kind), key=kind)]


def _reasons(group: Iterable[tuple[Permission, AccessQuery]]) -> str:
    return " or ".join(dict.fromkeys(right.why for right, _ in group))


def _verbs(asks: Iterable[AccessQuery]) -> str:
    return ", ".join(dict.fromkeys(ask.verb for ask in asks))


def _place(ask: AccessQuery) -> str:
    return f"in namespace {ask.namespace}" if ask.namespace else "in all namespaces"
