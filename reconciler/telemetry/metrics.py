"""Every metric with its name, unit, labels and help text; no other metric is exported.

Names follow Prometheus: base units, `_total` for counters. Label values come from small closed
sets; none names a session, except where `RECONCILER_METRICS_PER_SESSION` asks for it. Each replica,
standby or leader, exports what it observes: take `max` over replicas, not `sum`.

`controller/status/status_metrics.py` gives gauges their values and counts runs, and
`app/telemetry.py` adds those of the process.
"""

from typing import Literal, NamedTuple

import msgspec

PREFIX = "token_reconciler_"

Kind = Literal["counter", "gauge", "histogram", "snapshot"]
"""`snapshot`: a distribution at this moment, exported as a histogram; its rate has no meaning."""


class Metric(msgspec.Struct, frozen=True):
    """`bounds` are a histogram's upper bounds, in `unit`; +Inf is added."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


class HistogramValue(NamedTuple):
    """Counts of a histogram, not cumulative: one for each bound, and one for larger values."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class Sample(NamedTuple):
    """One value of a metric; `labels` are values in the order of `Metric.labels`."""

    metric: Metric
    value: float | HistogramValue
    labels: tuple[str, ...] = ()


ALL: list[Metric] = []

_SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0)


def _metric(
    name: str,
    kind: Kind,
    unit: str,
    help_text: str,
    *labels: str,
    bounds: tuple[float, ...] = (),
) -> Metric:
    metric = Metric(PREFIX + name, kind, unit, help_text, labels, bounds)
    ALL.append(metric)
    return metric


# Tokens and sessions.
EXPOSURE = _metric(
    "estimated_exposure_seconds_total", "counter", "s",
    "Time for which pods are estimated to have held an expired token: from the written expiry, or"
    " the earliest start of the pod's container, until the next token was written and the kubelet"
    " had time to project it, summed over pods.",
)  # fmt: skip
EXPOSURE_GREW = _metric(
    "estimated_exposure_last_increase_timestamp_seconds", "gauge", "s",
    "When the estimated exposure has last grown, seconds since the epoch by our clock; absent while"
    " it never has. The status page names the sessions.",
)  # fmt: skip
REMAINING = _metric(
    "remaining_life_seconds", "snapshot", "s",
    "Life left of the tokens in the Secrets now, a distribution over sessions; it has no rate.",
)  # fmt: skip
REMAINING_MIN = _metric(
    "remaining_life_min_seconds", "gauge", "s",
    "Shortest life left of a token whose pod lives; negative once it has expired.",
    "shard",
)  # fmt: skip
SURVIVAL = _metric(
    "fleet_survival_seconds", "gauge", "s",
    "Time until the first pod holds an expired token if the issuer is unreachable from now on.",
)  # fmt: skip
STANDBY = _metric(
    "standby_token_remaining_seconds", "gauge", "s",
    "Life left of the standby token; absent while there is none.",
)  # fmt: skip
LIFE = _metric(
    "token_life_seconds", "gauge", "s",
    "Life of the token received last, from its issue to its expiry; absent before the first.",
)  # fmt: skip
ALLOWANCE = _metric(
    "propagation_allowance_seconds", "gauge", "s",
    "Time that the kubelet may take to project a changed Secret into the pod, as set.",
)  # fmt: skip
SESSIONS = _metric(
    "sessions", "gauge", "{session}",
    "Confirmed sessions that are not blocked, by the state of their token, as `reconciler status`"
    " names it: ok, due, no_expiry, overdue, expiring (less left than the propagation allowance),"
    " expired, no_secret, no_token, name_taken, unreadable, foreign_writer, unmanaged, unknown (the"
    " namespace's Secrets are not listed yet).",
    "state",
)  # fmt: skip
BLOCKED = _metric(
    "sessions_blocked", "gauge", "{session}",
    "Sessions to which nothing is written, by the reason: paused, not_confirmed, secret_name_taken,"
    " pod_leaving. They count in no other figure of the fleet.",
    "reason",
)  # fmt: skip
UNCONFIRMED = _metric(
    "sessions_unconfirmed", "gauge", "{session}",
    "Sessions with objects in the cluster that the platform has not confirmed, or no longer has;"
    " they get no token and count in no other figure of the fleet.",
)  # fmt: skip
FAILING = _metric(
    "sessions_failing", "gauge", "{session}",
    "Confirmed sessions that are to be refreshed and whose last attempt failed.",
)  # fmt: skip
SESSION_REMAINING = _metric(
    "session_remaining_life_seconds", "gauge", "s",
    "Life left of one session's token; only with RECONCILER_METRICS_PER_SESSION.",
    "namespace", "session_id",
)  # fmt: skip

