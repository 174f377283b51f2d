"""The fleet in one sentence and a few figures, the exposure first (pure)."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from reconciler.controller.decide.block_reasons import BlockReason
from reconciler.controller.decide.token_state import (
    NOTHING_TO_READ,
    UNKNOWN_EXPIRY,
    TokenState,
)
from reconciler.controller.decide.write_errors import PERMISSIONS
from reconciler.controller.status.snapshot import StatusSnapshot
from reconciler.humanize import REASON, ago, clean, count, duration, instant, listed
from reconciler.net.circuit_breaker import BreakerStats
from reconciler.statuspage.components import CLOCK_WARN_S
from reconciler.statuspage.query import SessionQuery
from reconciler.statuspage.session_row import Severity, severity_of
from reconciler.tokens.refusals import refused_part

MAX_NAMED = 5
"""Most sessions that the exposure's note names."""

ENDPOINTS = {"kube": "the API server", "issuer": "the issuer", "platform": "the platform"}

WAITED_FOR = ENDPOINTS | {PERMISSIONS: "a missing right"}

SHORT_SURVIVAL = 0.4
"""As a fraction of a token's life, as in the alert TokenReconcilerFleetSurvivalLow."""

BLOCKED = {
    BlockReason.NOT_CONFIRMED: "not confirmed by the platform",
    BlockReason.NAME_TAKEN: "whose Secret's name is taken",
    BlockReason.PAUSED: "paused by annotation",
    BlockReason.POD_LEAVING: "whose pod is being deleted",
}
"""Why nothing is written for a session, by the plan's reason; the first two want a person's act."""

UNINTENDED = (BlockReason.NOT_CONFIRMED, BlockReason.NAME_TAKEN)

BLOCKED_SECTION = "sessions-are-blocked"
"""Of docs/runbooks.md; there is no alert, since a tenant's labels alone make such a session."""

DATE_LENGTH = len("2026-01-01")

OVERDUE_S = 15.0
"""As in the alert TokenReconcilerOverdue."""


class Stat(msgspec.Struct, frozen=True):
    """`link` is a relative URL, or ""; `meaning` says what the figure is."""

    name: str
    value: str
    note: str
    severity: Severity = "good"
    link: str = ""
    meaning: str = ""


class Filter(msgspec.Struct, frozen=True):
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
        at = instant(exposed[0].last_s)
        grew = (
            f" Last increase {when}, at {at}, for (latest first) {clean(', '.join(named), REASON)}."
        )
    shown = f"{seconds:,.0f}" if seconds >= 10 or seconds == 0 else f"{max(0.1, seconds):.1f}"
    return Stat(
        "Estimated exposure",
        shown,
        "Seconds for which pods had an expired token since this replica started, estimated from the"
        " expiry times in the Secrets. What is measured at the runners is not included." + grew,
        "bad" if seconds else "good",
    )


class Headline(NamedTuple):
    """The fleet's state; `alert` is the section of the runbook that says what to do, or ""."""

    severity: Severity
    sentence: str
    alert: str = ""


def headline(snapshot: StatusSnapshot, not_ready: str) -> Headline:
    """Return the fleet's state in one sentence, the worst first.

    It is bad where an alert of severity `critical` would fire, once its condition has lasted.
    """
    fleet = snapshot.fleet
    if not_ready:
        return Headline("warn", f"Not ready: {not_ready}.")
    states = fleet.states
    down = _down(snapshot)
    # Without the API server it is not known whether another replica leads.
    if ENDPOINTS["kube"] not in down and (stopped := _stopped(snapshot)):
        return Headline(
            "bad", f"{stopped.capitalize()}: no token is refreshed.", "TokenReconcilerNoLeader"
        )
    if expired := _expired(snapshot):
        return Headline("bad", expired, "TokenReconcilerExposureGrowing")
    if missing := sum(states[state] for state in NOTHING_TO_READ):
        return Headline("bad", f"{_have(missing)} no token to read.")
    if expiring := states[TokenState.EXPIRING]:
        return Headline(
            "bad",
            f"{_hold(expiring)} a token that may expire before it is replaced.",
            "TokenReconcilerTokensExpiring",
        )
    unknown = sum(states[state] for state in UNKNOWN_EXPIRY)
    every = "Every refreshed token" if fleet.blocked else "Every token"
    tokens = "No token is known to have expired" if unknown else f"{every} is valid"
    if not any(states.values()):
        tokens = "No session is refreshed"
    is_short = _is_survival_short(snapshot)
    urgent: Severity = "bad" if is_short else "warn"
    if down:
        return Headline(
            urgent, f"{tokens}, but {_unreachable(down)}.", "TokenReconcilerEndpointDown"
        )
    if refusing := [_refusal(each) for each in snapshot.breakers if each.refuses]:
        return Headline(
            urgent, f"{tokens}, but {listed(refusing)}.", "TokenReconcilerEndpointRefused"
        )
    if is_short and fleet.survival_s is not None:
        short = f"the fleet survives for only {duration(fleet.survival_s)} without the issuer"
        return Headline("bad", f"{tokens}, but {short}.", "TokenReconcilerFleetSurvivalLow")
    if late := _missed(snapshot):
        return Headline("warn", late, "TokenReconcilerOverdue")
    if denied := snapshot.queue.schedule.blocked.get(PERMISSIONS, 0):
        wait = "waits" if denied == 1 else "wait"
        return Headline(
            "warn",
            f"{tokens}; {_session(denied)} {wait} for a missing right.",
            "TokenReconcilerWritesFailing",
        )
    failing = fleet.failing if snapshot.lease.leading else 0
    if failing:
        return Headline(
            "warn",
            f"{tokens}; {_session(failing)} failed in the last run.",
            "TokenReconcilerSessionsFailing",
        )
    if unknown:
        return Headline("warn", f"{_hold(unknown)} a token with an unknown expiry.")
    stuck = sum(fleet.blocked.get(reason, 0) for reason in UNINTENDED)
    if stuck and snapshot.lease.leading:
        return Headline(
            "warn", f"{tokens}; nothing is written for {_session(stuck)}.", BLOCKED_SECTION
        )
    if not fleet.sessions:
        return Headline("good", "There are no sessions.")
    blocked = sum(fleet.blocked.values())
    refreshed = fleet.sessions - blocked
    also = f"; {_session(blocked)} blocked" if blocked else ""
    if not refreshed:
        return Headline("good", f"No session is to be refreshed{also}.")
    return Headline("good", f"{'All' if refreshed > 1 else 'The'} {_all(refreshed)}{also}.")


