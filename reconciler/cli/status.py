"""`reconciler status`: lists the pods and their tokens, the next to expire first."""

import asyncio
import signal
import sys

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from reconciler.cli.cluster import Access, Cluster, in_namespace, open_cluster
from reconciler.cli.exit_codes import (
    EXIT_EXPIRED,
    EXIT_INTERRUPTED,
    EXIT_NOT_FOUND,
    EXIT_UNREACHABLE,
    CommandError,
)
from reconciler.cli.fleet_output import FleetOutput
from reconciler.cli.output import (
    print_clock_skew,
    print_document,
    print_err,
    print_out,
    run,
)
from reconciler.cli.pod_selection import PodSelection, list_pods
from reconciler.cli.table import columns_for, draw
from reconciler.clock import EpochTime
from reconciler.controller.decide.refresh_plan import DecisionContext
from reconciler.humanize import ago
from reconciler.inspection.fleet import PodFleet, assess_fleet
from reconciler.inspection.printers import fleet_as_json
from reconciler.kube.api import ObjectMeta
from reconciler.tokens.source import MAX_TRUSTED_TTL_S

READ_S = 2.0
"""Shortest pause between two reads of the cluster, in seconds."""

PAUSE_FACTOR = 9.0
"""A read, or a frame, is followed by a pause of this many times its duration, so that a large fleet
is not listed without a pause."""

FRAME_S = 1.0
"""Seconds between two frames of the terminal view."""


def run_status(access: Access, selection: PodSelection, output: FleetOutput, *, watch: bool) -> int:
    """Print the fleet once, or until Ctrl-C; returns the exit code of the last read."""
    command = _StatusCommand(selection, output)
    if not watch:
        return run(command.once(access))
    try:
        asyncio.run(command.watch(access))
    except (KeyboardInterrupt, asyncio.CancelledError):
        command.finish()
    return command.code


def decision_context(cluster: Cluster) -> DecisionContext:
    """Return the controller's parameters; only the controller knows the longest token life."""
    return DecisionContext(
        names=cluster.names,
        propagation_s=cluster.settings.propagation_allowance_s,
        longest_ttl_s=MAX_TRUSTED_TTL_S,
    )