# Refreshes.
REFRESHES = _metric(
    "refreshes_total", "counter", "{refresh}",
    "Runs that did or should have written a token, by result (success, failure, no_better_token,"
    " conflict_backoff: another writer writes the Secret, too) and by what made them due.",
    "result", "reason",
)  # fmt: skip
OVERWRITES = _metric(
    "overwrites_total", "counter", "{overwrite}",
    "Tokens of ours that another writer had replaced and that were written again, by whether that"
    " Secret was overwritten before, no longer than 30 min ago (isolated: up to twice, repeated).",
    "pattern",
)  # fmt: skip
ERRORS = _metric(
    "refresh_errors_total", "counter", "{error}", "Failed attempts by class of error.", "error"
)
LATENESS = _metric(
    "lateness_seconds", "histogram", "s",
    "Start of a run less the instant at which it was due, by priority; of a run that writes, less"
    " the instant at which that was first due, however often it was tried.",
    "priority", bounds=_LONG_S,
)  # fmt: skip
QUEUE_WAIT = _metric(
    "workqueue_queue_duration_seconds", "histogram", "s",
    "How long a session that could run waited for a worker, by priority.",
    "priority", bounds=_LONG_S,
)  # fmt: skip
RUN = _metric(
    "reconcile_duration_seconds", "histogram", "s",
    "Length of a run that wrote or failed, all its requests included.",
    bounds=_SHORT_S,
)  # fmt: skip
WRITE = _metric(
    "write_duration_seconds", "histogram", "s",
    "Length of one write to the API server, by what was done (patch, create: the Secret; touch: the"
    " pod's annotation) and by result (success, or the class of error).",
    "write", "result", bounds=_SHORT_S,
)  # fmt: skip
TOKEN_REQUEST = _metric(
    "token_request_duration_seconds", "histogram", "s",
    "Length of a request to the issuer, those for the standby token included, by result.",
    "result", bounds=_SHORT_S,
)  # fmt: skip
TOUCHES = _metric("pod_touches_total", "counter", "{pod}", "Pods asked to look at their Secret.")
CREATED = _metric("secrets_recreated_total", "counter", "{secret}", "Missing Secrets made again.")
PANICS = _metric(
    "reconcile_panics_total",
    "counter",
    "{crash}",
    "Runs that ended in a defect of ours; see the log.",
)
STARTUP = _metric(
    "startup_resync_seconds", "gauge", "s",
    "How long the startup resync took; absent until it has finished.",
)  # fmt: skip

# The queue.
QUEUE_DEPTH = _metric(
    "workqueue_depth", "gauge", "{session}",
    "Sessions in the queue by priority, ready (due, no worker yet) or waiting (for their time).",
    "priority", "stage",
)  # fmt: skip
RUNNING = _metric("active_workers", "gauge", "{session}", "Sessions that workers reconcile now.")
QUEUE_BLOCKED = _metric(
    "workqueue_blocked", "gauge", "{session}",
    "Sessions that wait until an endpoint is reachable again.",
    "endpoint",
)  # fmt: skip
OLDEST = _metric(
    "queue_oldest_ready_seconds", "gauge", "s", "Wait of the session that is ready longest."
)
OVERDUE = _metric(
    "queue_longest_overdue_seconds", "gauge", "s",
    "For how long the most urgent ready session has had no slack left.",
)  # fmt: skip

SLOW_TARGETS = _metric(
    "slow_targets", "gauge", "{target}",
    "Namespaces, pods of a namespace, the platform or the issuer, whose requests took more than a"
    " second within the last minute: few requests are sent there. The page and the log name them.",
)  # fmt: skip
PARKED = _metric(
    "sessions_parked", "gauge", "{session}",
    "Sessions that are due and wait until fewer requests are in progress at a target.",
)  # fmt: skip
PLATFORM_ALLOWED = _metric(
    "platform_requests_allowed", "gauge", "{request}",
    "Requests that may be in progress at the platform at one time: RECONCILER_PLATFORM_PARALLEL"
    " while it answers promptly, fewer while it is slow or fails.",
)  # fmt: skip

