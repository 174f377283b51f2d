"""What the fleet depends on, one line each: leader, endpoints, watches, queue (pure)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reconciler.controller.decide.retry_policy import RIGHTS
from reconciler.controller.status.snapshot import StatusSnapshot
from reconciler.humanize import REASON, clean, count, duration, listed, reason
from reconciler.informer.reflector import ReflectorStats
from reconciler.net.circuit_breaker import BreakerStats
from reconciler.statuspage.session_row import Severity

STALE_S = 90.0
"""Bookmarks come each minute, and a watch that is silent for 80 s is opened anew."""

CLOCK_NOTED_S = 5.0
"""As of `check`: machines that keep their time are closer."""

_CLOCKS = {"issuer_date": "its Date header", "api_server_date": "the API server"}
"""The clocks beside this machine's, by witness."""

_SOURCES = {
    "token": "by its tokens",
    "expires_in": "by its tokens",
    "memory": "as last known",
    "issuer_date": "by its Date header",
    "api_server_date": "by the API server",
    "wall_clock": "by this machine",
}

_AT_START = {
    "refreshed": "refreshed",
    "unchanged": "left as they were",
    "blocked": "not to be written",
    "failed": "failed at first",
}
"""How sessions came to rest in the startup resync, by outcome."""

SHOWN = 5
"""Slow places that are named."""

LATE_S = 5.0
"""A session that is due and not taken for longer says that workers are short, or stuck."""


@dataclass(frozen=True, slots=True)
class Component:
    """One line: what, how it is in a word or two, and the particulars."""

    name: str
    value: str
    note: str
    tone: Severity = "good"


def role(survey: StatusSnapshot) -> str:
    """Return what this replica does, in a word."""
    return "leads" if survey.lease.leading else "follows"


def components(
    survey: StatusSnapshot, replica: str, ignored: Sequence[str] = ()
) -> tuple[Component, ...]:
    """Return every part that a reader may suspect, in the order in which a refresh needs them.

    Args:
        ignored: Of each variable that is no setting, that it has no effect.
    """
    return (
        *(
            [Component("Settings", "not as meant", clean("; ".join(ignored), REASON), "warn")]
            if ignored
            else []
        ),
        _leader(survey, replica),
        *_watches(survey),
        *_endpoints(survey),
        *_slow(survey),
        _queue(survey),
        _startup(survey),
    )


def _leader(survey: StatusSnapshot, replica: str) -> Component:
    lease = survey.lease
    changes = f"the lead changed {count(lease.transitions, 'time')}"
    if lease.fenced_total:
        changes += f", {count(lease.fenced_total, 'write')} refused"
    if lease.leading:
        return Component("Leader", clean(replica), f"this replica; {changes}")
    if not lease.holder:
        return Component("Leader", "nobody", "no replica writes until one takes the lease", "bad")
    holder = re.split("[_/]", lease.holder)[0]
    return Component("Leader", clean(holder), f"this replica follows; {changes}")


def _watches(survey: StatusSnapshot) -> Iterator[Component]:
    stuck, away, silences, errors = [], [], [], []
    for watch in survey.watches:
        if not watch.synced:
            away.append(_watched(watch))
            errors.append(watch.protocol.last_error)
        elif watch.silent_s is not None and watch.silent_s > STALE_S:
            stuck.append(_watched(watch))
        if watch.silent_s is not None:
            silences.append(watch.silent_s)
    relists = sum(watch.protocol.relists for watch in survey.watches)
    heard = f"last news {duration(max(silences))} ago" if silences else "nothing heard yet"
    note = f"{heard}, {count(relists, 'relist')}"
    if away:
        error = next((f"; {reason(each)}" for each in errors if each), "")
        yield Component("Watches", "not in step", f"{clean(listed(away))}{error}", "bad")
    elif stuck:
        yield Component("Watches", "silent", f"{clean(listed(stuck))}; {note}", "warn")
    else:
        yield Component("Watches", f"{len(survey.watches)} in step", note)


def _watched(watch: ReflectorStats) -> str:
    return f"{watch.resource} in {watch.namespace}" if watch.namespace else watch.resource


def _endpoints(survey: StatusSnapshot) -> Iterator[Component]:
    notes = {
        "kube": f"{survey.reconciler.pod_touches_total:,} touches,"
        f" {survey.reconciler.created_total:,} Secrets created",
        "issuer": _issuer(survey),
        "platform": f"{count(survey.confirmations.running, 'session')} running, by its list"
        + ("" if survey.platform_allowed is None else f", {_at_once(survey.platform_allowed)}"),
    }
    names = {"kube": "API server", "issuer": "Issuer", "platform": "Platform"}
    for breaker in survey.breakers:
        part = _endpoint(
            names.get(breaker.name, breaker.name), breaker, notes.get(breaker.name, "")
        )
        yield _api_server(survey, part) if breaker.name == "kube" else part


