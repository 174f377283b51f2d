"""Everything there is to say of one pod's token, in sentences (pure)."""

from reconciler.controller.decide.refresh_times import EARLIEST, GRID
from reconciler.controller.decide.token_state import TokenState
from reconciler.humanize import ago, clean, count, duration, instant, listed, reason, span
from reconciler.inspection import report
from reconciler.inspection.events import PAUSED, EventSummary
from reconciler.inspection.pod_token import PodToken
from reconciler.inspection.replicas import SHOWN, ObservedReplica
from reconciler.inspection.report import PodReport
from reconciler.naming import Names


def explain(account: PodReport) -> list[str]:
    """Return the account, one sentence or two an item, in the order in which one would ask."""
    told = [
        _who(account),
        _holds(account),
        _written(account),
        _renewal(account),
        _confirmed(account),
        *_failures(account),
        report.tell(
            account.leader, f"{account.lease_namespace}/{account.lease_name}", account.now_s
        ),
        *_reports(account),
        *_replicas(account),
    ]
    return [each for each in told if each]


def _who(account: PodReport) -> str:
    pod = account.pod_token.pod
    fate = "has ended" if account.ended else "is being deleted" if pod.is_deleting else "lives"
    project = f" of project {clean(pod.project_id)}" if pod.project_id else ""
    line = (
        f"The pod {fate}; it was made {ago(account.now_s - pod.created_s)} for session "
        f"{clean(pod.session_id)}{project}."
    )
    if account.sibling_pods:
        line += (
            f" The same Secret serves {listed([f'pod {name}' for name in account.sibling_pods])}."
        )
    return line


def _holds(account: PodReport) -> str:
    row, secret = account.pod_token, f"Secret {account.secret}"
    match row.state:
        case TokenState.NO_SECRET if row.unlabelled:
            return (
                f"{secret} is there, but without the label {account.names.session_id}; the "
                "controller does not see it, and cannot make it anew."
            )
        case TokenState.NO_SECRET:
            return f"{secret} does not exist, so the pod has no token to read."
        case TokenState.NO_TOKEN:
            return f"{secret} holds no {account.names.secret_key}."
        case TokenState.NAME_TAKEN:
            owner = clean(row.secret.session_id) if row.secret is not None else ""
            return (
                f"{secret} belongs to session {owner}, whose name is the same when cut and in "
                "lower case."
            )
        case TokenState.FOREIGN_WRITER:
            return (
                f"{secret} holds a token that {_others(row, account.names)} wrote over ours; until "
                "when it is good cannot be told, since no value is ever read."
            )
        case TokenState.UNMANAGED:
            return (
                f"{secret} holds the token that {_others(row, account.names)} put there; until "
                "when it is good cannot be told, since no value is ever read."
            )
        case TokenState.UNCONFIRMED:
            return (
                f"{secret} has our annotations and no proof that the platform has confirmed the "
                "session: what they say of its token is not believed."
            )
        case TokenState.UNREADABLE:
            return f"{secret} holds a token of ours, and {_disbelief(account)}."
    if row.expires_s is None or row.issued_s is None:
        return f"{secret} holds a token without an expiry."
    life = f"issued {instant(row.issued_s)}, for {span(row.expires_s - row.issued_s)}"
    left_s = row.expires_s - account.now_s
    if left_s <= 0:
        return (
            f"{secret} holds a dead token: it expired {duration(-left_s)} ago, at "
            f"{instant(row.expires_s)} ({life})."
        )
    return (
        f"{secret} holds a token that is good for another {duration(left_s)}, until "
        f"{instant(row.expires_s)} ({life})."
    )


def _disbelief(account: PodReport) -> str:
    """Say what is wrong with the annotations, with what they say."""
    names, secret = account.names, account.pod_token.secret
    annotations = secret.annotations if secret is not None else {}
    expires, issued = (
        repr(clean(annotations[name])) if name in annotations else "nothing"
        for name in (names.expires_at, names.issued_at)
    )
    said = f"{names.expires_at} says {expires}, {names.issued_at} says {issued}"
    match account.pod_token.reason:
        case "expiry_too_far":
            return f"its expiry is further ahead than a token lives ({said})"
        case "expiry_impossible":
            return f"its times contradict each other ({said})"
    return f"its expiry cannot be read ({said})"


def _written(account: PodReport) -> str:
    row = account.pod_token
    if row.secret is None or row.unlabelled or row.state is TokenState.NAME_TAKEN:
        return ""
    if not row.refreshed_by:
        return f"No replica of the controller has written {account.secret} so far."
    by = clean(row.refreshed_by)
    when = "at a time that its annotation does not tell"
    if row.refreshed_s is not None:
        when = f"{ago(account.now_s - row.refreshed_s)}, at {instant(row.refreshed_s)}"
    others = row.other_writers(account.names)
    if row.state in (TokenState.FOREIGN_WRITER, TokenState.NO_TOKEN):
        return f"The controller last wrote it {when}, as {by}."
    if others:
        return f"It was written {when}, by {by}; {_others(row, account.names)} owns it too."
    return f"It was written {when}, by {by}; nobody else has written it since."