# Dependencies: the API server, the platform, the issuer, the Lease.
WATCH_SYNCED = _metric(
    "watch_synced", "gauge", "1",
    "1 once a first list is in the store; namespace is empty where all are watched.",
    "resource", "namespace",
)  # fmt: skip
WATCH_SILENCE = _metric(
    "watch_silence_seconds", "gauge", "s",
    "Time since the last event, bookmark or answer of a watch; bookmarks come about once a minute.",
    "resource", "namespace",
)  # fmt: skip
WATCH_EVENTS = _metric(
    "watch_events_total", "counter", "{event}", "Events of a watch.", "resource", "namespace"
)
BOOKMARKS = _metric(
    "watch_bookmarks_total", "counter", "{bookmark}", "Bookmarks of a watch.",
    "resource", "namespace",
)  # fmt: skip
RELISTS = _metric(
    "relists_total", "counter", "{list}", "Complete lists after the first one.",
    "resource", "namespace",
)  # fmt: skip
WATCH_ERRORS = _metric(
    "watch_errors_total", "counter", "{error}", "Failed lists and watches.",
    "resource", "namespace",
)  # fmt: skip
WATCH_SKIPPED = _metric(
    "watch_skipped_objects_total", "counter", "{object}",
    "Objects of lists and watch events that could not be read: no session is known from them.",
    "resource", "namespace",
)  # fmt: skip
WATCH_PANICS = _metric(
    "watch_handler_panics_total", "counter", "{crash}",
    "Changes of objects whose handling ended in a defect of ours; see the log.",
    "resource", "namespace",
)  # fmt: skip
DOWN = _metric(
    "endpoint_down", "gauge", "1",
    "1 while an endpoint (kube, platform, issuer) is unreachable, or refuses our credentials, and"
    " callers wait for its probe.",
    "endpoint",
)  # fmt: skip
REFUSED = _metric(
    "endpoint_refused", "gauge", "1",
    "1 while an endpoint (issuer, platform) answers and refuses us: a wrong client secret, a"
    " disabled client, a scope or audience that the client does not have, an account without"
    " rights. Nothing heals it but a change.",
    "endpoint",
)  # fmt: skip
OUTAGES = _metric(
    "endpoint_outages_total", "counter", "{outage}", "Outages of an endpoint.", "endpoint"
)
SKEW = _metric(
    "issuer_clock_skew_seconds", "gauge", "s",
    "The issuer's time less our wall clock; absent before its first answer.",
)  # fmt: skip
SKEW_ERROR = _metric(
    "issuer_clock_error_seconds", "gauge", "s", "How far the skew may be off, either way."
)
CLOCK_OFFSET = _metric(
    "clock_offset_seconds", "gauge", "s",
    "A clock less the issuer's time: wall_clock is this machine's, issuer_date and api_server_date "
    "are Date headers; absent before the first answer.",
    "clock",
)  # fmt: skip
LEADER = _metric("leader", "gauge", "1", "1 while this replica may write.", "shard")
SHARDS = _metric(
    "shards", "gauge", "{shard}", "Parts of all sessions, of which this replica has one."
)
TRANSITIONS = _metric(
    "lease_transitions_total", "counter", "{transition}", "Changes of the leader seen."
)
FENCED = _metric(
    "writes_fenced_total", "counter", "{write}",
    "Writes stopped at the fence since this replica was not sure to lead.",
)  # fmt: skip
EVENTS = _metric(
    "events_total", "counter", "{event}",
    "Kubernetes Events by what became of them: created, updated, suppressed (too many of one"
    " object), dropped (queue full or server unreachable), refused.",
    "result",
)  # fmt: skip
TELEMETRY = _metric(
    "telemetry_items_total", "counter", "{item}",
    "Traces by what became of them: sent, failed, dropped (queue full).",
    "signal", "result",
)  # fmt: skip
LOG_DROPPED = _metric(
    "log_lines_dropped_total", "counter", "{line}",
    "Lines of the log that were dropped, since no process read standard error in time.",
)  # fmt: skip
LOOP_LAG = _metric(
    "event_loop_lag_seconds", "histogram", "s",
    "How much later than due a timer of the main event loop ran, measured up to fifty times a"
    " second; a callback that blocks the loop, or a core that is not free, makes it late.",
    bounds=_SHORT_S,
)  # fmt: skip
BUILD = _metric("build_info", "gauge", "1", "Always 1; the version is the label.", "version")
