"""What the user should do where something is wrong (pure)."""

from typing import NamedTuple

from reconciler.controller.decide.token_state import HEALTHY, TokenState
from reconciler.humanize import clean
from reconciler.inspection.fleet import name_of
from reconciler.inspection.report import PodReport

_LATE = (TokenState.EXPIRED, TokenState.EXPIRING, TokenState.OVERDUE)
_UNWRITTEN = (
    TokenState.NO_SECRET, TokenState.NO_TOKEN, TokenState.UNREADABLE, TokenState.UNCONFIRMED,
    TokenState.UNMANAGED,
)  # fmt: skip


class Hint(NamedTuple):
    """What to do, and the command that does it ("" = there is no command)."""

    text: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.text}: {self.command}" if self.command else f"{self.text}."


_DIRECTORY = Hint(
    "Mount the Secret as a directory, without subPath, in the template of the session's pods, and"
    " restart the session: the mounts of a pod cannot be changed"
)


def hints(report: PodReport) -> list[Hint]:
    """Return what to do, the first step first; empty when there is nothing to do."""
    token = report.pod_token
    needs_no_secret = token.pod.is_deleting and token.secret is None
    if report.ended or needs_no_secret:
        return []
    found = [_DIRECTORY] if report.subpath_containers else []
    if token.state in HEALTHY:
        return found
    if token.paused:
        found.append(Hint("Resume its refreshes", f"reconciler resume {name_of(token.pod)}"))
    if token.unlabelled:
        found.append(
            Hint(
                "Restore the platform's labels on the Secret, or delete it: it is created again",
                f"kubectl delete secret -n {token.pod.namespace} {report.secret}",
            )
        )
    elif token.state is TokenState.NAME_TAKEN:
        found.append(Hint("End one of the two sessions: they cannot share a namespace"))
    elif token.state is TokenState.FOREIGN_WRITER:
        found.append(
            Hint(
                "Stop the other writer. The controller replaces its token, and backs off if it"
                " writes again"
            )
        )
        found += _without_leader(report)
    elif token.state in _LATE + _UNWRITTEN and not token.paused:
        found += _for_overdue_write(report)
    return found


def _for_overdue_write(report: PodReport) -> list[Hint]:
    """Return what to do where the controller should have written; nothing that cannot work now.

    Without a leader, or while refreshes fail, no request for a token is answered, and the platform
    may never have been asked.
    """
    pod = report.pod_token.pod
    check = Hint(
        "Check the controller's credentials, rights and endpoints",
        f"kubectl exec -n {report.lease_namespace} deployment/token-reconciler -- reconciler check",
    )
    if report.reports:
        return [Hint("Fix what the replica reports above; the refreshes then continue"), check]
    if found := _without_leader(report):
        return found
    if report.is_failing:
        return [Hint("Fix the cause in the Event RefreshFailed above; it is retried"), check]
    found.append(
        Hint(
            f"Search the controller's log, in namespace {report.lease_namespace}, for session "
            f"{clean(pod.session_id)}"
        )
    )
    if report.pod_token.state in (TokenState.UNCONFIRMED, TokenState.UNMANAGED):
        found.append(Hint("Check that the platform has this session, with this project"))
    else:
        found.append(Hint("Request a new token now", f"reconciler refresh {name_of(pod)} --wait"))
    return found


def _without_leader(report: PodReport) -> list[Hint]:
    if not (report.leader.is_absent or report.leader.is_stale(report.now_s)):
        return []
    namespace = report.lease_namespace
    list_both = f"kubectl get pods,leases -n {namespace}"
    found = [Hint("There is no leader; check the controller's pods", list_both)]
    if report.leader.is_absent:  # no replica has been leader: the log has the start's failure
        log = f"kubectl logs -n {namespace} deployment/token-reconciler --tail=20"
        found.append(Hint("Read the end of the controller's log, which names the cause", log))
    return found
