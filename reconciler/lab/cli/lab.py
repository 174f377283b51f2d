"""`reconciler lab`: the lab cluster without a controller, and the environment for one."""

import asyncio
import shlex
import signal
import sys

from reconciler.humanize import count
from reconciler.lab.cluster.cluster import LabCluster
from reconciler.telemetry.log_setup import configure_logs


def run_lab(
    *, sessions: int, ttl_s: float, projection_delay: tuple[float, float], seed: int | None
) -> None:
    """Start the cluster, print the environment, and run until Ctrl-C."""
    configure_logs("info", "auto")

    async def main() -> None:
        cluster = LabCluster(ttl_s=ttl_s, projection_delay=projection_delay, seed=seed)
        await _run(cluster, sessions)

    asyncio.run(main())


async def _run(cluster: LabCluster, sessions: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with cluster:
        cluster.populate(sessions)
        environment = cluster.environment()
        lines = [
            f"# Here until Ctrl-C: {count(sessions, 'running session')};"
            f" their tokens live {cluster.ttl_s:g} s.",
            "# In another terminal, for `reconciler run`, the other commands, and kubectl:",
            *(f"export {name}={shlex.quote(text)}" for name, text in environment.items()),
            "# With an administrator's rights, instead of the controller's above:",
            f"# export KUBECONFIG={shlex.quote(str(cluster.kubectl_config()))}",
        ]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        await stop.wait()