def _renewal(account: PodReport) -> str:
    row = account.pod_token
    if account.ended:
        return "The pod has ended, so nothing is renewed for it."
    asked = f" Somebody asked for one ({account.names.requested_at})." if row.requested else ""
    if row.paused:
        return f"It is not renewed: {_where_paused(account)} says {account.names.paused}.{asked}"
    if row.state is TokenState.NAME_TAKEN:
        return "Nothing is written for this session, or it would get the other one's token."
    if row.unlabelled:
        return f"Nothing is written before the Secret has its labels back.{asked}"
    if row.secret is None and row.pod.is_deleting:
        return "No Secret is made for a pod that is being deleted."
    if row.state is TokenState.UNCONFIRMED:
        return f"Nothing is written before the platform confirms the session.{asked}"
    if row.refresh_at_s is None or row.issued_s is None or row.expires_s is None:
        if row.endless:
            return f"There is nothing to renew.{asked}"
        return f"It is due now, as soon as a controller works and knows the session.{asked}"
    ttl_s = row.expires_s - row.issued_s
    age_s = row.refresh_at_s - row.issued_s
    grid = (
        f"the pod's UID puts its renewals on a grid of {span(GRID * ttl_s)}, and this is the one "
        f"instant of it at which the token's age is {EARLIEST:.0%}-{EARLIEST + GRID:.0%} of its "
        f"life ({age_s / ttl_s:.0%})"
    )
    late_s = account.now_s - row.refresh_at_s
    will = (
        f"Its renewal was due {duration(late_s)} ago"
        if late_s > 0
        else f"It will be renewed in {duration(-late_s)}"
    )
    return f"{will}, at {instant(row.refresh_at_s)}: {grid}.{asked}"


def _where_paused(account: PodReport) -> str:
    secret = account.pod_token.secret
    if secret is not None and secret.annotations.get(account.names.paused) == "true":
        return "an annotation of the Secret"
    return "an annotation of the pod"


def _confirmed(account: PodReport) -> str:
    row = account.pod_token
    if row.secret is None or row.unlabelled or row.state is TokenState.NAME_TAKEN:
        return ""
    if row.confirmed:
        return (
            "The Secret carries the seal of a confirmed session, which only the controller can "
            "verify."
        )
    return (
        "No seal on the Secret yet: the platform must confirm the session before the first write."
    )


def _failures(account: PodReport) -> list[str]:
    if account.events_error:
        return [f"What failed lately is not known here: {account.events_error}."]
    # That it was paused is over once no annotation says so any more.
    paused = account.pod_token.paused
    events = [each for each in account.events if paused or each.reason != PAUSED]
    if not events:
        return ["The controller reported nothing on this pod lately."]
    return [_occurrence(each, account.now_s) for each in events]


def _occurrence(each: EventSummary, now_s: float) -> str:
    times = (
        "" if each.count == 1 else f", {count(each.count, 'time')} since {instant(each.first_s)}"
    )
    kind = "Warning" if each.is_warning else "Normal"
    message = reason(each.message).rstrip(".")
    return f"{kind} {clean(each.reason)} ({ago(now_s - each.last_s)}{times}): {message}."


def _reports(account: PodReport) -> list[str]:
    """Say what keeps replicas from their work, or that this is not known."""
    if account.reports_unknown:
        return [f"What the replicas report of themselves is not known: {account.reports_unknown}."]
    return [
        f"Replica {clean(each.reporter) or 'of no name'} reports {clean(each.reason)} "
        f"({ago(account.now_s - each.last_s)}): {reason(each.message).rstrip('.')}."
        for each in account.reports
    ]


def _replicas(account: PodReport) -> list[str]:
    """Say why the controller's pods do not work; of those that do there is nothing to say."""
    if account.replicas_unknown:
        return [f"How the controller's pods are is not known: {account.replicas_unknown}."]
    heard = account.leader.holder or account.reports or account.reports_unknown
    if not account.replicas and not heard:
        return [
            f"Namespace {account.lease_namespace} has no pod of the controller, and no replica has "
            "reported on the Lease: none runs, none reaches this API server, or none may write "
            "Events there. Its own log and `reconciler check` name which."
        ]
    return [_replica(each, account.now_s) for each in account.replicas if not each.ready][:SHOWN]


def _replica(each: ObservedReplica, now_s: float) -> str:
    line = f"Controller pod {each.name} is not ready"
    if each.waits:
        line += f": {reason(each.waits).rstrip('.')}"
    if each.ended_code is None:
        return f"{line}."
    when = "" if each.ended_s is None else f" {ago(now_s - each.ended_s)}"
    said = f": {reason(each.said).rstrip('.')}" if each.said else ""
    restarts = count(each.restarts, "restart")
    return f"{line}; after {restarts} it ended{when} with code {each.ended_code}{said}."


def _others(row: PodToken, names: Names) -> str:
    return listed([clean(writer) for writer in row.other_writers(names)]) or "somebody"
