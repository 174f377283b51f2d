"""What the refreshes depend on, one line each: leader, endpoints, watches, queue (pure)."""

from collections.abc import Iterator, Sequence

import msgspec

from reconciler.controller.decide.write_errors import PERMISSIONS
from reconciler.controller.status.snapshot import StatusSnapshot
from reconciler.humanize import REASON, clean, count, duration, listed, reason
from reconciler.informer.reflector import ReflectorStats
from reconciler.net.circuit_breaker import BreakerStats
from reconciler.statuspage.identity import leader_name
from reconciler.statuspage.session_row import Severity

STALE_S = 90.0
"""Bookmarks arrive each minute, and a watch that is silent for 80 s is restarted."""

CLOCK_WARN_S = 5.0
"""As in `check`: synchronised machines differ by less."""

_CLOCKS = {"issuer_date": "its Date header", "api_server_date": "the API server"}
"""Names of the clocks other than this machine's, by source."""

_SOURCES = {
    "token": "by its tokens",
    "expires_in": "by its tokens",
    "memory": "as last known",
    "issuer_date": "by its Date header",
    "api_server_date": "by the API server",
    "wall_clock": "by this machine",
}

_STARTUP_OUTCOMES = ("refreshed", "unchanged", "blocked", "failed")
"""Outcomes of the startup resync that are shown, in this order."""

MAX_NAMED = 5
"""Most slow targets that are named."""

LATE_S = 5.0
"""A session that is due for longer shows that there are too few workers, or that they hang."""


class Component(msgspec.Struct, frozen=True):
    """One line: the name, its state in a word or two, and the details."""

    name: str
    value: str
    note: str
    severity: Severity = "good"


def role(snapshot: StatusSnapshot) -> str:
    """Return the role of this replica."""
    return "leader" if snapshot.lease.leading else "standby"


def components(
    snapshot: StatusSnapshot, replica: str, ignored: Sequence[str] = ()
) -> tuple[Component, ...]:
    """Return every component, in the order in which a refresh needs them.

    A standby has no line for what only the leader uses: the platform, the queue, the startup.

    Args:
        ignored: One message for each variable that is no setting.
    """
    return (
        *(
            [Component("Settings", "unknown variables", clean("; ".join(ignored), REASON), "warn")]
            if ignored
            else []
        ),
        _leader(snapshot, replica),
        *_watches(snapshot),
        *_endpoints(snapshot),
        *(
            [*_slow(snapshot), _queue(snapshot), _startup(snapshot)]
            if snapshot.lease.leading
            else []
        ),
    )


def _leader(snapshot: StatusSnapshot, replica: str) -> Component:
    lease = snapshot.lease
    changes = count(lease.transitions, "leader change")
    if lease.fenced_total:
        changes += f", {count(lease.fenced_total, 'write')} blocked"
    if lease.leading:
        return Component("Leader", clean(replica), f"this replica; {changes}")
    if not lease.leader:
        return Component("Leader", "none", "no replica writes until one acquires the Lease", "bad")
    return Component("Leader", clean(leader_name(lease)), f"this replica is standby; {changes}")


def _watches(snapshot: StatusSnapshot) -> Iterator[Component]:
    silent, failing, unsynced, silences, errors = [], [], [], [], []
    for watch in snapshot.watches:
        if not watch.synced:
            unsynced.append(_watched(watch))
            errors.append(watch.protocol.last_error)
        elif watch.protocol.failures > 1:
            failing.append(_watched(watch))
            errors.append(watch.protocol.last_error)
        elif watch.silent_s is not None and watch.silent_s > STALE_S:
            silent.append(_watched(watch))
        if watch.silent_s is not None:
            silences.append(watch.silent_s)
    relists = sum(watch.protocol.relists for watch in snapshot.watches)
    last = f"last answer {duration(max(silences))} ago" if silences else "no answer yet"
    note = f"{last}, {count(relists, 'relist')}"
    error = next((f"; {reason(each)}" for each in errors if each), "")
    if unsynced:
        yield Component("Watches", "not synced", f"{clean(listed(unsynced))}{error}", "bad")
    elif failing:
        yield Component("Watches", "failing", f"{clean(listed(failing))}{error}", "warn")
    elif silent:
        yield Component("Watches", "silent", f"{clean(listed(silent))}; {note}", "warn")
    else:
        yield Component("Watches", f"{len(snapshot.watches)} synced", note)


def _watched(watch: ReflectorStats) -> str:
    return f"{watch.resource} in {watch.namespace}" if watch.namespace else watch.resource


def _endpoints(snapshot: StatusSnapshot) -> Iterator[Component]:
    notes = {
        "kube": _written(snapshot) if snapshot.lease.leading else "no write by a standby",
        "issuer": _issuer(snapshot),
        "platform": f"{count(snapshot.listed_running, 'running session')} in its list"
        + ("" if snapshot.platform_allowed is None else f", {_limit(snapshot.platform_allowed)}"),
    }
    names = {"kube": "API server", "issuer": "Issuer", "platform": "Platform"}
    for breaker in snapshot.breakers:
        if breaker.name == "platform" and not snapshot.lease.leading:
            continue
        part = _endpoint(
            names.get(breaker.name, breaker.name), breaker, notes.get(breaker.name, "")
        )
        yield _api_server(snapshot, part) if breaker.name == "kube" else part


