"""The description of one pod's token, as sentences (pure)."""

from reconciler.clock import EpochTime, parse_utc
from reconciler.controller.decide.refresh_plan import EARLIEST, GRID
from reconciler.controller.decide.token_state import TokenState
from reconciler.humanize import ago, clean, count, duration, instant, listed, reason, span
from reconciler.inspection.events import PAUSED, EventSummary
from reconciler.inspection.pod_token import PodToken
from reconciler.inspection.replicas import SHOWN, ObservedReplica
from reconciler.inspection.report import PodReport, describe_leader
from reconciler.naming import NO_ANNOTATIONS, Names


def explain(report: PodReport) -> list[str]:
    """Return the description: the pod, its token, the next refresh, failures, and the replicas."""
    lease = f"{report.lease_namespace}/{report.lease_name}"
    sentences = [
        _pod(report),
        _token(report),
        _last_write(report),
        _next_refresh(report),
        _confirmation(report),
        _subpath(report),
        _other_secrets(report),
        *_events(report),
        describe_leader(report.leader, lease, report.now_s),
        *_replica_reports(report),
        *_replicas(report),
    ]
    return [each for each in sentences if each]


def _pod(report: PodReport) -> str:
    pod = report.pod_token.pod
    state = "has ended" if report.ended else "is being deleted" if pod.is_deleting else "is live"
    project = f" of project {clean(pod.project_id)}" if pod.project_id else ""
    line = (
        f"The pod {state}; it was created {ago(report.now_s - pod.created_s)} for session "
        f"{clean(pod.session_id)}{project}."
    )
    if report.sibling_pods:
        siblings = listed([f"pod {name}" for name in report.sibling_pods])
        line += f" It shares its Secret with {siblings}."
    return line


def _token(report: PodReport) -> str:
    token, secret = report.pod_token, f"Secret {report.secret}"
    match token.state:
        case TokenState.NO_SECRET if token.unlabelled:
            return (
                f"{secret} exists without the label {report.names.session_id}: the controller does "
                "not see it, and cannot create another of the same name."
            )
        case TokenState.NO_SECRET:
            return f"{secret} does not exist, so the pod has no token to read."
        case TokenState.NO_TOKEN:
            return f"{secret} has no {report.names.secret_key}."
        case TokenState.NAME_TAKEN:
            owner = clean(token.secret.session_id) if token.secret is not None else ""
            why = f"but its name is that of session {clean(token.pod.session_id)}"
            if report.shares_its_name:
                why = "and both sessions' IDs give the same name when shortened and in lower case"
            return f"{secret} belongs to session {owner} by its label, {why}."
        case TokenState.FOREIGN_WRITER:
            return (
                f"{secret} has a token that {_writers(token, report.names)} wrote over ours; its "
                "expiry is unknown, since the value is never read."
            )
        case TokenState.UNMANAGED:
            return (
                f"{secret} has a token that {_writers(token, report.names)} wrote, and the "
                "controller never did; its expiry is unknown, since the value is never read."
            )
        case TokenState.UNCONFIRMED:
            return (
                f"{secret} has our annotations without proof that the platform has confirmed the "
                "session: what they say of its token is not believed."
            )
        case TokenState.UNREADABLE:
            return f"{secret} has a token of ours, but {_problem(report)}."
    if token.expires_s is None or token.issued_s is None:
        return f"{secret} has a token without an expiry."
    life = f"issued {instant(token.issued_s)}, for {span(token.expires_s - token.issued_s)}"
    left_s = token.expires_s - report.now_s
    if left_s <= 0:
        return (
            f"{secret} has an expired token: it expired {duration(-left_s)} ago, at "
            f"{instant(token.expires_s)} ({life})."
        )
    return (
        f"{secret} has a token that is valid for another {duration(left_s)}, until "
        f"{instant(token.expires_s)} ({life})."
    )


