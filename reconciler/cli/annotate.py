"""What refresh, pause and resume share: they set an annotation on each selected pod."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from reconciler.cli.cluster import Cluster
from reconciler.cli.exit_codes import EXIT_SETTINGS, CommandError, worst
from reconciler.cli.output import print_err, print_out
from reconciler.cli.pod_selection import PodSelection, select_pods
from reconciler.inspection.printers import pod_name
from reconciler.kube.api import ObjectMeta

AT_ONCE = 8
"""Patches in progress at a time: a fleet takes seconds, and the server is not overloaded."""


@dataclass(frozen=True, slots=True)
class PatchResult:
    """The result for one pod.

    `pod` is the pod after the write, `done` the end of the line that is printed.
    """

    pod: ObjectMeta
    done: str
    written: bool = True


Change = Callable[[Cluster, ObjectMeta], Awaitable[PatchResult]]


def check_dry_run(dry_run: str) -> bool:
    """Return whether nothing may be sent; raises `CommandError` for an unknown strategy."""
    if dry_run not in ("none", "client"):
        raise CommandError(f"--dry-run={dry_run}: must be none or client", EXIT_SETTINGS)
    return dry_run == "client"


async def change_all(
    cluster: Cluster, selection: PodSelection, change: Change, *, verb: str, dry_run: bool
) -> tuple[list[PatchResult], int]:
    """Change each selected pod and print a line for each, as kubectl does; continue past a failure.

    Args:
        verb: The end of a dry run's line (`paused`).

    Returns: What was written, and the exit code.
    """
    pods, failed = await select_pods(cluster, selection)
    for error in failed:
        print_err(str(error))
    codes = [error.code for error in failed]
    if not pods and not failed:
        print_err("no session pods match")
    if dry_run:
        for pod in pods:
            print_out(f"{pod_name(pod)} {verb} (dry run)")
        return [], worst(codes)
    slots = asyncio.Semaphore(AT_ONCE)

    async def change_one(pod: ObjectMeta) -> PatchResult | CommandError:
        async with slots:
            try:
                return await change(cluster, pod)
            except CommandError as error:
                return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(change_one(pod)) for pod in pods]
    patched = []
    for task in tasks:
        result = task.result()
        if isinstance(result, CommandError):
            print_err(str(result))
            codes.append(result.code)
            continue
        print_out(f"{pod_name(result.pod)} {result.done}")
        patched.append(result)
    return patched, worst(codes)
