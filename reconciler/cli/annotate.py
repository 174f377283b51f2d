"""What renew, pause and resume share: an annotation on each of the chosen pods."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from reconciler.cli.cluster import Cluster
from reconciler.cli.exit_codes import EXIT_SETTINGS, CommandError, worst
from reconciler.cli.output import say, warn
from reconciler.cli.pod_selection import PodSelection, choose
from reconciler.inspection.printers import pod_name
from reconciler.kube.api import ObjectMeta

AT_ONCE = 8
"""Patches under way at a time: a fleet is asked for in seconds, and the server is not flooded."""


@dataclass(frozen=True, slots=True)
class PatchResult:
    """One pod and what became of it.

    `pod` is as it is after the write; `done` is how the confirmation ends.
    """

    pod: ObjectMeta
    done: str
    written: bool = True


Change = Callable[[Cluster, ObjectMeta], Awaitable[PatchResult]]


def check_dry_run(dry_run: str) -> bool:
    """Return whether nothing may be sent; raises `CommandError` for what is no strategy."""
    if dry_run not in ("none", "client"):
        raise CommandError(f"--dry-run={dry_run}: must be none or client", EXIT_SETTINGS)
    return dry_run == "client"


async def change_all(
    cluster: Cluster, choice: PodSelection, change: Change, *, verb: str, dry_run: bool
) -> tuple[list[PatchResult], int]:
    """Change each chosen pod, confirm each as kubectl would, and go on past one that fails.

    Args:
        verb: How a dry run's confirmation ends (`paused`).

    Returns: What was written, and the exit code.
    """
    pods, failed = await choose(cluster, choice)
    for error in failed:
        warn(str(error))
    codes = [error.code for error in failed]
    if not pods and not failed:
        warn("no session pods match")
    if dry_run:
        for pod in pods:
            say(f"{pod_name(pod)} {verb} (dry run)")
        return [], worst(codes)
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(pod: ObjectMeta) -> PatchResult | CommandError:
        async with slots:
            try:
                return await change(cluster, pod)
            except CommandError as error:
                return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(pod)) for pod in pods]
    asked = []
    for task in tasks:
        result = task.result()
        if isinstance(result, CommandError):
            warn(str(result))
            codes.append(result.code)
            continue
        say(f"{pod_name(result.pod)} {result.done}")
        asked.append(result)
    return asked, worst(codes)
