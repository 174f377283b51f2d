"""All runners of the fleet in one process: two light tasks each, on shared connections."""

import asyncio
from pathlib import Path

from reconciler.lab.runners.channels import Channels
from reconciler.lab.runners.runner import CallLedger, Draw, Rates, Runner
from reconciler.naming import SessionKey


class RunnerPool:
    """Starts and stops runners by container ID; their tasks belong to the caller's group."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        channels: Channels,
        ledger: CallLedger,
        rates: Rates,
        draw: Draw,
    ) -> None:
        self._group = group
        self._channels = channels
        self._ledger = ledger
        self._rates = rates
        self._draw = draw
        self._tasks: dict[str, tuple[asyncio.Task[None], ...]] = {}

    def __repr__(self) -> str:
        return f"<Crew {len(self._tasks)} runners>"

    def start(self, container: str, session: SessionKey, directory: Path) -> None:
        """Start the runner that reads its token from this directory."""
        channel = self._channels.deal()
        runner = Runner(session, directory, channel, self._ledger, self._rates, self._draw)
        self._tasks[container] = tuple(
            self._group.create_task(work) for work in (runner.listen(), runner.push())
        )

    def stop(self, container: str) -> None:
        """Stop a runner at its next await; calls in flight are cancelled and not counted."""
        for task in self._tasks.pop(container, ()):
            task.cancel()

    def stop_all(self) -> None:
        for container in list(self._tasks):
            self.stop(container)
