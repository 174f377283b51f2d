"""`reconciler status`: who holds which token, the next to expire first."""

import asyncio
import signal
import sys

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from reconciler.cli.cluster import Access, Cluster, open_cluster
from reconciler.cli.exit_codes import EXIT_EXPIRED, EXIT_INTERRUPTED, EXIT_UNREACHABLE, CommandError
from reconciler.cli.output import check_format, run, say, say_json, warn, warn_of_skew
from reconciler.cli.pod_selection import PodSelection
from reconciler.cli.table import columns_for, draw
from reconciler.controller.decide.plan import DecisionContext
from reconciler.humanize import ago
from reconciler.inspection.fleet import PodFleet, survey
from reconciler.inspection.printers import cells, fleet_as_json, plain
from reconciler.kube.api import ObjectMeta
from reconciler.tokens.source import SANE_TTL_S

LOOK_S = 2.0
"""Shortest pause between two looks at the cluster."""

PAUSE = 9.0
"""A look, or a picture, is followed by a pause of so many times its length: a big fleet is not
listed all day."""

FRAME_S = 1.0


def run_status(access: Access, choice: PodSelection, *, output: str, watch: bool) -> int:
    """Print the fleet once, or until Ctrl-C; returns the exit code of what was seen last."""
    view = _View(choice, as_json=check_format(output))
    if not watch:
        return run(view.once(access))
    try:
        asyncio.run(view.follow(access))
    except (KeyboardInterrupt, asyncio.CancelledError):
        view.finish()
    return view.code


def policy_of(cluster: Cluster) -> DecisionContext:
    """Return what the controller would decide by; a token's longest life it alone has seen."""
    return DecisionContext(
        names=cluster.names,
        propagation_s=cluster.settings.propagation_allowance_s,
        longest_ttl_s=SANE_TTL_S,
    )


class _View:
    """One command's looks at the cluster, and how they are shown."""

    def __init__(self, choice: PodSelection, *, as_json: bool) -> None:
        self._choice = choice
        self._as_json = as_json
        self._console = Console(highlight=False)
        self._is_drawn = self._console.is_terminal and not self._console.is_dumb_terminal
        self._columns = columns_for(everywhere=choice.everywhere)
        self._pods: list[ObjectMeta] = []
        self._secrets: list[ObjectMeta] = []
        self._fleet: PodFleet | None = None
        self._problem = ""

    @property
    def code(self) -> int:
        if self._fleet is None:
            return EXIT_INTERRUPTED
        return EXIT_EXPIRED if self._fleet.expired else 0

    async def once(self, access: Access) -> int:
        async with open_cluster(access) as cluster:
            await self._look(cluster)
            self._print(cluster)
            warn_of_skew(cluster)
        return self.code

    async def follow(self, access: Access) -> None:
        """Look again and again, until cancelled."""
        task = asyncio.current_task()
        if task is not None:
            for number in (signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        async with open_cluster(access) as cluster:
            await self._look(cluster)
            warn_of_skew(cluster)
            if self._is_drawn and not self._as_json:
                await self._animate(cluster)
            else:
                await self._tell(cluster)

    def finish(self) -> None:
        """Leave the last picture on the terminal, whose watching screen is gone."""
        if self._fleet is not None and self._is_drawn and not self._as_json:
            self._draw(self._fleet)

    async def _look(self, cluster: Cluster) -> None:
        """Read pods first: a Secret is made before its pod, so none is missed by a hair."""
        scope = self._choice.scope(cluster.context.namespace)
        pods = await cluster.session_pods(scope, self._choice.labels)
        self._secrets = await cluster.session_secrets(scope) if pods else []
        self._pods = pods
        self._judge(cluster)

    def _judge(self, cluster: Cluster) -> PodFleet:
        policy = policy_of(cluster)
        self._fleet = survey(self._pods, self._secrets, policy, cluster.now_s())
        return self._fleet

    async def _look_again(self, cluster: Cluster) -> float:
        """Look, or note why not, and return how long to rest."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            await self._look(cluster)
            self._problem = ""
        except CommandError as error:
            if error.code != EXIT_UNREACHABLE:
                raise
            self._problem = str(error)
        return max(LOOK_S, PAUSE * (loop.time() - began_at))

    async def _animate(self, cluster: Cluster) -> None:
        """Draw each second what the tokens' lives are by then, and look in between."""
        loop = asyncio.get_running_loop()
        looked_at, looked_s, rest_s = loop.time(), cluster.now_s(), LOOK_S
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            while True:
                began_at = loop.time()
                fleet = self._judge(cluster)
                live.update(self._frame(fleet, looked_s), refresh=True)
                await asyncio.sleep(max(FRAME_S, PAUSE * (loop.time() - began_at)))
                if loop.time() - looked_at >= rest_s:
                    rest_s = await self._look_again(cluster)
                    looked_at = loop.time()
                    looked_s = looked_s if self._problem else cluster.now_s()

    async def _tell(self, cluster: Cluster) -> None:
        """Print the fleet whenever it has changed: a table, or one JSON object a line."""
        shown: list[tuple[str, ...]] | None = None
        told, rest_s = "", LOOK_S
        while True:
            found = _essence(self._fleet or self._judge(cluster))
            if self._problem and self._problem != told:
                warn(self._problem)
            elif not self._problem and found != shown:
                if shown is not None and not self._as_json:
                    say("")
                self._print(cluster, indent=None)
                shown = found
            told = self._problem
            await asyncio.sleep(rest_s)
            rest_s = await self._look_again(cluster)

    def _print(self, cluster: Cluster, *, indent: int | None = 2) -> None:
        fleet = self._fleet or self._judge(cluster)
        if self._as_json:
            say_json(fleet_as_json(fleet, cluster.names), indent=indent)
        elif not fleet.rows:
            scope = self._choice.scope(cluster.context.namespace)
            where = "in any namespace" if scope is None else f"in namespace {scope}"
            warn(f"no session pods {where}" + ("" if scope is None else "; -A looks at all"))
        elif self._is_drawn:
            self._draw(fleet)
        else:
            sys.stderr.write(f"{'; '.join(fleet.headline())}\n")
            rows = [cells(row, fleet.now_s) for row in fleet.rows]
            for line in plain(rows, self._columns):
                say(line)

    def _draw(self, fleet: PodFleet) -> None:
        width = self._console.width
        for part in draw(fleet, columns=self._columns, width=width):
            self._console.print(part)

    def _frame(self, fleet: PodFleet, looked_s: float) -> Group:
        width, height = self._console.size
        parts = draw(fleet, columns=self._columns, width=width, rows=max(2, height - 7))
        age = ago(fleet.now_s - looked_s)
        foot = f"{self._problem}; read {age}" if self._problem else f"read {age}"
        style = "bold red" if self._problem else "dim"
        last = Text(f"{foot}; Ctrl-C ends", style=style, no_wrap=True, overflow="ellipsis")
        return Group(*parts, Text(), last)


def _essence(fleet: PodFleet) -> list[tuple[str, ...]]:
    """Return what makes two surveys differ: not the seconds that pass."""
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