def _problem(report: PodReport) -> str:
    """Return what is wrong with the annotations, and their values."""
    names, secret = report.names, report.pod_token.secret
    annotations = secret.annotations if secret is not None else NO_ANNOTATIONS
    expires, issued = (
        repr(clean(text)) if text is not None else "missing"
        for text in (annotations.expires_at, annotations.issued_at)
    )
    values = f"{names.expires_at} is {expires}, {names.issued_at} is {issued}"
    match report.pod_token.reason:
        case "expiry_too_far":
            return f"its expiry is later than any token's life allows ({values})"
        case "expiry_impossible":
            issued_s = parse_utc(annotations.issued_at or "")
            if issued_s is not None and issued_s > report.now_s:
                ahead = duration(issued_s - report.now_s)
                return (
                    f"it was issued {ahead} in the future by the API server's clock ({values}):"
                    " the issuer's clock is ahead of it, or a writer made these times up"
                )
            return f"its times contradict each other ({values})"
    return f"its expiry cannot be read ({values})"


def _last_write(report: PodReport) -> str:
    token = report.pod_token
    if token.secret is None or token.unlabelled or token.state is TokenState.NAME_TAKEN:
        return ""
    if not token.refreshed_by:
        return f"No replica of the controller has written {report.secret}."
    by = clean(token.refreshed_by)
    when = "at an unknown time (the annotation cannot be read)"
    if token.refreshed_s is not None:
        when = f"{ago(report.now_s - token.refreshed_s)}, at {instant(token.refreshed_s)}"
    if token.state in (TokenState.FOREIGN_WRITER, TokenState.NO_TOKEN):
        return f"The controller last wrote it {when}, as {by}."
    if token.other_writers(report.names):
        others = _writers(token, report.names)
        return f"It was written {when}, by {by}; {others} owns the value, too."
    return f"It was written {when}, by {by}; there is no other writer since."


def _next_refresh(report: PodReport) -> str:
    token = report.pod_token
    if report.ended:
        return "The pod has ended, so its token is not refreshed."
    requested = f" A refresh is requested ({report.names.requested_at})." if token.requested else ""
    if token.paused:
        where = _where_paused(report)
        return f"It is not refreshed: {where} has {report.names.paused}.{requested}"
    if token.state is TokenState.NAME_TAKEN:
        if not report.shares_its_name:
            return f"Nothing is written until the label {report.names.session_id} is correct."
        return "Nothing is written for this session: the other one would read its token."
    if token.unlabelled:
        return f"Nothing is written until the Secret has its labels again.{requested}"
    if token.secret is None and token.pod.is_deleting:
        return "No Secret is created for a pod that is being deleted."
    if token.state is TokenState.UNCONFIRMED:
        return f"Nothing is written until the platform confirms the session.{requested}"
    if token.refresh_at_s is None or token.issued_s is None or token.expires_s is None:
        if token.endless:
            return f"No refresh is scheduled.{requested}"
        return f"A refresh is due now; it needs a leader, and a confirmed session.{requested}"
    ttl_s = token.expires_s - token.issued_s
    age_s = token.refresh_at_s - token.issued_s
    schedule = (
        f"the pod's UID sets its refresh times, one every {span(GRID * ttl_s)}, and this is the "
        f"one at which the token's age is {EARLIEST:.0%}-{EARLIEST + GRID:.0%} of its life "
        f"({age_s / ttl_s:.0%})"
    )
    late_s = report.now_s - token.refresh_at_s
    due = (
        f"Its scheduled refresh was due {duration(late_s)} ago"
        if late_s > 0
        else f"Its next scheduled refresh is in {duration(-late_s)}"
    )
    return f"{due}, at {instant(token.refresh_at_s)}: {schedule}.{requested}"


def _where_paused(report: PodReport) -> str:
    secret = report.pod_token.secret
    if secret is not None and secret.annotations.paused == "true":
        return "the Secret"
    return "the pod"


