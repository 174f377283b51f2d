"""`reconciler pause` and `resume`: stop and restart the refreshes of sessions."""

from reconciler.cli.annotate import PatchResult, change_all, check_dry_run
from reconciler.cli.cluster import Access, Cluster, open_cluster
from reconciler.cli.exit_codes import CommandError
from reconciler.cli.output import print_err, run
from reconciler.cli.pod_selection import PodSelection
from reconciler.controller.decide.refresh_plan import is_paused
from reconciler.kube.api import ObjectMeta


def run_resume(access: Access, selection: PodSelection, *, dry_run: str) -> int:
    return run(_resume(access, selection, dry_run=check_dry_run(dry_run)))


async def _resume(access: Access, selection: PodSelection, *, dry_run: bool) -> int:
    async with open_cluster(access) as cluster:
        patched, code = await change_all(
            cluster, selection, _clear, verb="resumed", dry_run=dry_run
        )
        for namespace in sorted({each.pod.namespace for each in patched}):
            pods = [each.pod for each in patched if each.pod.namespace == namespace]
            await _warn_of_paused_secrets(cluster, namespace, pods)
    return code


async def _clear(cluster: Cluster, pod: ObjectMeta) -> PatchResult:
    if pod.annotations.paused is None:
        return PatchResult(pod, "is not paused", written=False)
    return PatchResult(await cluster.annotate(pod, {cluster.names.paused: None}), "resumed")


async def _warn_of_paused_secrets(cluster: Cluster, namespace: str, pods: list[ObjectMeta]) -> None:
    """Warn of Secrets that are paused themselves: the pod's annotation does not change that."""
    try:
        secrets = await cluster.session_secrets(namespace)
    except CommandError as error:
        print_err(f"cannot find out whether a Secret is paused, too: {error}")
        return
    sessions = {pod.session_id for pod in pods}
    for secret in secrets:
        if secret.session_id in sessions and is_paused(secret):
            print_err(
                f"secret/{secret.name} is paused, too; resume it with: kubectl annotate secret "
                f"-n {namespace} {secret.name} {cluster.names.paused}-"
            )


def run_pause(access: Access, selection: PodSelection, *, dry_run: str) -> int:
    return run(_pause(access, selection, dry_run=check_dry_run(dry_run)))


async def _pause(access: Access, selection: PodSelection, *, dry_run: bool) -> int:
    async with open_cluster(access) as cluster:
        _, code = await change_all(cluster, selection, _set, verb="paused", dry_run=dry_run)
    return code


async def _set(cluster: Cluster, pod: ObjectMeta) -> PatchResult:
    if is_paused(pod):
        return PatchResult(pod, "is already paused", written=False)
    return PatchResult(await cluster.annotate(pod, {cluster.names.paused: "true"}), "paused")