class _StatusCommand:
    """Reads the cluster and prints the fleet."""

    def __init__(self, selection: PodSelection, output: FleetOutput) -> None:
        self._choice = selection
        self._output = output
        self._console = Console(highlight=False)
        self._is_interactive = (
            output.is_for_terminal
            and self._console.is_terminal
            and not self._console.is_dumb_terminal
        )
        self._columns = columns_for(everywhere=selection.everywhere)
        self._pods: list[ObjectMeta] = []
        self._secrets: list[ObjectMeta] = []
        self._fleet: PodFleet | None = None
        self._missing: list[CommandError] = []
        self._problem = ""

    @property
    def code(self) -> int:
        if self._fleet is None:
            return EXIT_INTERRUPTED
        if self._fleet.expired:
            return EXIT_EXPIRED
        return EXIT_NOT_FOUND if self._missing else 0

    async def once(self, access: Access) -> int:
        async with open_cluster(access) as cluster:
            await self._read(cluster)
            self._print(cluster)
            self._print_missing()
            print_clock_skew(cluster)
        return self.code

    async def watch(self, access: Access) -> None:
        """Look again and again, until cancelled."""
        task = asyncio.current_task()
        if task is not None:
            for number in (signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        async with open_cluster(access) as cluster:
            await self._read(cluster)
            self._print_missing()
            print_clock_skew(cluster)
            if self._is_interactive:
                await self._animate(cluster)
            else:
                await self._stream(cluster)

    def finish(self) -> None:
        """Print the last frame again, since the alternate screen is closed."""
        if self._fleet is not None and self._is_interactive:
            self._draw(self._fleet)

    async def _read(self, cluster: Cluster) -> None:
        """Read pods first: a Secret is made before its pod, so the later list contains it."""
        pods, self._missing = await list_pods(cluster, self._choice)
        if self._choice.pods:
            keys = {pod.key for pod in pods}
            found = [await cluster.secret(*key) for key in keys]
            self._secrets = [secret for secret in found if secret is not None]
        else:
            scope = self._choice.scope(cluster.context.namespace)
            self._secrets = await cluster.session_secrets(scope) if pods else []
        self._pods = pods
        self._assess(cluster)

    def _assess(self, cluster: Cluster) -> PodFleet:
        context = decision_context(cluster)
        fleet = assess_fleet(self._pods, self._secrets, context, cluster.now_s())
        self._fleet = self._output.sort(fleet, cluster.names)
        return self._fleet

    async def _read_again(self, cluster: Cluster) -> float:
        """Read the cluster, or keep the error, and return the seconds to wait."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            await self._read(cluster)
            self._problem = ""
        except CommandError as error:
            if error.code != EXIT_UNREACHABLE:
                raise
            self._problem = str(error)
        return max(READ_S, PAUSE_FACTOR * (loop.time() - began_at))

    async def _animate(self, cluster: Cluster) -> None:
        """Draw a frame a second with the lives at that time; read the cluster between frames."""
        loop = asyncio.get_running_loop()
        read_at, read_s, wait_s = loop.time(), cluster.now_s(), READ_S
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            while True:
                began_at = loop.time()
                fleet = self._assess(cluster)
                live.update(self._frame(fleet, read_s), refresh=True)
                await asyncio.sleep(max(FRAME_S, PAUSE_FACTOR * (loop.time() - began_at)))
                if loop.time() - read_at >= wait_s:
                    wait_s = await self._read_again(cluster)
                    read_at = loop.time()
                    read_s = read_s if self._problem else cluster.now_s()

    async def _stream(self, cluster: Cluster) -> None:
        """Print the fleet at each change: a table, or one JSON object a line."""
        shown: list[tuple[str, ...]] | None = None
        printed_problem, wait_s = "", READ_S
        while True:
            found = _changes(self._fleet or self._assess(cluster))
            if self._problem and self._problem != printed_problem:
                print_err(self._problem)
            elif not self._problem and found != shown:
                if shown is not None and not self._output.is_document:
                    print_out("")
                self._print(cluster, streamed=True)
                shown = found
            printed_problem = self._problem
            await asyncio.sleep(wait_s)
            wait_s = await self._read_again(cluster)

    def _print(self, cluster: Cluster, *, streamed: bool = False) -> None:
        fleet = self._fleet or self._assess(cluster)
        if self._output.is_document:
            found = fleet_as_json(fleet, cluster.names)
            print_document(found, self._output.format, streamed=streamed)
        elif not fleet.rows:
            if self._choice.pods:
                return
            scope = self._choice.scope(cluster.context.namespace)
            print_err(
                f"no session pods {in_namespace(scope)}"
                + ("" if scope is None else "; -A lists all namespaces")
            )
        elif self._is_interactive:
            self._draw(fleet)
        else:
            if self._output.format != "name":
                sys.stderr.write(f"{'; '.join(fleet.headline())}\n")
            everywhere = self._choice.everywhere
            for line in self._output.lines(fleet, cluster.names, everywhere=everywhere):
                print_out(line)

    def _print_missing(self) -> None:
        for error in self._missing:
            print_err(str(error))

    def _draw(self, fleet: PodFleet) -> None:
        width = self._console.width
        for part in draw(fleet, columns=self._columns, width=width):
            self._console.print(part)

    def _frame(self, fleet: PodFleet, read_s: EpochTime) -> Group:
        width, height = self._console.size
        parts = draw(
            fleet,
            columns=self._columns,
            width=width,
            rows=max(2, height - 7),
            by_expiry=not self._output.sort_field,
        )
        age = ago(fleet.now_s - read_s)
        footer = f"{self._problem}; read {age}" if self._problem else f"read {age}"
        style = "bold red" if self._problem else "dim"
        last = Text(
            f"{footer}; press Ctrl-C to end", style=style, no_wrap=True, overflow="ellipsis"
        )
        return Group(*parts, Text(), last)


def _changes(fleet: PodFleet) -> list[tuple[str, ...]]:
    """Return what counts as a change: everything but the passing seconds."""
    return [
        (
            row.pod.uid,
            str(row.state),
            str(row.expires_s),
            row.refreshed_by,
            str(row.pod.is_deleting),
        )
        for row in fleet.rows
    ]
