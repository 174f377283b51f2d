"""What to do next, in words, where something is wrong (pure)."""

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
    """What to do, and the command that does it ("" = none does)."""

    text: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.text}: {self.command}" if self.command else f"{self.text}."


def hints(found: PodReport) -> list[Hint]:
    """Return what a human should do, first things first; empty when there is nothing to do."""
    row = found.pod_token
    leaves = row.pod.is_deleting and row.secret is None
    if found.ended or leaves or row.state in HEALTHY:
        return []
    told = []
    if row.paused:
        told.append(Hint("Let it be renewed again", f"reconciler resume {name_of(row.pod)}"))
    if row.unlabelled:
        told.append(
            Hint(
                "Put the platform's labels back on the Secret, or delete it; it is then made anew",
                f"kubectl delete secret -n {row.pod.namespace} {found.secret}",
            )
        )
    elif row.state is TokenState.NAME_TAKEN:
        told.append(Hint("End one of the two sessions: they cannot share a namespace"))
    elif row.state is TokenState.FOREIGN_WRITER:
        told.append(
            Hint("Stop the other writer; the controller writes over it, and backs off in a fight")
        )
        told += _leaderless(found)
    elif row.state in _LATE + _UNWRITTEN and not row.paused:
        told += _waited_for(found)
    return told


def _waited_for(found: PodReport) -> list[Hint]:
    """Advise where the controller should have acted and did not; nothing that cannot work now.

    Without a controller at work, or while its tries fail, no request for a token is answered, and
    the platform may never have been asked.
    """
    pod = found.pod_token.pod
    check = Hint(
        "Have the controller's credentials, rights and endpoints tried one by one",
        f"kubectl exec -n {found.lease_namespace} deployment/token-reconciler -- reconciler check",
    )
    if found.reports:
        return [
            Hint("Mend what the replica reports above; tokens are refreshed by itself then"),
            check,
        ]
    if told := _leaderless(found):
        return told
    if found.is_failing:
        return [
            Hint("Mend what the Event RefreshFailed above names; it is tried again by itself"),
            check,
        ]
    told.append(
        Hint(
            f"See what the controller's log, in namespace {found.lease_namespace}, says of "
            f"session {clean(pod.session_id)}"
        )
    )
    if found.pod_token.state in (TokenState.UNCONFIRMED, TokenState.UNMANAGED):
        told.append(Hint("Ask the platform whether it knows this session with this project"))
    else:
        told.append(Hint("Ask for a new token now", f"reconciler renew {name_of(pod)} --wait"))
    return told


def _leaderless(found: PodReport) -> list[Hint]:
    if not (found.leader.is_absent or found.leader.is_stale(found.now_s)):
        return []
    look = f"kubectl get pods,leases -n {found.lease_namespace}"
    told = [Hint("No controller is at work; see why", look)]
    if found.leader.is_absent:  # none has ever led here: its log has its start
        log = f"kubectl logs -n {found.lease_namespace} deployment/token-reconciler --tail=20"
        told.append(Hint("Read its last lines, which name the cause", log))
    return told
