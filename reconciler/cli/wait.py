"""Waiting until what was asked for stands in the Secrets."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress

from reconciler.cli.cluster import LIMIT_S, Cluster
from reconciler.cli.exit_codes import EXIT_SETTINGS, EXIT_UNREACHABLE, CommandError
from reconciler.controller.decide.annotations import pending_requests
from reconciler.controller.state.session_state import newest_live_pod
from reconciler.errors import KubeError, ProtocolError
from reconciler.kube.api import ListOptions, ObjectMeta

AGAIN_S = 1.0
"""Between two looks where a watch is not allowed, or has just failed."""

IDLE_S = 60.0
WATCH_S = 300

Done = Callable[[ObjectMeta, ObjectMeta], None]
"""Told a pod, as its patch returned it, and its Secret, once the request was honoured."""

Waiting = dict[tuple[str, str], ObjectMeta]
"""By name of the Secret and session: two sessions may share a name, and one then waits in vain."""

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
    cluster: Cluster, pods: Sequence[ObjectMeta], *, limit_s: float, done: Done
) -> list[ObjectMeta]:
    """Return the pods whose request was not honoured within `limit_s`.

    Args:
        pods: As their patches returned them, with the request.
            Of two pods of one session the controller honours the leading one's alone.

    Raises:
        CommandError: Secrets may not be listed.
    """
    waiting: defaultdict[str, Waiting] = defaultdict(dict)
    for pod in pods:
        own = waiting[pod.namespace]
        place = cluster.names.secret_name(pod.session_id), pod.session_id
        own[place] = newest_live_pod([pod, *([own[place]] if place in own else [])]) or pod
    failures: list[CommandError] = []

    async def follow(namespace: str) -> None:
        try:
            await _follow(cluster, namespace, waiting[namespace], done)
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


async def _follow(cluster: Cluster, namespace: str, left: Waiting, done: Done) -> None:
    """List, then watch from there, until nothing is left to wait for in a namespace."""

    def seen(secret: ObjectMeta) -> None:
        place = secret.name, secret.session_id
        pod = left.get(place)
        if pod is not None and _is_honoured(cluster, secret, pod):
            done(left.pop(place), secret)

    single = f"metadata.name={next(iter(left))[0]}" if len(left) == 1 else ""
    scope = ListOptions(namespace, cluster.names.selector(), single)
    while True:
        secrets, version = await _list(cluster, scope)
        for secret in secrets:
            seen(secret)
        if left and version:
            # No right to watch, or a watch that breaks: the lists go on telling, and say what is
            # wrong with them.
            with suppress(KubeError, ProtocolError):
                await _watch(cluster, scope, version, left, seen)
        if not left:
            return
        await asyncio.sleep(AGAIN_S)


async def _list(cluster: Cluster, scope: ListOptions) -> tuple[list[ObjectMeta], str]:
    """Return the Secrets and the version to watch from; nothing while the server is away."""
    listing = cluster.kube.list(cluster.secret_kind, scope, limit_s=LIMIT_S)
    try:
        page = await cluster.ask("list secrets", scope.namespace, "secrets", listing)
    except CommandError as error:
        if error.code != EXIT_UNREACHABLE:
            raise
        return [], ""
    return page.items, page.version


async def _watch(
    cluster: Cluster,
    scope: ListOptions,
    version: str,
    left: Waiting,
    seen: Callable[[ObjectMeta], None],
) -> None:
    kind = cluster.secret_kind
    async with cluster.kube.watch(kind, scope, version=version, timeout_s=WATCH_S) as watch:
        while left:
            event = await watch.receive(idle_s=IDLE_S)
            if event is None:
                return
            if event.object is not None and event.type != "DELETED":
                seen(event.object)


def _is_honoured(cluster: Cluster, secret: ObjectMeta, pod: ObjectMeta) -> bool:
    """Tell whether the Secret carries the mark of this pod's request."""
    pending = pending_requests(cluster.names, secret, pod)
    return not any(digest.startswith("p:") for digest in pending)