def details(snapshot: StatusSnapshot, sentence: str) -> tuple[str, ...]:
    """Return what follows from a fault, with times: missed deadlines, waits, the first expiry.

    Args:
        sentence: That of `headline`, which is not repeated.
    """
    fleet = snapshot.fleet
    found = [
        *_causes(snapshot, sentence),
        _expired(snapshot),
        _missed(snapshot),
        _waits(snapshot),
        _blocked(snapshot),
    ]
    found.append(_clock(snapshot))
    failing = [each.name for each in snapshot.breakers if each.down or each.refuses]
    if failing or fleet.states[TokenState.EXPIRING] or _is_survival_short(snapshot):
        found.append(_first_expiry(snapshot))
    lasts_s = 0.0 if _stopped(snapshot) else fleet.survival_s
    if "issuer" in failing and lasts_s and math.isfinite(lasts_s):
        until = _at(snapshot, lasts_s)
        found.append(f"With the standby token every pod can have a valid one until {until}.")
    return tuple(each for each in found if each and each != sentence)


def _down(snapshot: StatusSnapshot) -> list[str]:
    return [ENDPOINTS[each.name] for each in snapshot.breakers if each.down]


def _unreachable(down: list[str]) -> str:
    return f"{listed(down)} {_is(len(down))} unreachable"


def _causes(snapshot: StatusSnapshot, sentence: str) -> Iterator[str]:
    """Yield what fails where the headline says what that did to the tokens."""
    down = _down(snapshot)
    failing = [_unreachable(down)] if down else []
    failing += [_refusal(each) for each in snapshot.breakers if each.refuses]
    for each in failing:
        if each not in sentence:
            yield f"{each[0].upper()}{each[1:]}."


def _stopped(snapshot: StatusSnapshot) -> str:
    """Return what keeps every token from being written, as far as is known, or ""."""
    if any(each.name == "kube" and each.down for each in snapshot.breakers):
        return f"{ENDPOINTS['kube']} is unreachable"
    return "" if snapshot.lease.leading or snapshot.lease.leader else "no replica leads"


def _expired(snapshot: StatusSnapshot) -> str:
    number = snapshot.fleet.states[TokenState.EXPIRED]
    return f"{_hold(number)} an expired token." if number else ""


def _missed(snapshot: StatusSnapshot) -> str:
    """Return who missed the deadline of a refresh, or ""; as the alert on the queue has it."""
    late_s = snapshot.queue.schedule.longest_overdue_s
    if number := snapshot.fleet.states[TokenState.OVERDUE]:
        verb = "has" if number == 1 else "have"
        return f"{_session(number)} {verb} missed the deadline of a refresh."
    if snapshot.lease.leading and late_s > OVERDUE_S:
        return f"A due session has missed its deadline by {duration(late_s)}: no worker took it."
    return ""


def _waits(snapshot: StatusSnapshot) -> str:
    """Return how many sessions wait for what, or ""; a standby does not know."""
    if not snapshot.lease.leading:
        return ""
    blocked = snapshot.queue.schedule.blocked
    waiting = [
        f"{_session(number)} for {WAITED_FOR.get(name, name)}"
        for name, number in sorted(blocked.items())
        if number
    ]
    return f"Waiting: {listed(waiting)}." if waiting else ""


