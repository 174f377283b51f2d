"""`reconciler renew`: ask for new tokens now, and perhaps wait until they are written."""

from datetime import UTC, datetime

from reconciler.cli.annotate import Asked, change_all, check_dry_run
from reconciler.cli.cluster import SKEW_S, Access, Cluster, open_cluster
from reconciler.cli.exits import EXIT_TIMEOUT, worst
from reconciler.cli.speech import run, say, warn, warn_of_skew
from reconciler.cli.targets import Choice
from reconciler.cli.waiting import parse_duration, wait_renewed
from reconciler.clock import parse_utc
from reconciler.control.facts import is_paused
from reconciler.kube.api import Meta
from reconciler.names import Names
from reconciler.onlooker.listing import pod_name
from reconciler.onlooker.words import duration


def run_renew(access: Access, choice: Choice, *, dry_run: str, wait: bool, timeout: str) -> int:
    """Annotate each pod; with `wait` return once each token is new, or 7 after `timeout`."""
    limit_s = parse_duration(timeout)
    return run(_renew(access, choice, check_dry_run(dry_run), limit_s if wait else None))


async def _renew(access: Access, choice: Choice, dry_run: bool, wait_s: float | None) -> int:
    async with open_cluster(access) as cluster:
        asked, code = await change_all(
            cluster, choice, _request, verb="renewal requested", dry_run=dry_run
        )
        pods = [each.pod for each in asked]
        for pod in pods:
            if is_paused(cluster.names, pod):
                warn(f"{pod_name(pod)} is paused: it is renewed when it is resumed")
        waiting = [pod for pod in pods if not is_paused(cluster.names, pod)]
        if wait_s is None:
            return code
        late = await wait_renewed(
            cluster,
            waiting,
            limit_s=wait_s,
            done=lambda pod, secret: _confirm(cluster.names, cluster.now_s(), pod, secret),
        )
        for pod in late:
            warn(
                f"timed out after {duration(wait_s)} waiting for {pod_name(pod)}; see why: "
                f"reconciler explain {pod.namespace}/{pod.name}"
            )
        warn_of_skew(cluster)
    is_short = late or len(waiting) < len(pods)
    return worst([code, EXIT_TIMEOUT if is_short else 0])


async def _request(cluster: Cluster, pod: Meta) -> Asked:
    """Set the annotation to this instant; each value is honoured once, so it must be a new one."""
    now = datetime.fromtimestamp(cluster.now_s(), UTC)
    text = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return Asked(
        await cluster.annotate(pod, {cluster.names.requested_at: text}), "renewal requested"
    )


def _confirm(names: Names, now_s: float, pod: Meta, secret: Meta) -> None:
    """Say what came of it: an issuer that is away leaves a request honoured and the token old."""
    asked_s = parse_utc(pod.annotations.get(names.requested_at, "")) or 0.0
    written_s = parse_utc(secret.annotations.get(names.refreshed_at, "")) or 0.0
    expires_s = parse_utc(secret.annotations.get(names.expires_at, ""))
    life = "" if expires_s is None else f", its token expires in {duration(expires_s - now_s)}"
    done = "renewed" if written_s >= asked_s - SKEW_S else "has the best token there is"
    say(f"{pod_name(pod)} {done}{life}")
