"""`reconciler explain`: one pod's token in sentences, and what to do."""

import sys
import textwrap

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from reconciler.cli.cluster import LIMIT_S, Access, Cluster, open_cluster
from reconciler.cli.exit_codes import EXIT_EXPIRED, EXIT_NOT_FOUND, CommandError
from reconciler.cli.output import check_format, run, say, say_json, warn_of_skew
from reconciler.cli.pod_selection import PodSelection, find, parse_target
from reconciler.cli.status import policy_of
from reconciler.controller.decide.token_state import HEALTHY
from reconciler.controller.state.session_state import newest_live_pod
from reconciler.inspection.events import (
    EventSummary,
    event_resource,
    events_of,
    events_of_lease,
    standing_reports,
    summaries,
)
from reconciler.inspection.explain import explain
from reconciler.inspection.fleet import name_of
from reconciler.inspection.hints import hints
from reconciler.inspection.pod_token import assess
from reconciler.inspection.printers import account_as_json
from reconciler.inspection.replicas import REPLICAS, ObservedReplica, replica_of, replica_resource
from reconciler.inspection.report import Leader, PodReport, leader_of
from reconciler.kube.api import ListOptions, ObjectMeta
from reconciler.leadership.lease import lease_resource, read
from reconciler.naming import LIVE_PODS

WIDEST = 100
"""Sentences are wrapped here in a wider terminal, and not at all in a pipe."""


def run_explain(access: Access, pod: str, choice: PodSelection, *, output: str) -> int:
    """Print the account of one pod; returns 1 if it lives and its token is dead."""
    return run(_explain(access, pod, choice, as_json=check_format(output)))


async def _explain(access: Access, text: str, choice: PodSelection, *, as_json: bool) -> int:
    async with open_cluster(access) as cluster:
        default = cluster.context.namespace
        target = parse_target(text, namespace=choice.namespace, default=default)
        pod, lives = await find(cluster, target)
        account = await _account(cluster, pod, lives=lives)
        if as_json:
            say_json(account_as_json(account))
        else:
            _print(account)
        warn_of_skew(cluster)
    return EXIT_EXPIRED if account.has_expired_token else 0


async def _account(cluster: Cluster, pod: ObjectMeta, *, lives: bool) -> PodReport:
    """Gather all there is; what may not be read is said so, and costs only itself."""
    session = f"{cluster.names.session_id}={pod.session_id}"
    same = await cluster.list_all(cluster.pod_kind, ListOptions(pod.namespace, session, LIVE_PODS))
    secret = await cluster.secret(pod.namespace, pod.session_id)
    events, silence = await _events(cluster, pod)
    held = await _leader(cluster)
    reports = await _reports(cluster)
    replicas = await _replicas(cluster)
    now_s = cluster.now_s()
    newest = newest_live_pod(same) or pod
    return PodReport(
        pod_token=assess(pod, secret, policy_of(cluster), now_s, newest=newest),
        names=cluster.names,
        now_s=now_s,
        ended=not lives,
        sibling_pods=sorted(other.name for other in same if other.uid != pod.uid),
        events=events,
        events_error=silence,
        leader=held,
        lease_namespace=cluster.settings.namespace,
        lease_name=cluster.settings.lease_name,
        reports=standing_reports(reports[0], now_s),
        reports_unknown=reports[1],
        replicas=replicas[0],
        replicas_unknown=replicas[1],
    )


async def _events(cluster: Cluster, pod: ObjectMeta) -> tuple[list[EventSummary], str]:
    try:
        found = await cluster.list_all(event_resource(), events_of(pod.namespace, pod.uid))
    except CommandError as error:
        return [], str(error)
    return summaries(found, cluster.names), ""


async def _reports(cluster: Cluster) -> tuple[list[EventSummary], str]:
    """Return what the replicas report of themselves, or why that is not known."""
    namespace, name = cluster.settings.namespace, cluster.settings.lease_name
    try:
        found = await cluster.list_all(event_resource(), events_of_lease(namespace, name))
    except CommandError as error:
        return [], str(error)
    return summaries(found, cluster.names), ""


async def _replicas(cluster: Cluster) -> tuple[list[ObservedReplica], str]:
    """Return the controller's own pods, or why they are not known."""
    try:
        found = await cluster.list_all(
            replica_resource(), ListOptions(cluster.settings.namespace, REPLICAS)
        )
    except CommandError as error:
        return [], str(error)
    return [replica_of(pod) for pod in found], ""


async def _leader(cluster: Cluster) -> Leader:
    namespace, name = cluster.settings.namespace, cluster.settings.lease_name
    get = cluster.kube.get(lease_resource(), namespace, name, limit_s=LIMIT_S)
    try:
        return leader_of(read(await cluster.ask(f"get lease {name}", namespace, "leases", get)))
    except CommandError as error:
        if error.code == EXIT_NOT_FOUND:
            problem = f"there is no lease {namespace}/{name} (NAMESPACE says where)"
            return Leader(problem=problem, is_absent=True)
        return Leader(problem=str(error))


def _print(account: PodReport) -> None:
    console = Console(highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        for line in [f"{_title(account)}: {account.state}", *explain(account)]:
            say(line)
        for step in hints(account):
            say(f"Next: {step}")
        return
    width = min(console.width, WIDEST)
    calm = account.ended or account.pod_token.state in HEALTHY
    state = Text(account.state, style="bold green" if calm else "bold red")
    console.print(Text.assemble((_title(account), "bold"), "  ", state))
    for sentence in explain(account):
        console.print(_item("·", sentence, width, ""))
    for step in hints(account):
        text, command = (f"{step.text}:", step.command) if step.command else (str(step), "")
        console.print(_item("→", text, width, "bold"))
        if command:  # whole, however narrow the terminal: it is there to be copied
            console.print(Text(f"   {command}", style="bold cyan"), soft_wrap=True)
    sys.stdout.flush()


def _title(account: PodReport) -> str:
    return name_of(account.pod_token.pod)


def _item(mark: str, sentence: str, width: int, style: str) -> Padding:
    """Return a sentence with a mark, wrapped under itself; words and names stay whole."""
    lines = textwrap.wrap(
        sentence, max(20, width - 4), break_long_words=False, break_on_hyphens=False
    )
    text = Text(f"{mark} " + "\n  ".join(lines), style=style, overflow="fold")
    return Padding(text, (0, 0, 0, 1))
