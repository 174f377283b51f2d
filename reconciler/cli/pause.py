"""`reconciler pause`: nothing is written for these sessions until they are resumed."""

from reconciler.cli.annotate import Asked, change_all, check_dry_run
from reconciler.cli.cluster import Access, Cluster, open_cluster
from reconciler.cli.speech import run
from reconciler.cli.targets import Choice
from reconciler.control.facts import is_paused
from reconciler.kube.api import Meta


def run_pause(access: Access, choice: Choice, *, dry_run: str) -> int:
    return run(_pause(access, choice, dry_run=check_dry_run(dry_run)))


async def _pause(access: Access, choice: Choice, *, dry_run: bool) -> int:
    async with open_cluster(access) as cluster:
        _, code = await change_all(cluster, choice, _set, verb="paused", dry_run=dry_run)
    return code


async def _set(cluster: Cluster, pod: Meta) -> Asked:
    if is_paused(cluster.names, pod):
        return Asked(pod, "is paused already", written=False)
    return Asked(await cluster.annotate(pod, {cluster.names.paused: "true"}), "paused")
