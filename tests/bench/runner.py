"""Runs the parts one after another; a part that fails is reported, and the others run."""

import asyncio
import os
import tempfile
import time
import traceback
from collections.abc import Awaitable, Sequence
from pathlib import Path

from tests.bench import fleet, parts
from tests.bench.figures import Value
from tests.bench.plan import Plan
from tests.bench.report import PartRun, Report, save
from tests.bench.say import say
from tests.cluster.controlplane import ControlPlane


class Runner:
    """Measures the parts of these names.

    Args:
        report: Gets the figures; it is written to `path` after each part.
    """

    def __init__(
        self,
        binaries: parts.Binaries,
        plan: Plan,
        names: Sequence[str],
        *,
        report: Report,
        path: Path,
    ) -> None:
        self._binaries, self._plan, self._names = binaries, plan, names
        self._report, self._path = report, path

    def run(self) -> None:
        """Measure everything: each fleet has a control plane that no other part has used."""
        of_fleet = [part for part in parts.FLEET_PARTS if part.name in self._names]
        single = [part for part in parts.SINGLE_PARTS if part.name in self._names]
        for sessions in self._plan.sizes if of_fleet else ():
            self._attempt(f"a fleet of {sessions:,} sessions", self._fleet(sessions, of_fleet))
        if single:
            self._attempt("a control plane", self._single(single))

    def _attempt(self, what: str, work: Awaitable[None]) -> None:
        try:
            asyncio.run(_awaited(work))
        except Exception as error:
            self._failed(what, error, 0.0)

    async def _fleet(self, sessions: int, chosen: Sequence[parts.FleetPart]) -> None:
        peers = parts.peers(self._names, sessions)
        with ControlPlane(self._binaries) as control_plane, tempfile.TemporaryDirectory() as made:
            began = time.monotonic()
            async with fleet.opened(
                control_plane, Path(made), sessions=sessions, peers=peers
            ) as found:
                say(f"{sessions:,} sessions are ready after {time.monotonic() - began:.0f} s")
                for part in chosen:
                    await found.renew_account()
                    name = f"{part.name}, {sessions:,} sessions"
                    await self._part(name, part.measure(found, self._binaries, self._plan))

    async def _single(self, chosen: Sequence[parts.SinglePart]) -> None:
        with ControlPlane(self._binaries) as control_plane:
            for part in chosen:
                with tempfile.TemporaryDirectory() as made:
                    await self._part(part.name, part.measure(control_plane, Path(made), self._plan))

    async def _part(self, name: str, measure: Awaitable[Sequence[Value]]) -> None:
        say(f"{name}: begins")
        began = time.monotonic()
        try:
            values = await measure
        except Exception as error:
            self._failed(name, error, time.monotonic() - began)
        else:
            self._add(PartRun(name, time.monotonic() - began, os.getloadavg()[0]), values)
            say(f"{name}: {time.monotonic() - began:.0f} s")

    def _failed(self, name: str, error: Exception, seconds: float) -> None:
        traceback.print_exception(error)
        failure = traceback.format_exception_only(error)[-1].partition("\n")[0].strip()
        say(f"{name} FAILED: {failure}")
        self._add(PartRun(name, seconds, os.getloadavg()[0], failure), ())

    def _add(self, run: PartRun, values: Sequence[Value]) -> None:
        self._report.add(run, values)
        save(self._report, self._path)


async def _awaited(work: Awaitable[None]) -> None:
    await work
