"""`reconciler explain`: describes one pod's token, and what to do."""

import sys
import textwrap

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from reconciler.cli.cluster import LIMIT_S, Access, Cluster, open_cluster
from reconciler.cli.exit_codes import EXIT_EXPIRED, EXIT_NOT_FOUND, CommandError
from reconciler.cli.output import (
    JSONPATH,
    check_format,
    print_clock_skew,
    print_document,
    print_out,
    run,
)
from reconciler.cli.pod_selection import PodSelection, find, parse_target
from reconciler.cli.status import decision_context
from reconciler.controller.decide.sharding import owns
from reconciler.controller.decide.token_state import HEALTHY
from reconciler.controller.state.session_state import newest_live_pod
from reconciler.inspection.events import (
    EventSummary,
    current_reports,
    event_resource,
    events_of,
    events_of_lease,
    summaries,
)
from reconciler.inspection.explain import explain
from reconciler.inspection.fleet import name_of
from reconciler.inspection.hints import hints
from reconciler.inspection.pod_token import assess
from reconciler.inspection.printers import report_as_json
from reconciler.inspection.replicas import REPLICAS, ObservedReplica, replica_of, replica_resource
from reconciler.inspection.report import Leader, PodReport, leader_of
from reconciler.kube.api import ListOptions, ObjectMeta
from reconciler.kube.secret_mounts import SecretMounts, secret_mounts_resource
from reconciler.leadership.lease import lease_resource, read
from reconciler.naming import LIVE_PODS

FORMATS = ("table", "yaml", "json", JSONPATH)

WIDEST = 100
"""Columns at which sentences are wrapped in a wider terminal; in a pipe they are not wrapped."""


def run_explain(access: Access, pod: str, selection: PodSelection, *, output: str) -> int:
    """Print the report of one pod; returns 1 if it is live and its token has expired."""
    check_format(output, FORMATS)
    return run(_explain(access, pod, selection, output))


async def _explain(access: Access, text: str, selection: PodSelection, output: str) -> int:
    async with open_cluster(access) as cluster:
        target = parse_target(text, selection, default=cluster.context.namespace)
        pod, is_live = await find(cluster, target)
        report = await _report(cluster, pod, is_live=is_live)
        if output == "table":
            _print(report)
        else:
            print_document(report_as_json(report), output)
        print_clock_skew(cluster)
    return EXIT_EXPIRED if report.has_expired_token else 0


async def _report(cluster: Cluster, pod: ObjectMeta, *, is_live: bool) -> PodReport:
    """Read everything about a pod; what cannot be read is reported as unknown."""
    session = f"{cluster.names.session_id}={pod.session_id}"
    same = await cluster.list_all(cluster.pod_kind, ListOptions(pod.namespace, session, LIVE_PODS))
    secret = await cluster.secret(pod.namespace, pod.session_id)
    events, events_error = await _events(cluster, pod)
    all_replicas, replicas_error = await _replicas(cluster)
    replicas = [each for each in all_replicas if owns(each.shard, pod.key)]
    lease = cluster.settings.lease_of(replicas[0].shard if replicas else cluster.settings.shard)
    leader = await _leader(cluster, lease)
    reports, reports_error = await _reports(cluster, lease)
    mounts = await _mounts(cluster, pod)
    now_s = cluster.now_s()
    newest = newest_live_pod(same) or pod
    return PodReport(
        pod_token=assess(pod, secret, decision_context(cluster), now_s, newest=newest),
        names=cluster.names,
        now_s=now_s,
        ended=not is_live,
        sibling_pods=sorted(other.name for other in same if other.uid != pod.uid),
        events=events,
        events_error=events_error,
        leader=leader,
        lease_namespace=cluster.settings.namespace,
        lease_name=lease,
        reports=current_reports(reports, now_s),
        reports_error=reports_error,
        replicas=replicas,
        replicas_error=replicas_error,
        subpath_containers=mounts.by_subpath if mounts else (),
        other_secrets=mounts.other_secrets if mounts else (),
        other_shards=() if replicas else sorted({str(each.shard) for each in all_replicas}),
    )


async def _mounts(cluster: Cluster, pod: ObjectMeta) -> SecretMounts | None:
    scope = ListOptions(pod.namespace, fields=f"metadata.name={pod.name}")
    found = await cluster.list_all(secret_mounts_resource(cluster.names), scope)
    return found[0] if found else None


async def _events(cluster: Cluster, pod: ObjectMeta) -> tuple[list[EventSummary], str]:
    try:
        found = await cluster.list_all(event_resource(), events_of(pod.namespace, pod.uid))
    except CommandError as error:
        return [], str(error)
    return summaries(found, cluster.names), ""


async def _reports(cluster: Cluster, name: str) -> tuple[list[EventSummary], str]:
    """Return what the replicas report on the Lease, and the error if that cannot be read."""
    namespace = cluster.settings.namespace
    try:
        found = await cluster.list_all(event_resource(), events_of_lease(namespace, name))
    except CommandError as error:
        return [], str(error)
    return summaries(found, cluster.names), ""


async def _replicas(cluster: Cluster) -> tuple[list[ObservedReplica], str]:
    """Return the controller's own pods, and the error if they cannot be read."""
    try:
        found = await cluster.list_all(
            replica_resource(), ListOptions(cluster.settings.namespace, REPLICAS)
        )
    except CommandError as error:
        return [], str(error)
    return [replica_of(pod) for pod in found], ""


async def _leader(cluster: Cluster, name: str) -> Leader:
    namespace = cluster.settings.namespace
    get = cluster.kube.get(lease_resource(), namespace, name, limit_s=LIMIT_S)
    try:
        return leader_of(read(await cluster.ask(f"get lease {name}", namespace, "leases", get)))
    except CommandError as error:
        if error.code == EXIT_NOT_FOUND:
            problem = (
                f"there is no lease {namespace}/{name} (the variable NAMESPACE sets its namespace)"
            )
            return Leader(problem=problem, is_absent=True)
        return Leader(problem=str(error))


def _print(report: PodReport) -> None:
    console = Console(highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        for line in [f"{_title(report)}: {report.state}", *explain(report)]:
            print_out(line)
        for hint in hints(report):
            print_out(f"Next: {hint}")
        return
    width = min(console.width, WIDEST)
    healthy = report.ended or report.pod_token.state in HEALTHY
    state = Text(report.state, style="bold green" if healthy else "bold red")
    console.print(Text.assemble((_title(report), "bold"), "  ", state))
    for sentence in explain(report):
        console.print(_item("·", sentence, width, ""))
    for hint in hints(report):
        text, command = (f"{hint.text}:", hint.command) if hint.command else (str(hint), "")
        console.print(_item("→", text, width, "bold"))
        if command:  # on one line in any terminal, to be copied
            console.print(Text(f"   {command}", style="bold cyan"), soft_wrap=True)
    sys.stdout.flush()


def _title(report: PodReport) -> str:
    return name_of(report.pod_token.pod)


def _item(mark: str, sentence: str, width: int, style: str) -> Padding:
    """Return a sentence with a mark, wrapped with an indent; words and names are not split."""
    lines = textwrap.wrap(
        sentence, max(20, width - 4), break_long_words=False, break_on_hyphens=False
    )
    text = Text(f"{mark} " + "\n  ".join(lines), style=style, overflow="fold")
    return Padding(text, (0, 0, 0, 1))