def _api_server(survey: StatusSnapshot, part: Component) -> Component:
    """Return the API server's line; one that refuses a right that is used is not healthy."""
    without = survey.queue.schedule.blocked.get(RIGHTS, 0)
    refused = [each.protocol.last_error for each in survey.watches if each.is_forbidden]
    if part.tone == "bad" or not (without or refused):
        return part
    why = reason(survey.reconciler.last_forbidden if without else refused[0])
    value = f"refuses {count(without, 'session')}" if without else "refuses us lists"
    return Component(part.name, value, f"a right is missing: {why}", "bad")


def _endpoint(name: str, breaker: BreakerStats, note: str) -> Component:
    if breaker.down:
        why = reason(breaker.last_error)
        return Component(name, f"away for {duration(breaker.down_for_s)}", why, "bad")
    if breaker.refuses:
        why = reason(breaker.last_error)
        return Component(name, f"refuses us for {duration(breaker.refused_for_s)}", why, "bad")
    if not breaker.heard:
        return Component(name, "not asked yet", note, "still")
    if breaker.failures:
        failed = f"{count(breaker.failures, 'time')} in a row: {reason(breaker.last_error)}"
        return Component(name, "fails", failed, "warn")
    outages = f", {count(breaker.outages_total, 'outage')} so far" if breaker.outages_total else ""
    return Component(name, "answers", f"{note}{outages}")


def _at_once(requests: int) -> str:
    return f"{count(requests, 'request')} at one time"


def _issuer(survey: StatusSnapshot) -> str:
    issuer = survey.issuer
    skew_s = round(issuer.skew_s, 1) + 0.0  # there is no minus nought
    skew = f"clock {skew_s:+.1f} ±{issuer.error_s:.1f} s" if issuer.heard else "clock unknown"
    if issuer.known_by:
        skew += f" {_SOURCES[issuer.known_by]}"
    for witness, name in _CLOCKS.items():
        off_s = issuer.offsets_s.get(witness, 0.0)
        if abs(off_s) > CLOCK_NOTED_S:
            skew += f"; {name} {off_s:+.0f} s"
    spare_s = issuer.token.best_remaining_s
    if spare_s is None:
        return f"no token at hand; {skew}"
    life = "no end" if spare_s == float("inf") else f"{duration(spare_s)} left"
    return f"best token: {life}; {skew}"


def _slow(survey: StatusSnapshot) -> Iterator[Component]:
    """Name what is slow, and what that holds back; nothing while all is prompt."""
    slow = survey.slow
    if not slow.names and not slow.parked:
        return
    more = f" and {len(slow.names) - SHOWN} more" if len(slow.names) > SHOWN else ""
    named = clean(", ".join(slow.names[:SHOWN]), REASON)
    wait = f"{count(slow.parked, 'session')} due and waiting for fewer requests there"
    yield Component("Slow", count(len(slow.names), "place"), f"{named}{more}; {wait}", "warn")


def _queue(survey: StatusSnapshot) -> Component:
    queue = survey.queue
    schedule = queue.schedule
    ready, waiting = sum(schedule.ready.values()), sum(schedule.waiting.values())
    note = f"{waiting:,} planned, {schedule.running:,} in hand, {queue.idle_workers:,} idle workers"
    if queue.state != "open":
        return Component("Queue", queue.state, note, "still")
    if schedule.oldest_ready_s > LATE_S:
        late = f"the oldest for {duration(schedule.oldest_ready_s)}; {note}"
        return Component("Queue", f"{ready:,} due", late, "warn")
    return Component("Queue", f"{ready:,} due", note)


def _startup(survey: StatusSnapshot) -> Component:
    startup = survey.startup
    if startup.finished:
        number = count(startup.sessions, "session")
        told = ", ".join(
            f"{startup.outcomes[name]:,} {words}"
            for name, words in _AT_START.items()
            if startup.outcomes.get(name)
        )
        note = f"{told or 'nothing to refresh'} in {startup.seconds:.2f} s"
        # What failed then may have been made up for since.
        failing = startup.outcomes.get("failed", 0) and survey.queue.schedule.failing
        return Component("At start", number, note, "warn" if failing else "good")
    if survey.lease.leading:
        return Component("At start", "under way", "every session is refreshed once", "still")
    return Component("At start", "follows", "every session is refreshed once it leads", "still")
