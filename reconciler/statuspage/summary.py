"""The fleet in one sentence and a few figures, the exposure first (pure)."""

from dataclasses import dataclass

from reconciler.controller.decide.error_policy import PERMISSIONS
from reconciler.controller.decide.token_state import (
    NOTHING_TO_READ,
    UNKNOWN_EXPIRY,
    TokenState,
)
from reconciler.controller.status.snapshot import StatusSnapshot
from reconciler.humanize import REASON, ago, clean, count, duration, listed
from reconciler.net.circuit_breaker import BreakerStats
from reconciler.statuspage.query import SessionQuery
from reconciler.statuspage.session_row import Severity, severity_of
from reconciler.tokens.refusals import refused_part

MAX_NAMED = 5
"""Most sessions that the exposure's note names."""

ENDPOINTS = {"kube": "the API server", "issuer": "the issuer", "platform": "the platform"}


@dataclass(frozen=True, slots=True)
class Stat:
    """`link` is a relative URL, or ""."""

    name: str
    value: str
    note: str
    severity: Severity = "good"
    link: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of the list, and the number of sessions that match."""

    name: str
    count: int
    show: str
    severity: Severity


def exposure(snapshot: StatusSnapshot) -> Stat:
    """Return the exposure. It is an estimate; what runners measure is not included."""
    seconds, exposed = snapshot.fleet.exposure_s, snapshot.exposed
    grew = ""
    if exposed:
        when = ago(snapshot.now_s - exposed[0].last_s)
        named = [f"{each.key} ({max(0.1, each.seconds):.1f} s)" for each in exposed[:MAX_NAMED]]
        grew = f" Last increase {when}, for (latest first) {clean(', '.join(named), REASON)}."
    shown = f"{seconds:,.0f}" if seconds >= 10 or seconds == 0 else f"{max(0.1, seconds):.1f}"
    return Stat(
        "Estimated exposure",
        shown,
        "Seconds for which pods had an expired token since this replica started, estimated from the"
        " expiry times in the Secrets. What is measured at the runners is not included." + grew,
        "bad" if seconds else "good",
    )


def headline(snapshot: StatusSnapshot, not_ready: str) -> tuple[Severity, str]:
    """Return the fleet's state in one sentence, the worst first."""
    fleet = snapshot.fleet
    if not_ready:
        return "warn", f"Not ready: {not_ready}."
    states = fleet.states
    if expired := states[TokenState.EXPIRED]:
        return "bad", f"{_hold(expired)} an expired token."
    if missing := sum(states[state] for state in NOTHING_TO_READ):
        return "bad", f"{_have(missing)} no token to read."
    if expiring := states[TokenState.EXPIRING]:
        return "warn", f"{_hold(expiring)} a token that may expire before it is replaced."
    unknown = sum(states[state] for state in UNKNOWN_EXPIRY)
    tokens = "No token is known to have expired" if unknown else "Every token is valid"
    if not any(states.values()):
        tokens = "No session is refreshed"
    if down := [ENDPOINTS[each.name] for each in snapshot.breakers if each.down]:
        return "warn", f"{tokens}, but {listed(down)} {_is(len(down))} unreachable."
    if refusing := [_refusal(each) for each in snapshot.breakers if each.refuses]:
        return "warn", f"{tokens}, but {listed(refusing)}."
    if denied := snapshot.queue.schedule.blocked.get(PERMISSIONS, 0):
        wait = "waits" if denied == 1 else "wait"
        return "warn", f"{tokens}; {_session(denied)} {wait} for a missing right."
    if failing := fleet.failing:
        return "warn", f"{tokens}; {_session(failing)} failed in the last run."
    if unknown:
        return "warn", f"{_hold(unknown)} a token with an unknown expiry."
    if not fleet.sessions:
        return "good", "There are no sessions."
    blocked = sum(fleet.blocked.values())
    refreshed = fleet.sessions - blocked
    also = f"; {_session(blocked)} blocked" if blocked else ""
    if not refreshed:
        return "good", f"No session is to be refreshed{also}."
    return "good", f"{'All' if refreshed > 1 else 'The'} {_all(refreshed)}{also}."


def _refusal(breaker: BreakerStats) -> str:
    what = refused_part(breaker.last_reason, breaker.last_status)
    return f"{ENDPOINTS[breaker.name]} rejects {what}"


def stats(snapshot: StatusSnapshot) -> tuple[Stat, ...]:
    """Return the other figures: survival, next to expire, number of sessions."""
    fleet, failing = snapshot.fleet, snapshot.fleet.failing
    return (
        _survival(snapshot),
        _next_to_expire(snapshot),
        Stat(
            "Sessions",
            f"{fleet.sessions:,}",
            f"{failing:,} failing, {sum(fleet.blocked.values()):,} blocked",
            "warn" if failing else "good",
        ),
    )


def filters(snapshot: StatusSnapshot) -> tuple[Filter, ...]:
    """Return the filter of all sessions, and each other one that matches some."""
    fleet = snapshot.fleet
    by_state = [
        Filter(state, number, state, severity_of(state)) for state, number in fleet.states.items()
    ]
    found = [
        *(each for each in by_state if each.severity != "good"),
        Filter("failing", fleet.failing, "failing", "warn"),
        Filter("blocked", sum(fleet.blocked.values()), "blocked", "neutral"),
        *(each for each in by_state if each.severity == "good"),
    ]
    everything = Filter("all", fleet.sessions, "", "neutral")
    return (everything, *(each for each in found if each.count))


def _survival(snapshot: StatusSnapshot) -> Stat:
    seconds = snapshot.fleet.survival_s
    name = "Fleet survival"
    if seconds is None:
        return Stat(name, "-", "not known yet", "neutral")
    if seconds == float("inf"):
        return Stat(name, "unlimited", "no token here has an expiry")
    note = "if the issuer is unreachable from now on"
    issuer = [each for each in snapshot.breakers if each.name == "issuer"]
    is_down = any(each.down or each.refuses for each in issuer)
    return Stat(name, duration(seconds), note, _survival_severity(seconds, is_down=is_down))


def _survival_severity(seconds: float, *, is_down: bool) -> Severity:
    if not seconds:
        return "bad"
    return "warn" if is_down else "good"


def _next_to_expire(snapshot: StatusSnapshot) -> Stat:
    fleet = snapshot.fleet
    seconds, key = fleet.next_to_expire_s, fleet.next_to_expire
    name = "Next to expire"
    if seconds is not None and key is not None:
        link = SessionQuery(text=str(key), opened=str(key)).url()
        return Stat(name, f"in {duration(seconds)}", clean(str(key)), "good", link)
    if fleet.states[TokenState.EXPIRED]:
        link = SessionQuery(show=TokenState.EXPIRED).url()
        return Stat(name, "expired", "every token with a known expiry has expired", "bad", link)
    return Stat(name, "-", "no pod holds a token with a known expiry", "neutral")


def _session(number: int) -> str:
    return count(number, "session")


def _hold(number: int) -> str:
    return f"{_session(number)} {'holds' if number == 1 else 'hold'}"


def _have(number: int) -> str:
    return f"{_session(number)} {'has' if number == 1 else 'have'}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _all(number: int) -> str:
    return (
        f"{number:,} sessions hold a valid token" if number > 1 else "session holds a valid token"
    )
