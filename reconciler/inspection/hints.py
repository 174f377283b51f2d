"""What the user should do where something is wrong (pure)."""

import re
from typing import NamedTuple

from reconciler.controller.decide.token_state import HEALTHY, TokenState
from reconciler.humanize import clean
from reconciler.inspection.events import OVERWRITTEN
from reconciler.inspection.fleet import name_of
from reconciler.inspection.report import PodReport
from reconciler.kube.status_errors import IMMUTABLE

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


_FIX_CAUSE = Hint("Fix the cause in the Event RefreshFailed above; it is retried")

_BY_ADMISSION = re.compile(", by (quota|webhook|policy) ")
"""What `kube.status_errors` adds for a refusal that neither credentials nor rights cause."""

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
    if report.other_secrets:
        found.append(
            Hint(
                f"Mount Secret {report.secret} in the template of the session's pods, and restart"
                " the session, if its containers read the token from a file"
            )
        )
    if token.state in HEALTHY:
        return found + _against_other_writer(report)
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
        found.append(_for_taken_name(report))
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
    if report.failure is not None:
        return _for_failure(report, report.failure.message) or [_FIX_CAUSE, check]
    found.append(
        Hint(
            f"Search the leader's log, in namespace {report.lease_namespace}, for session "
            f"{clean(pod.session_id)}"
        )
    )
    token = report.pod_token
    if not token.confirmed or token.state is TokenState.UNMANAGED:
        found.append(Hint("Check that the platform has this session, with this project"))
    else:
        found.append(Hint("Request a new token now", f"reconciler refresh {name_of(pod)} --wait"))
    return found


def _for_failure(report: PodReport, message: str) -> list[Hint]:
    """Return what to do about a refusal of the object; nothing if the cause is another one."""
    if IMMUTABLE in message:
        return [
            Hint(
                "Delete the immutable Secret, which the controller creates again, and restart the"
                " session: a kubelet may never read an immutable Secret again",
                f"kubectl delete secret -n {report.pod_token.pod.namespace} {report.secret}",
            )
        ]
    if " 422 Invalid" in message or _BY_ADMISSION.search(message):
        return [_FIX_CAUSE]
    return []


def _for_taken_name(report: PodReport) -> Hint:
    if report.shares_its_name:
        return Hint("End one of the two sessions: they cannot share a namespace")
    pod = report.pod_token.pod
    return Hint(
        f"Correct the label {report.names.session_id} of the Secret",
        f"kubectl label secret -n {pod.namespace} {report.secret} --overwrite"
        f" {report.names.session_id}={clean(pod.session_id)}",
    )


def _against_other_writer(report: PodReport) -> list[Hint]:
    if not any(each.reason in OVERWRITTEN for each in report.events):
        return []
    return [
        Hint(
            "Stop the other writer that the Warning above is about; docs/runbooks.md,"
            " TokenReconcilerTwoWriters, says how to find it"
        )
    ]


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
