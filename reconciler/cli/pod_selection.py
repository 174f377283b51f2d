"""The pods that a command acts on: `POD`, `NS/POD`, `pod/POD`, a selector, or all."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.cli.cluster import Cluster, in_namespace
from reconciler.cli.exit_codes import EXIT_NOT_FOUND, EXIT_SETTINGS, CommandError
from reconciler.cli.output import print_err
from reconciler.controller.state.session_state import newest_live_pod
from reconciler.humanize import clean
from reconciler.kube.api import ObjectMeta

_TYPES = ("pod", "pods", "po")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?")
"""A pod's name or a session's ID; both are valid in a field or label selector."""


class PodRef(NamedTuple):
    """One pod by name, or a session by its ID; the namespace is never empty, None = any."""

    namespace: str | None
    name: str


@dataclass(frozen=True, slots=True)
class PodSelection:
    """The arguments that select pods.

    Args:
        pods: Names, each with or without its namespace.
        namespace: From `-n`; "" = the context's.
        everywhere: `-A`.
        labels: `-l`.
        all: `--all`.
    """

    pods: Sequence[str] = ()
    namespace: str = ""
    everywhere: bool = False
    labels: str = ""
    all: bool = False

    def scope(self, default: str) -> str | None:
        """Return the namespace to list in; None = all of them.

        Raises:
            CommandError: `-n` is no name: a slash in it would be part of the request's path.
        """
        if self.namespace and not _NAME.fullmatch(self.namespace):
            raise CommandError(f"-n {clean(self.namespace)!r}: no namespace's name", EXIT_SETTINGS)
        return None if self.everywhere else self.namespace or default


def parse_target(text: str, selection: PodSelection, *, default: str) -> PodRef:
    """Read one argument; without its namespace it is in that of `-n`, or in any by `-A`.

    Args:
        default: The context's namespace.

    Raises:
        CommandError: It is no pod's name, or names another namespace than `-n`.
    """
    first, slash, name = text.rpartition("/")
    namespace = selection.scope(default)
    if slash and first not in _TYPES:
        if selection.namespace not in ("", first):
            problem = f"{text}: -n names another namespace, {selection.namespace}"
            raise CommandError(problem, EXIT_SETTINGS)
        namespace = first
    if not _NAME.fullmatch(name) or not (namespace is None or _NAME.fullmatch(namespace)):
        raise CommandError(
            f"{clean(text)!r} is no pod's name: use POD or NAMESPACE/POD", EXIT_SETTINGS
        )
    return PodRef(namespace, name)


async def find(cluster: Cluster, target: PodRef) -> tuple[ObjectMeta, bool]:
    """Return a session's pod and whether it is live; raises `CommandError` where there is none."""
    pod, is_live = await cluster.pod(*target)
    if not pod.session_id:
        raise CommandError(
            f"pod {pod.namespace}/{pod.name} belongs to no session: it has no label "
            f"{cluster.names.session_id}",
            EXIT_NOT_FOUND,
        )
    return pod, is_live


async def list_pods(
    cluster: Cluster, selection: PodSelection
) -> tuple[list[ObjectMeta], list[CommandError]]:
    """Return the live session pods to show, and an error for each name without one.

    Without names these are all pods of the scope.

    Raises:
        CommandError: Pods are selected in two ways.
    """
    default = cluster.context.namespace
    if not selection.pods:
        return await cluster.session_pods(selection.scope(default), selection.labels), []
    if selection.labels:
        raise CommandError("name pods, or use -l: not both", EXIT_SETTINGS)
    targets = [parse_target(text, selection, default=default) for text in selection.pods]
    found: dict[str, ObjectMeta] = {}
    failed: list[CommandError] = []
    for target in targets:
        pods = await cluster.live_pods(*target)
        named = {pod.uid: pod for pod in pods if pod.session_id}
        found |= named
        if not named:
            problem = f"no live pod or session {target.name} {in_namespace(target.namespace)}"
            failed.append(CommandError(problem, EXIT_NOT_FOUND))
    return list(found.values()), failed


async def select_pods(
    cluster: Cluster, selection: PodSelection
) -> tuple[list[ObjectMeta], list[CommandError]]:
    """Return the live pods that are selected, and an error for each name without a live pod.

    Raises:
        CommandError: Nothing is selected, or pods are selected in two ways.
    """
    if bool(selection.pods) + bool(selection.labels) + selection.all != 1:
        raise CommandError(
            "name pods, or use -l, or use --all: exactly one of these", EXIT_SETTINGS
        )
    if not selection.pods:
        scope = selection.scope(cluster.context.namespace)
        return await cluster.session_pods(scope, selection.labels), []
    default = cluster.context.namespace
    targets = [parse_target(text, selection, default=default) for text in selection.pods]
    found: list[ObjectMeta] = []
    failed: list[CommandError] = []
    for target in targets:
        try:
            pod, is_live = await find(cluster, target)
        except CommandError as error:
            if error.code != EXIT_NOT_FOUND:
                raise
            failed.append(error)
            continue
        if is_live:
            found.append(await _newest_pod(cluster, pod))
        else:
            ended = f"pod {pod.namespace}/{pod.name} has ended"
            failed.append(CommandError(ended, EXIT_NOT_FOUND))
    return found, failed


async def _newest_pod(cluster: Cluster, pod: ObjectMeta) -> ObjectMeta:
    """Return the newest pod of the same session: the controller reads its annotations."""
    session = f"{cluster.names.session_id}={pod.session_id}"
    newest = newest_live_pod(await cluster.session_pods(pod.namespace, session)) or pod
    if newest.uid != pod.uid:
        print_err(
            f"pod/{pod.name} shares its session with pod/{newest.name}, which is used instead"
        )
    return newest