def _blocked(snapshot: StatusSnapshot) -> str:
    """Return for how many sessions nothing is written, and why, or ""; as `_waits`."""
    blocked = snapshot.fleet.blocked
    found = [f"{blocked[each]:,} {why}" for each, why in BLOCKED.items() if blocked.get(each)]
    return f"Blocked: {listed(found)}." if found and snapshot.lease.leading else ""


def _clock(snapshot: StatusSnapshot) -> str:
    """Return by how much the times on the page differ from this machine's clock, or ""."""
    skew_s = snapshot.issuer.skew_s
    if not snapshot.issuer.heard or abs(skew_s) - snapshot.issuer.error_s < CLOCK_WARN_S:
        return ""
    side = "ahead of" if skew_s > 0 else "behind"
    off = f"{duration(abs(skew_s))} {side} this machine's"
    return f"The issuer's clock is {off}; times of tokens here are the issuer's."


def _first_expiry(snapshot: StatusSnapshot) -> str:
    fleet = snapshot.fleet
    seconds, key = fleet.next_to_expire_s, fleet.next_to_expire
    if seconds is None or key is None:
        return ""
    named = clean(str(key))
    return f"The next token expires at {_at(snapshot, seconds)}, in {duration(seconds)}: {named}."


def _is_survival_short(snapshot: StatusSnapshot) -> bool:
    """Whether the alert on the fleet's survival would fire."""
    survival_s, life_s = snapshot.fleet.survival_s, snapshot.issuer.token.latest_ttl_s
    if survival_s is None or life_s is None or math.isinf(life_s):
        return False
    return survival_s < SHORT_SURVIVAL * life_s


def _at(snapshot: StatusSnapshot, seconds: float) -> str:
    """Return the time of day in UTC, with its date unless that is today."""
    text = instant(snapshot.now_s + seconds)
    today = instant(snapshot.now_s)[:DATE_LENGTH]
    return f"{text[DATE_LENGTH + 1 : -1]} UTC" if text[:DATE_LENGTH] == today else text


def _refusal(breaker: BreakerStats) -> str:
    what = refused_part(breaker.last_reason, breaker.last_status)
    return f"{ENDPOINTS[breaker.name]} rejects {what}"


def stats(snapshot: StatusSnapshot) -> tuple[Stat, ...]:
    """Return the other figures: survival, next to expire, number of sessions."""
    fleet, failing = snapshot.fleet, snapshot.fleet.failing
    is_known = snapshot.lease.leading
    note = f"{failing:,} failing, {sum(fleet.blocked.values()):,} blocked"
    return (
        _survival(snapshot),
        _next_to_expire(snapshot),
        Stat(
            "Sessions",
            f"{fleet.sessions:,}",
            note if is_known else "with a pod or a Secret in the cluster",
            "warn" if failing and is_known else "good",
            meaning="" if is_known else "Only the leader knows which of them fail.",
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
        Filter("failing", fleet.failing if snapshot.lease.leading else 0, "failing", "warn"),
        Filter("blocked", sum(fleet.blocked.values()), "blocked", "neutral"),
        *(each for each in by_state if each.severity == "good"),
    ]
    everything = Filter("all", fleet.sessions, "", "neutral")
    return (everything, *(each for each in found if each.count))


def _survival(snapshot: StatusSnapshot) -> Stat:
    seconds = snapshot.fleet.survival_s
    name = "Fleet survival"
    if stopped := _stopped(snapshot):
        return Stat(name, "-", f"Nothing is written, the standby token neither: {stopped}.", "bad")
    if seconds is None:
        return Stat(name, "-", "not known yet", "neutral")
    if seconds == float("inf"):
        return Stat(name, "unlimited", "no token here has an expiry")
    note = (
        f"If the issuer is unreachable from now on, every pod has a valid token until"
        f" {_at(snapshot, seconds)}: its own or the standby token."
    )
    issuer = [each for each in snapshot.breakers if each.name == "issuer"]
    severity: Severity = "warn" if any(each.down or each.refuses for each in issuer) else "good"
    if not seconds or _is_survival_short(snapshot):
        severity = "bad"
    return Stat(name, duration(seconds), note, severity)


def _next_to_expire(snapshot: StatusSnapshot) -> Stat:
    fleet = snapshot.fleet
    seconds, key = fleet.next_to_expire_s, fleet.next_to_expire
    name = "Next to expire"
    if seconds is not None and key is not None:
        link = SessionQuery(text=str(key), opened=str(key)).url()
        severity: Severity = "bad" if fleet.states[TokenState.EXPIRING] else "good"
        meaning = f"At {_at(snapshot, seconds)}, unless it is refreshed before."
        return Stat(name, f"in {duration(seconds)}", clean(str(key)), severity, link, meaning)
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