def _confirmation(report: PodReport) -> str:
    token = report.pod_token
    if token.secret is None or token.unlabelled or token.state is TokenState.NAME_TAKEN:
        return ""
    if token.confirmed:
        return (
            "The platform has confirmed this session, by a signed annotation that only the "
            "controller can verify."
        )
    return (
        "The platform has not confirmed this session yet (the Secret has no signed annotation); it "
        "must do so before the first write."
    )


def _subpath(report: PodReport) -> str:
    containers = [f"container {clean(name)}" for name in report.subpath_containers]
    if report.ended or not containers:
        return ""
    return (
        f"The kubelet never updates the token's file in {listed(containers)}: the "
        "Secret is mounted by subPath. Such a container keeps the token that it started with."
    )


def _other_secrets(report: PodReport) -> str:
    if report.ended or not report.other_secrets:
        return ""
    others = listed([f"Secret {name}" for name in report.other_secrets])
    return f"The pod has no volume of Secret {report.secret}, but of {others}."


def _events(report: PodReport) -> list[str]:
    if report.events_error:
        return [f"Recent failures are unknown: {report.events_error}."]
    # An Event about a pause is out of date when there is no annotation any more.
    paused = report.pod_token.paused
    events = [each for each in report.events if paused or each.reason != PAUSED]
    if not events:
        return ["The controller has no recent Event on this pod."]
    return [_event(each, report.now_s) for each in events]


def _event(each: EventSummary, now_s: EpochTime) -> str:
    times = (
        "" if each.count == 1 else f", {count(each.count, 'time')} since {instant(each.first_s)}"
    )
    kind = "Warning" if each.is_warning else "Normal"
    message = reason(each.message).rstrip(".")
    return f"{kind} {clean(each.reason)} ({ago(now_s - each.last_s)}{times}): {message}."


def _replica_reports(report: PodReport) -> list[str]:
    """Return what keeps replicas from refreshing tokens, or that this is unknown."""
    if report.reports_error:
        return [f"What the replicas report on the Lease is unknown: {report.reports_error}."]
    return [
        f"Replica {clean(each.reporter) or 'without a name'} reports {clean(each.reason)} "
        f"({ago(report.now_s - each.last_s)}): {reason(each.message).rstrip('.')}."
        for each in report.reports
    ]


def _replicas(report: PodReport) -> list[str]:
    """Return why controller pods are not ready; nothing for those that are."""
    if report.replicas_error:
        return [f"The state of the controller's pods is unknown: {report.replicas_error}."]
    is_running = report.leader.holder or report.reports or report.reports_error
    if report.other_shards:
        return [
            f"No pod of the controller in namespace {report.lease_namespace} has a shard with this "
            f"session: they have {', '.join(report.other_shards)}."
        ]
    if not report.replicas and not is_running:
        return [
            f"Namespace {report.lease_namespace} has no pod of the controller, and no replica has "
            "reported on the Lease: none runs, none reaches this API server, or none has the right "
            "to write Events there. The controller's log and `reconciler check` show which."
        ]
    return [_replica(each, report.now_s) for each in report.replicas if not each.ready][:SHOWN]


def _replica(each: ObservedReplica, now_s: EpochTime) -> str:
    line = f"Controller pod {each.name} is not ready"
    if each.waiting:
        line += f": {reason(each.waiting).rstrip('.')}"
    if each.exit_code is None:
        return f"{line}."
    when = "" if each.ended_s is None else f" {ago(now_s - each.ended_s)}"
    message = f": {reason(each.message).rstrip('.')}" if each.message else ""
    restarts = count(each.restarts, "restart")
    return f"{line}; after {restarts} it ended{when} with exit code {each.exit_code}{message}."


def _writers(token: PodToken, names: Names) -> str:
    return listed([clean(writer) for writer in token.other_writers(names)]) or "an unknown writer"
