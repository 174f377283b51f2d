"""`reconciler refresh`: requests new tokens, and with --wait waits until they are written."""

from datetime import UTC, datetime

from reconciler.cli.annotate import PatchResult, change_all, check_dry_run
from reconciler.cli.cluster import Access, Cluster, open_cluster
from reconciler.cli.exit_codes import EXIT_TIMEOUT, worst
from reconciler.cli.output import print_clock_skew, print_err, print_out, run
from reconciler.cli.pod_selection import PodSelection
from reconciler.cli.wait import parse_duration, wait_refreshed
from reconciler.clock import EPOCH, EpochTime, parse_utc
from reconciler.controller.decide.refresh_plan import is_paused
from reconciler.controller.reconcile.token_choice import NEARLY_NEW
from reconciler.humanize import duration
from reconciler.inspection.printers import pod_name
from reconciler.kube.api import ObjectMeta
from reconciler.naming import NO_ANNOTATIONS, SessionKey


def run_refresh(
    access: Access, selection: PodSelection, *, dry_run: str, wait: bool, timeout: str
) -> int:
    """Annotate each pod; with `wait`, return when each token is new.

    Returns: The exit code: 7 after `timeout`, for a paused pod, and where there was no newer token.
    """
    limit_s = parse_duration(timeout)
    return run(_refresh(access, selection, check_dry_run(dry_run), limit_s if wait else None))


async def _refresh(
    access: Access, selection: PodSelection, dry_run: bool, wait_s: float | None
) -> int:
    async with open_cluster(access) as cluster:
        before: dict[SessionKey, str] = {}

        async def request(cluster: Cluster, pod: ObjectMeta) -> PatchResult:
            if wait_s is not None:
                secret = await cluster.secret(pod.namespace, pod.session_id)
                before[pod.key] = _token_of(secret)
            return await _request(cluster, pod)

        patched, code = await change_all(
            cluster, selection, request, verb="refresh requested", dry_run=dry_run
        )
        pods = [each.pod for each in patched]
        for pod in pods:
            if is_paused(pod):
                print_err(f"{pod_name(pod)} is paused: its token is refreshed after `resume`")
        waiting = [pod for pod in pods if not is_paused(pod)]
        if wait_s is None:
            return code
        unchanged: list[ObjectMeta] = []

        def on_refreshed(pod: ObjectMeta, secret: ObjectMeta) -> None:
            is_new = _token_of(secret) != before[pod.key]
            is_new = is_new or _was_nearly_new(pod, secret)
            _print_result(cluster.now_s(), pod, secret, is_new=is_new)
            if not is_new:
                unchanged.append(pod)

        late = await wait_refreshed(cluster, waiting, limit_s=wait_s, on_refreshed=on_refreshed)
        for pod in late:
            print_err(
                f"timed out after {duration(wait_s)} waiting for {pod_name(pod)}; find out why: "
                f"reconciler explain {pod.namespace}/{pod.name}"
            )
        print_clock_skew(cluster)
    is_short = late or unchanged or len(waiting) < len(pods)
    return worst([code, EXIT_TIMEOUT if is_short else 0])


async def _request(cluster: Cluster, pod: ObjectMeta) -> PatchResult:
    """Set the annotation to the current time; the controller handles each value once."""
    now = datetime.fromtimestamp(float(cluster.now_s()), UTC)
    text = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return PatchResult(
        await cluster.annotate(pod, {cluster.names.requested_at: text}), "refresh requested"
    )


def _token_of(secret: ObjectMeta | None) -> str:
    """Return what identifies a token: when it was issued, and when it expires."""
    found = secret.annotations if secret is not None else NO_ANNOTATIONS
    return f"{found.issued_at or ''} {found.expires_at or ''}"


def _was_nearly_new(pod: ObjectMeta, secret: ObjectMeta) -> bool:
    """Return whether the old token satisfied the request: it was new enough, or has no expiry.

    Annotations hold whole seconds, so one second is tolerated.
    """
    requested_s = parse_utc(pod.annotations.requested_at or "") or EPOCH
    issued_s = parse_utc(secret.annotations.issued_at or "")
    expires_s = parse_utc(secret.annotations.expires_at or "")
    if issued_s is None or expires_s is None:
        return expires_s is None
    return expires_s - requested_s + 1.0 >= NEARLY_NEW * (expires_s - issued_s)


def _print_result(now_s: EpochTime, pod: ObjectMeta, secret: ObjectMeta, *, is_new: bool) -> None:
    """Print the result: while the issuer is unreachable, a request is answered by the old token."""
    expires_s = parse_utc(secret.annotations.expires_at or "")
    life = "" if expires_s is None else f", its token expires in {duration(expires_s - now_s)}"
    done = "refreshed" if is_new else "keeps its token: there is no newer one"
    print_out(f"{pod_name(pod)} {done}{life}")
