"""`reconciler resume`: let paused sessions be renewed again."""

from reconciler.cli.annotate import PatchResult, change_all, check_dry_run
from reconciler.cli.cluster import Access, Cluster, open_cluster
from reconciler.cli.exit_codes import CommandError
from reconciler.cli.output import run, warn
from reconciler.cli.pod_selection import PodSelection
from reconciler.controller.decide.annotations import is_paused
from reconciler.kube.api import ObjectMeta


def run_resume(access: Access, choice: PodSelection, *, dry_run: str) -> int:
    return run(_resume(access, choice, dry_run=check_dry_run(dry_run)))


async def _resume(access: Access, choice: PodSelection, *, dry_run: bool) -> int:
    async with open_cluster(access) as cluster:
        asked, code = await change_all(cluster, choice, _clear, verb="resumed", dry_run=dry_run)
        for namespace in sorted({each.pod.namespace for each in asked}):
            pods = [each.pod for each in asked if each.pod.namespace == namespace]
            await _warn_of_paused_secrets(cluster, namespace, pods)
    return code


async def _clear(cluster: Cluster, pod: ObjectMeta) -> PatchResult:
    if cluster.names.paused not in pod.annotations:
        return PatchResult(pod, "is not paused", written=False)
    return PatchResult(await cluster.annotate(pod, {cluster.names.paused: None}), "resumed")


async def _warn_of_paused_secrets(cluster: Cluster, namespace: str, pods: list[ObjectMeta]) -> None:
    """Name Secrets that are paused themselves, which no annotation of a pod undoes."""
    try:
        secrets = await cluster.session_secrets(namespace)
    except CommandError as error:
        warn(f"whether a Secret is paused by itself is not known: {error}")
        return
    wanted = {pod.session_id for pod in pods}
    for secret in secrets:
        if secret.session_id in wanted and is_paused(cluster.names, secret):
            warn(
                f"secret/{secret.name} is paused itself; undo it with: kubectl annotate secret "
                f"-n {namespace} {secret.name} {cluster.names.paused}-"
            )


def run_pause(access: Access, choice: PodSelection, *, dry_run: str) -> int:
    return run(_pause(access, choice, dry_run=check_dry_run(dry_run)))


async def _pause(access: Access, choice: PodSelection, *, dry_run: bool) -> int:
    async with open_cluster(access) as cluster:
        _, code = await change_all(cluster, choice, _set, verb="paused", dry_run=dry_run)
    return code


async def _set(cluster: Cluster, pod: ObjectMeta) -> PatchResult:
    if is_paused(cluster.names, pod):
        return PatchResult(pod, "is paused already", written=False)
    return PatchResult(await cluster.annotate(pod, {cluster.names.paused: "true"}), "paused")
