"""Which pods a command is about: `POD`, `NS/POD`, `pod/POD`, a selector, or all."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.cli.cluster import Cluster
from reconciler.cli.exit_codes import EXIT_NOT_FOUND, EXIT_SETTINGS, CommandError
from reconciler.cli.output import warn
from reconciler.controller.state.session_state import newest_live_pod
from reconciler.kube.api import ObjectMeta

_TYPES = ("pod", "pods", "po")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?")
"""A pod's name, or a session's ID; either goes into a field or label selector as it is."""


class PodRef(NamedTuple):
    """One pod as it was named; the namespace is never empty."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class PodSelection:
    """What was typed.

    Args:
        pods: Names, each perhaps with its namespace.
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
        """Return the namespace to list in; None = all of them."""
        return None if self.everywhere else self.namespace or default


def parse_target(text: str, *, namespace: str, default: str) -> PodRef:
    """Read one argument.

    Args:
        namespace: What `-n` says, "" where it was not given.
        default: The context's namespace.

    Raises:
        CommandError: It names no pod, or two namespaces.
    """
    first, slash, name = text.rpartition("/")
    within = namespace or default
    if slash and first not in _TYPES:
        if namespace and namespace != first:
            raise CommandError(f"{text}: -n says another namespace, {namespace}", EXIT_SETTINGS)
        within = first
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(within):
        raise CommandError(f"{text!r} does not name a pod: POD or NAMESPACE/POD", EXIT_SETTINGS)
    return PodRef(within, name)


async def find(cluster: Cluster, target: PodRef) -> tuple[ObjectMeta, bool]:
    """Return a session's pod and whether it lives; raises `CommandError` where there is none."""
    pod, lives = await cluster.pod(*target)
    if not pod.session_id:
        raise CommandError(
            f"pod {pod.namespace}/{pod.name} is no session's pod: it has no label "
            f"{cluster.names.session_id}",
            EXIT_NOT_FOUND,
        )
    return pod, lives


async def choose(
    cluster: Cluster, choice: PodSelection
) -> tuple[list[ObjectMeta], list[CommandError]]:
    """Return the live pods that are meant, and an error for each name that means none.

    Raises:
        CommandError: Nothing was chosen, or it was chosen in two ways.
    """
    if bool(choice.pods) + bool(choice.labels) + choice.all != 1:
        raise CommandError(
            "name pods, or choose them by -l, or by --all: one of these", EXIT_SETTINGS
        )
    if not choice.pods:
        scope = choice.scope(cluster.context.namespace)
        return await cluster.session_pods(scope, choice.labels), []
    if choice.everywhere:
        raise CommandError("-A goes with -l or --all, not with names", EXIT_SETTINGS)
    default = cluster.context.namespace
    targets = [
        parse_target(text, namespace=choice.namespace, default=default) for text in choice.pods
    ]
    found: list[ObjectMeta] = []
    failed: list[CommandError] = []
    for target in targets:
        try:
            pod, lives = await find(cluster, target)
        except CommandError as error:
            if error.code != EXIT_NOT_FOUND:
                raise
            failed.append(error)
            continue
        if lives:
            found.append(await _leading(cluster, pod))
        else:
            ended = f"pod {pod.namespace}/{pod.name} has ended"
            failed.append(CommandError(ended, EXIT_NOT_FOUND))
    return found, failed


async def _leading(cluster: Cluster, pod: ObjectMeta) -> ObjectMeta:
    """Return the pod of this one's session whose annotations the controller reads, and say so."""
    session = f"{cluster.names.session_id}={pod.session_id}"
    counts = newest_live_pod(await cluster.session_pods(pod.namespace, session)) or pod
    if counts.uid != pod.uid:
        warn(f"pod/{pod.name} shares its session with pod/{counts.name}, which counts")
    return counts
