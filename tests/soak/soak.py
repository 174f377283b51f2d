"""The product under a fault each minute, sampled."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.bench.figures import quantile
from tests.bench.procfs import rss_mb
from tests.cluster.world import ExpiryWatch, World
from tests.controller import Controller, running
from tests.soak.chaos import WARM_UP_S, Chaos
from tests.soak.trend import by_minute, theil_sen

TTL_S = 60.0
TIMES = {
    "RECONCILER_PROPAGATION_ALLOWANCE_S": "6",
    "RECONCILER_LEASE_DURATION_S": "10",
    "RECONCILER_RENEW_DEADLINE_S": "6.667",
    "RECONCILER_RETRY_PERIOD_S": "1.333",
    "RECONCILER_REQUEST_LIMIT_S": "6.667",
}
"""The default times in proportion to the token's life."""

START_S = 300.0
SAMPLE_S = 10.0
POLL_S = 3.0
LIMITS = {"rss_mb": 1.0, "descriptors": 6.0, "sockets": 6.0, "tasks": 6.0}
"""Most growth an hour."""


@dataclass
class Sample:
    """What the process holds, and what it did since the last sample; `at_s` from the begin."""

    at_s: float
    rss_mb: float
    descriptors: int
    sockets: int
    tasks: int
    refreshes: int
    lateness_p50_s: float
    lateness_worst_s: float
    expired_s: float
    excused_s: float
    tracebacks: int
    load: float


class Soak:
    """One run of the product, its samples, and their judges.

    Args:
        log: File for the product's log.

    Attributes:
        exit_code: That of the product, known at the end.
    """

    def __init__(self, world: World, controller: Controller, seed: int, log: Path) -> None:
        self.samples: list[Sample] = []
        self.exit_code: int | None = None
        self.watch = ExpiryWatch(world)
        self.chaos = Chaos(world, controller, self.watch, Random(seed))
        self._world, self._controller, self._log = world, controller, log
        self._began_at = time.monotonic()
        self._expired_s = 0.0

    async def sample(self) -> None:
        """Take samples until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            self.samples.append(self._take())

    def _take(self) -> Sample:
        pid, at_s = self._controller.process.pid, time.monotonic() - self._began_at
        written = self._controller.events("runner_token_refreshed")
        late_s = [line["lateness_seconds"] for line in written] or [0.0]
        refreshes = len(written)
        text = self._controller.text
        tracebacks = sum("Traceback" in line for line in text)
        with self._log.open("a") as log:
            log.writelines(text)
        for read in (written, self._controller.lines, text):  # hours of it would be kept here
            read.clear()
        expired_s = self.watch.expired_s - self._expired_s
        self._expired_s = self.watch.expired_s
        is_excused = self.chaos.excuses(at_s)
        files = [_target(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
        return Sample(
            round(at_s, 1), rss_mb(pid), len(files),
            sum(name.startswith("socket:") for name in files),
            sum(json.loads((self._world.folder / "tasks").read_text()).values()),
            refreshes, quantile(late_s, 0.5), max(late_s),
            0.0 if is_excused else expired_s, expired_s if is_excused else 0.0, tracebacks,
            round(os.getloadavg()[0], 2),
        )  # fmt: skip

    def judges(self) -> list[tuple[bool, str]]:
        """Return whether each judge passes, and the words to print."""
        found = []
        warm_s = min(WARM_UP_S, self.samples[-1].at_s / 3)
        for name, limit in LIMITS.items():
            points = [(s.at_s, float(getattr(s, name))) for s in self.samples if s.at_s >= warm_s]
            trend = theil_sen(by_minute(points))
            words = f"{name}: {trend.slope:+.2f} an hour, limit {limit:g}"
            noise = f"(95 %: {trend.low:+.2f} to {trend.high:+.2f}), after {warm_s / 60:.0f} min"
            found.append((trend.slope <= limit, f"{words} {noise}"))
        excused_s = sum(sample.excused_s for sample in self.samples)
        expired_s = self.watch.expired_s - excused_s
        words = f"{expired_s:.1f} expired-token seconds, {excused_s:.1f} after faults too long"
        found.append((expired_s == 0.0, words))
        tracebacks = sum(sample.tracebacks for sample in self.samples)
        found.append((not tracebacks, f"{tracebacks} tracebacks in the log"))
        found.append((self.exit_code == 0, f"exit code {self.exit_code}"))
        return found


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:  # closed since the folder was read
        return ""


@asynccontextmanager
async def soaking(world: World, *, seed: int, log: Path) -> AsyncIterator[Soak]:
    """Run the product, and sample it until the block ends; then it has ended by SIGTERM."""
    command = (sys.executable, "-m", "tests.soak.observed", world.folder / "tasks", "run")
    async with running(world.environment(**TIMES), command=command) as controller:
        await controller.wait_for_event("startup_resync_finished", limit_s=START_S)
        soak = Soak(world, controller, seed, log)
        async with soak.watch.polling(every_s=POLL_S), asyncio.TaskGroup() as group:
            sampling = group.create_task(soak.sample())
            yield soak
            sampling.cancel()
        soak.exit_code = await controller.terminate()
