"""The fleet in one sentence and a few figures, the headline number first (pure)."""

from dataclasses import dataclass

from reconciler.controller.decide.retry_policy import RIGHTS
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

NAMED = 5
"""Sessions that the headline names."""

ENDPOINTS = {"kube": "the API server", "issuer": "the issuer", "platform": "the platform"}


@dataclass(frozen=True, slots=True)
class Stat:
    """`link` is a relative URL, or ""."""

    name: str
    value: str
    note: str
    tone: Severity = "good"
    link: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """One way to narrow the list, and how many sessions it leaves."""

    name: str
    count: int
    show: str
    tone: Severity


def exposure(survey: StatusSnapshot) -> Stat:
    """Return the headline number. It is an estimate, and never mixed with what runners saw."""
    seconds, exposed = survey.fleet.exposure_s, survey.exposed
    grew = ""
    if exposed:
        when = ago(survey.now_s - exposed[0].last_s)
        named = [f"{each.key} ({max(0.1, each.seconds):.1f} s)" for each in exposed[:NAMED]]
        grew = f" Last grown {when}; for, the latest first: {clean(', '.join(named), REASON)}."
    shown = f"{seconds:,.0f}" if seconds >= 10 or seconds == 0 else f"{max(0.1, seconds):.1f}"
    return Stat(
        "Estimated exposure",
        shown,
        "Seconds that pods spent with an expired token since this replica started, reckoned from"
        " what was written. What runners saw is measured at the runners and is not in it." + grew,
        "bad" if seconds else "good",
    )


def verdict(survey: StatusSnapshot, not_ready: str) -> tuple[Severity, str]:
    """Return the fleet's state in one sentence, the worst first."""
    fleet = survey.fleet
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
    alive = "No token is known to have expired" if unknown else "Every token is valid"
    if not any(states.values()):
        alive = "No session is refreshed"
    if away := [ENDPOINTS[each.name] for each in survey.breakers if each.down]:
        return "warn", f"{alive}, but {listed(away)} {_is(len(away))} away."
    if refusing := [_refusal(each) for each in survey.breakers if each.refuses]:
        return "warn", f"{alive}, but {listed(refusing)}."
    if denied := survey.queue.schedule.blocked.get(RIGHTS, 0):
        wait = "waits" if denied == 1 else "wait"
        return "warn", f"{alive}; {_session(denied)} {wait} for a right that is missing."
    if failing := fleet.failing:
        return "warn", f"{alive}; {_session(failing)} failed at the last try."
    if unknown:
        return "warn", f"{_hold(unknown)} a token whose expiry is not known."
    if not fleet.sessions:
        return "good", "There are no sessions."
    held = sum(fleet.holds.values())
    served = fleet.sessions - held
    besides = f"; {_session(held)} blocked" if held else ""
    if not served:
        return "good", f"No session is to be refreshed{besides}."
    return "good", f"{'All' if served > 1 else 'The'} {_all(served)}{besides}."


def _refusal(breaker: BreakerStats) -> str:
    what = refused_part(breaker.last_reason, breaker.last_status)
    return f"{ENDPOINTS[breaker.name]} refuses {what}"


def stats(survey: StatusSnapshot) -> tuple[Stat, ...]:
    """Return what a reader asks next: how long it lasts, who is next, how many."""
    fleet, failing = survey.fleet, survey.fleet.failing
    return (
        _survival(survey),
        _next_to_expire(survey),
        Stat(
            "Sessions",
            f"{fleet.sessions:,}",
            f"{failing:,} failing, {sum(fleet.holds.values()):,} blocked",
            "warn" if failing else "good",
        ),
    )


def filters(survey: StatusSnapshot) -> tuple[Filter, ...]:
    """Return all sessions, and each way to narrow them that leaves some."""
    fleet = survey.fleet
    by_state = [
        Filter(state, number, state, severity_of(state)) for state, number in fleet.states.items()
    ]
    found = [
        *(each for each in by_state if each.tone != "good"),
        Filter("failing", fleet.failing, "failing", "warn"),
        Filter("blocked", sum(fleet.holds.values()), "blocked", "still"),
        *(each for each in by_state if each.tone == "good"),
    ]
    everything = Filter("all", fleet.sessions, "", "still")
    return (everything, *(each for each in found if each.count))


def _survival(survey: StatusSnapshot) -> Stat:
    seconds = survey.fleet.survival_s
    name = "Fleet survives"
    if seconds is None:
        return Stat(name, "-", "nobody can say yet", "still")
    if seconds == float("inf"):
        return Stat(name, "always", "no token here has an end")
    note = "more if the issuer stays away from now on"
    issuer = [each for each in survey.breakers if each.name == "issuer"]
    is_away = any(each.down or each.refuses for each in issuer)
    return Stat(name, duration(seconds), note, _survival_tone(seconds, is_away=is_away))


def _survival_tone(seconds: float, *, is_away: bool) -> Severity:
    if not seconds:
        return "bad"
    return "warn" if is_away else "good"


def _next_to_expire(survey: StatusSnapshot) -> Stat:
    fleet = survey.fleet
    seconds, key = fleet.next_to_expire_s, fleet.next_to_expire
    name = "Next to expire"
    if seconds is not None and key is not None:
        link = SessionQuery(text=str(key), opened=str(key)).url()
        return Stat(name, f"in {duration(seconds)}", clean(str(key)), "good", link)
    if fleet.states[TokenState.EXPIRED]:
        link = SessionQuery(show=TokenState.EXPIRED).url()
        return Stat(name, "expired", "every token with a known expiry has expired", "bad", link)
    return Stat(name, "-", "no pod holds a token with a known expiry", "still")


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