def _api_server(snapshot: StatusSnapshot, part: Component) -> Component:
    """Return the API server's line; it is not healthy if it denies a right that is used."""
    waiting = snapshot.queue.schedule.blocked.get(PERMISSIONS, 0)
    denied = [each.protocol.last_error for each in snapshot.watches if each.is_forbidden]
    if part.severity == "bad" or not (waiting or denied):
        return part
    error = reason(snapshot.reconciler.last_forbidden if waiting else denied[0])
    value = f"denies {count(waiting, 'session')}" if waiting else "denies lists"
    return Component(part.name, value, f"a right is missing: {error}", "bad")


def _endpoint(name: str, breaker: BreakerStats, note: str) -> Component:
    if breaker.down:
        error = reason(breaker.last_error)
        return Component(name, f"unreachable for {duration(breaker.down_for_s)}", error, "bad")
    if breaker.refuses:
        error = reason(breaker.last_error)
        return Component(name, f"rejects us for {duration(breaker.refused_for_s)}", error, "bad")
    if not breaker.was_tried:
        return Component(name, "no request yet", note, "neutral")
    if breaker.failures:
        failed = f"{count(breaker.failures, 'failure')} in a row: {reason(breaker.last_error)}"
        return Component(name, "failing", failed, "warn")
    outages = f", {count(breaker.outages_total, 'outage')}" if breaker.outages_total else ""
    return Component(name, "OK", f"{note}{outages}")


def _written(snapshot: StatusSnapshot) -> str:
    stats = snapshot.reconciler
    return f"{stats.pod_touches_total:,} touches, {stats.created_total:,} Secrets created"


def _limit(requests: int) -> str:
    return f"at most {count(requests, 'request')} at a time"


def _issuer(snapshot: StatusSnapshot) -> str:
    issuer = snapshot.issuer
    skew_s = round(issuer.skew_s, 1) + 0.0  # -0.0 is shown as +0.0
    skew = f"clock {skew_s:+.1f} ±{issuer.error_s:.1f} s" if issuer.heard else "clock unknown"
    if issuer.known_by:
        skew += f" {_SOURCES[issuer.known_by]}"
    for clock, name in _CLOCKS.items():
        off_s = issuer.offsets_s.get(clock, 0.0)
        if abs(off_s) > CLOCK_WARN_S:
            skew += f"; {name} {off_s:+.0f} s"
    standby_s = issuer.token.best_remaining_s
    if standby_s is None:
        return f"no standby token; {skew}"
    life = "no expiry" if standby_s == float("inf") else f"{duration(standby_s)} left"
    return f"standby token: {life}; {skew}"


def _slow(snapshot: StatusSnapshot) -> Iterator[Component]:
    """Return the slow targets and how many sessions wait for them; nothing if there are none."""
    slow = snapshot.slow
    if not slow.names and not slow.parked:
        return
    more = f" and {len(slow.names) - MAX_NAMED} more" if len(slow.names) > MAX_NAMED else ""
    named = clean(", ".join(slow.names[:MAX_NAMED]), REASON)
    wait = f"{count(slow.parked, 'due session')} waiting for fewer requests there"
    yield Component("Slow", count(len(slow.names), "target"), f"{named}{more}; {wait}", "warn")


def _queue(snapshot: StatusSnapshot) -> Component:
    queue = snapshot.queue
    schedule = queue.schedule
    ready, waiting = sum(schedule.ready.values()), sum(schedule.waiting.values())
    note = (
        f"{waiting:,} scheduled, {schedule.running:,} running, {queue.idle_workers:,} idle workers"
    )
    if queue.state != "open":
        return Component("Queue", queue.state, note, "neutral")
    if schedule.oldest_ready_s > LATE_S:
        late = f"the oldest for {duration(schedule.oldest_ready_s)}; {note}"
        return Component("Queue", f"{ready:,} due", late, "warn")
    return Component("Queue", f"{ready:,} due", note)


def _startup(snapshot: StatusSnapshot) -> Component:
    startup = snapshot.startup
    if startup.finished:
        number = count(startup.sessions, "session")
        outcomes = ", ".join(
            f"{startup.outcomes[name]:,} {name}"
            for name in _STARTUP_OUTCOMES
            if startup.outcomes.get(name)
        )
        note = f"{outcomes or 'nothing to refresh'} in {startup.seconds:.2f} s"
        # A session that failed then may have been refreshed since.
        failing = startup.outcomes.get("failed", 0) and snapshot.queue.schedule.failing
        return Component("Startup", number, note, "warn" if failing else "good")
    if snapshot.lease.leading:
        return Component("Startup", "in progress", "every session is refreshed once", "neutral")
    return Component("Startup", "standby", "a new leader refreshes every session once", "neutral")
