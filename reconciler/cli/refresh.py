"""`reconciler renew`: ask for new tokens now, and perhaps wait until they are written."""

from datetime import UTC, datetime

from reconciler.cli.annotate import PatchResult, change_all, check_dry_run
from reconciler.cli.cluster import Access, Cluster, open_cluster
from reconciler.cli.exit_codes import EXIT_TIMEOUT, worst
from reconciler.cli.output import run, say, warn, warn_of_skew
from reconciler.cli.pod_selection import PodSelection
from reconciler.cli.wait import parse_duration, wait_refreshed
from reconciler.clock import parse_utc
from reconciler.controller.decide.annotations import is_paused
from reconciler.controller.reconcile.token_choice import NEARLY_NEW
from reconciler.humanize import duration
from reconciler.inspection.printers import pod_name
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names, SessionKey


def run_refresh(
    access: Access, choice: PodSelection, *, dry_run: str, wait: bool, timeout: str
) -> int:
    """Annotate each pod; with `wait` return once each token is new.

    Returns: 7 after `timeout`, for a paused pod, and where no newer token was to be had.
    """
    limit_s = parse_duration(timeout)
    return run(_refresh(access, choice, check_dry_run(dry_run), limit_s if wait else None))


async def _refresh(
    access: Access, choice: PodSelection, dry_run: bool, wait_s: float | None
) -> int:
    async with open_cluster(access) as cluster:
        before: dict[SessionKey, str] = {}

        async def request(cluster: Cluster, pod: ObjectMeta) -> PatchResult:
            if wait_s is not None:
                secret = await cluster.secret(pod.namespace, pod.session_id)
                before[pod.key] = _token_of(cluster.names, secret)
            return await _request(cluster, pod)

        asked, code = await change_all(
            cluster, choice, request, verb="renewal requested", dry_run=dry_run
        )
        pods = [each.pod for each in asked]
        for pod in pods:
            if is_paused(cluster.names, pod):
                warn(f"{pod_name(pod)} is paused: it is renewed when it is resumed")
        waiting = [pod for pod in pods if not is_paused(cluster.names, pod)]
        if wait_s is None:
            return code
        unchanged: list[ObjectMeta] = []

        def confirm(pod: ObjectMeta, secret: ObjectMeta) -> None:
            is_new = _token_of(cluster.names, secret) != before[pod.key]
            is_new = is_new or _was_nearly_new(cluster.names, pod, secret)
            _say(cluster.names, cluster.now_s(), pod, secret, is_new=is_new)
            if not is_new:
                unchanged.append(pod)

        late = await wait_refreshed(cluster, waiting, limit_s=wait_s, done=confirm)
        for pod in late:
            warn(
                f"timed out after {duration(wait_s)} waiting for {pod_name(pod)}; see why: "
                f"reconciler explain {pod.namespace}/{pod.name}"
            )
        warn_of_skew(cluster)
    is_short = late or unchanged or len(waiting) < len(pods)
    return worst([code, EXIT_TIMEOUT if is_short else 0])


async def _request(cluster: Cluster, pod: ObjectMeta) -> PatchResult:
    """Set the annotation to this instant; each value is honoured once, so it must be a new one."""
    now = datetime.fromtimestamp(cluster.now_s(), UTC)
    text = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return PatchResult(
        await cluster.annotate(pod, {cluster.names.requested_at: text}), "renewal requested"
    )


def _token_of(names: Names, secret: ObjectMeta | None) -> str:
    """Return what tells one token from another: when it was issued, and when it ends."""
    held = secret.annotations if secret is not None else {}
    return f"{held.get(names.issued_at, '')} {held.get(names.expires_at, '')}"


def _was_nearly_new(names: Names, pod: ObjectMeta, secret: ObjectMeta) -> bool:
    """Tell whether the token that is there satisfied the request as it was: new enough, or endless.

    Seconds are what annotations hold, so one is forgiven.
    """
    asked_s = parse_utc(pod.annotations.get(names.requested_at, "")) or 0.0
    issued_s = parse_utc(secret.annotations.get(names.issued_at, ""))
    expires_s = parse_utc(secret.annotations.get(names.expires_at, ""))
    if issued_s is None or expires_s is None:
        return expires_s is None
    return expires_s - asked_s + 1.0 >= NEARLY_NEW * (expires_s - issued_s)


def _say(names: Names, now_s: float, pod: ObjectMeta, secret: ObjectMeta, *, is_new: bool) -> None:
    """Say what came of it: while the issuer is away a request is honoured by the old token."""
    expires_s = parse_utc(secret.annotations.get(names.expires_at, ""))
    life = "" if expires_s is None else f", its token expires in {duration(expires_s - now_s)}"
    done = "renewed" if is_new else "has the best token there is, no newer one"
    say(f"{pod_name(pod)} {done}{life}")
