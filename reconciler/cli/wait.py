"""Waiting until requested refreshes are written to the Secrets."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress

from reconciler.cli.cluster import Cluster
from reconciler.cli.exit_codes import EXIT_SETTINGS, EXIT_UNREACHABLE, CommandError
from reconciler.controller.decide.annotations import pending_requests
from reconciler.controller.state.session_state import newest_live_pod
from reconciler.errors import KubeError, ProtocolError
from reconciler.kube.api import ListOptions, ObjectMeta

AGAIN_S = 1.0
"""Seconds between two lists where a watch is not allowed, or has just failed."""

IDLE_S = 60.0
WATCH_S = 300

OnRefreshed = Callable[[ObjectMeta, ObjectMeta], None]
"""Gets a pod, as its patch returned it, and its Secret, when the request is handled."""

Waiting = dict[tuple[str, str], ObjectMeta]
"""By name of the Secret and session. Of two sessions that share a name, one is never refreshed."""

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_UNITS_S = (3600, 60, 1)


def parse_duration(text: str) -> float:
    """Read `30s`, `5m` or `1h30m` as kubectl does, in seconds; raises `CommandError`."""
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise CommandError(f"--timeout={text}: not a time like 30s, 5m or 1h30m", EXIT_SETTINGS)
    parts = zip(found.groups(), _UNITS_S, strict=True)
    return sum(float(part) * unit_s for part, unit_s in parts if part)


async def wait_refreshed(
    cluster: Cluster, pods: Sequence[ObjectMeta], *, limit_s: float, on_refreshed: OnRefreshed
) -> list[ObjectMeta]:
    """Wait until the requests are handled; return the pods that are left after `limit_s`.

    Args:
        pods: As their patches returned them, with the request.
            Of two pods of one session, the controller handles only the newest one's request.

    Raises:
        CommandError: Secrets may not be listed.
    """
    waiting: defaultdict[str, Waiting] = defaultdict(dict)
    for pod in pods:
        pods_by_secret = waiting[pod.namespace]
        key = cluster.names.secret_name(pod.session_id), pod.session_id
        others = [pods_by_secret[key]] if key in pods_by_secret else []
        pods_by_secret[key] = newest_live_pod([pod, *others]) or pod
    failures: list[CommandError] = []

    async def follow(namespace: str) -> None:
        try:
            await _follow(cluster, namespace, waiting[namespace], on_refreshed)
        except CommandError as error:
            failures.append(error)

    try:
        async with asyncio.timeout(limit_s), asyncio.TaskGroup() as group:
            for namespace in list(waiting):
                group.create_task(follow(namespace))
    except TimeoutError:
        return [pod for left in waiting.values() for pod in left.values()]
    if failures:
        raise failures[0]
    return []


async def _follow(
    cluster: Cluster, namespace: str, left: Waiting, on_refreshed: OnRefreshed
) -> None:
    """List, then watch from there, until no request is left in a namespace."""

    def observe(secret: ObjectMeta) -> None:
        key = secret.name, secret.session_id
        pod = left.get(key)
        if pod is not None and _is_handled(cluster, secret, pod):
            on_refreshed(left.pop(key), secret)

    single = f"metadata.name={next(iter(left))[0]}" if len(left) == 1 else ""
    scope = ListOptions(namespace, cluster.names.selector(), single)
    while True:
        secrets, version = await _list(cluster, scope)
        for secret in secrets:
            observe(secret)
        if left and version:
            # Without the right to watch, or when a watch fails, the next list finds the same, or
            # reports the error.
            with suppress(KubeError, ProtocolError):
                await _watch(cluster, scope, version, left, observe)
        if not left:
            return
        await asyncio.sleep(AGAIN_S)


async def _list(cluster: Cluster, scope: ListOptions) -> tuple[list[ObjectMeta], str]:
    """Return the Secrets and the version to watch from.

    Nothing while the server is unreachable, or has just started and refuses every account.
    """
    try:
        return await cluster.list_whole(cluster.secret_kind, scope)
    except CommandError as error:
        if error.code != EXIT_UNREACHABLE:
            raise
        return [], ""


async def _watch(
    cluster: Cluster,
    scope: ListOptions,
    version: str,
    left: Waiting,
    observe: Callable[[ObjectMeta], None],
) -> None:
    kind = cluster.secret_kind
    async with cluster.kube.watch(kind, scope, version=version, timeout_s=WATCH_S) as watch:
        while left:
            event = await watch.receive(idle_s=IDLE_S)
            if event is None:
                return
            if event.object is not None and event.type != "DELETED":
                observe(event.object)


def _is_handled(cluster: Cluster, secret: ObjectMeta, pod: ObjectMeta) -> bool:
    """Return whether the Secret's annotations name this pod's request as handled."""
    pending = pending_requests(secret, pod)
    return not any(digest.startswith("p:") for digest in pending)
