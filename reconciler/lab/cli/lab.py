"""`reconciler lab`: the box without controllers, and the environment to start some against it."""

import asyncio
import shlex
import signal
import sys

from reconciler.lab.cli.commands import import_lab, parse_delay
from reconciler.telemetry.log_setup import configure_logs

import_lab()

from reconciler.lab.cluster.cluster import LabCluster  # noqa: E402 - after the check for the lab extra


def run_lab(*, sessions: int, ttl_s: float, delay: str, seed: int | None) -> None:
    """Start it, print the environment, and run until Ctrl-C."""
    projection_delay = parse_delay(delay)
    configure_logs("info", "auto")

    async def main() -> None:
        await _run(LabCluster(ttl_s=ttl_s, projection_delay=projection_delay, seed=seed), sessions)

    asyncio.run(main())


async def _run(box: LabCluster, sessions: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with box:
        box.populate(sessions)
        lines = [
            f"# {sessions} sessions run here until Ctrl-C; their tokens live {box.ttl_s:g} s.",
            "# In another terminal, for `reconciler run`:",
            *(f"export {name}={shlex.quote(text)}" for name, text in box.environment().items()),
            "# For kubectl, which sends no token over plain HTTP, instead of the KUBECONFIG above:",
            f"# export KUBECONFIG={shlex.quote(str(box.kubectl_config()))}",
        ]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        await stop.wait()
