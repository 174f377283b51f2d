"""`reconciler run` in separate processes, known by their logs and their metrics."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import uuid4

import aiohttp
import structlog

from reconciler.errors import SettingsError
from reconciler.lab.chaos import clock_step
from reconciler.lab.cluster import exec_child
from reconciler.lab.cluster.ports import free_port

log = structlog.get_logger()

Line = dict[str, Any]

CLEARED = (
    "KUBECONFIG", "AMBIENT_", "OIDC_", "RECONCILER_", "PLATFORM_MODE",
    "NAMESPACE", "PROJECT_KUBE_", "LOG_LEVEL", "PYTHON", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
    "http_proxy", "https_proxy", "all_proxy",
)  # fmt: skip
"""Prefixes of inherited variables that name another cluster or change how Python runs."""

_FAILED = re.compile(r'^token_reconciler_refreshes_total\{.*result="failure".*\} (\S+)$', re.M)
READ_S = 1.0
"""Seconds between two reads of the metrics, and the longest wait for an answer."""

SETTINGS_EXIT = 2
PAUSE_S = 1.0
"""Pause before a controller that ended unexpectedly is started again."""
END_S = 0.4
"""Time from SIGTERM to SIGKILL at the end: a run must end within a second."""
LINE_BYTES = 2**22

_CALL = (
    "from reconciler.lab.chaos.clock_step import install; install();"
    " from reconciler.cli.main import main; main()"
)


@dataclass
class Tally:
    """Counts from the logs and metrics of all replicas, ended processes included.

    Args:
        failed: Failed tries to refresh a token, by process, from its last metrics.
        resync_sessions: Sessions of the slowest startup resync.
        resync_s: Duration of the slowest startup resync; None: none finished.
        lateness_s: Seconds from the due time to the write of each token.
        fenced: Number of writes blocked without leadership, by process, from its last log line.
    """

    refreshes: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    resync_sessions: int = 0
    resync_s: float | None = None
    fenced: dict[str, int] = field(default_factory=dict)
    lateness_s: list[float] = field(default_factory=list)

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    def add_metrics(self, text: str, process: str) -> None:
        """Count what a process exports; a counter of a process never shrinks."""
        failed = sum(int(float(value)) for value in _FAILED.findall(text))
        self.failed[process] = max(failed, self.failed.get(process, 0))

    def add(self, line: Line, process: str = "") -> None:
        """Count one log line of a process."""
        event = line.get("event")
        if event == "runner_token_refreshed":
            self.refreshes += 1
            self.lateness_s.append(line["lateness_seconds"])
        elif event == "startup_resync_finished" and line["seconds"] >= (self.resync_s or 0.0):
            self.resync_sessions, self.resync_s = line["sessions"], line["seconds"]
        elif event in ("leadership_ended", "stopped"):
            self.fenced[process] = line.get("writes_refused", 0)


class Replica:
    """One replica: a process, and its successor when it ends. `state` is its last logged state."""

    def __init__(
        self, name: str, environment: Mapping[str, str], tally: Tally, sink: Callable[[str], None]
    ) -> None:
        self.name = name
        self.state = "starting"
        self.starts = 0
        self.port = free_port()
        self._pod_uid = str(uuid4())
        self._environment = environment
        self._tally = tally
        self._sink = sink
        self._killed = False
        self._started_at = 0.0
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"<Replica {self.name} {self.state}>"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def age_s(self) -> float:
        """Seconds since its process was started."""
        return monotonic() - self._started_at if self._started_at else 0.0

    async def run(self) -> None:
        """Keep a process running until cancelled; then it has ended, with all its children.

        Raises:
            SettingsError: The process refuses its settings; a restart cannot help.
        """
        while True:
            self._killed, self.state = False, "starting"
            self._process = process = await self._spawn()
            try:
                await self._read(process)
                code = await process.wait()
            finally:
                await _end(process)
            self.state = "down"
            if code == SETTINGS_EXIT:
                raise SettingsError(f"{self.name} refuses its settings; its log says which")
            if not self._killed:
                log.warning("lab_controller_ended", replica=self.name, code=code)
                await asyncio.sleep(PAUSE_S)

    def is_process(self, identity: str) -> bool:
        """Return whether a lease's holder is, or was, a process of this replica."""
        return identity.startswith(f"{self.name}_")

    async def read_metrics(self, session: aiohttp.ClientSession) -> None:
        """Count the process' failures; a process that gives no answer keeps its last count."""
        process = self._process_name
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
                self._tally.add_metrics(await answer.text(), process)

    @property
    def _process_name(self) -> str:
        return f"{self.name} {self.starts}"

    def kill(self, *, with_pod: bool = False) -> None:
        """Send SIGKILL; the next process starts at once, in the same pod or in another."""
        self._killed = True
        if with_pod:
            self._pod_uid = str(uuid4())
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the process (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue a frozen process (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def step_clock(self, *, forward: bool) -> None:
        """Step the process' wall clock an hour forward or back."""
        self._signal(clock_step.FORWARD if forward else clock_step.BACK)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _spawn(self) -> asyncio.subprocess.Process:
        """Start the process in a new session, so that Ctrl-C in the terminal reaches only us.

        The kernel kills it when the thread that spawns it ends: that is the main thread.
        """
        self.starts += 1
        self._started_at = monotonic()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(CLEARED)}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", exec_child.__file__, str(os.getpid()),
            sys.executable, "-c", _CALL, "run",
            env=inherited | dict(self._environment) | self._own_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=LINE_BYTES,
        )  # fmt: skip

    def _own_environment(self) -> dict[str, str]:
        return {
            "RECONCILER_REPLICA": self.name,
            "RECONCILER_POD_UID": self._pod_uid,
            "RECONCILER_LISTEN": f"127.0.0.1:{self.port}",
        }

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Read the log to its end."""
        stream = process.stderr
        while stream is not None and (raw := await stream.readline()):
            text = raw.decode(errors="replace").rstrip("\n")
            self._sink(text)
            with suppress(json.JSONDecodeError):
                line = json.loads(text)
                if isinstance(line, dict):
                    self._tally.add(line, self._process_name)
                    self._follow(line)

    def _follow(self, line: Line) -> None:
        event = line.get("event")
        if event in ("leader_observed", "lease_lost", "lease_released"):
            self.state = "standby"
        elif event == "startup_resync_started":
            self.state = "startup resync"
        elif event == "startup_resync_finished":
            self.state = f"leading, {line['sessions']} sessions in {line['seconds']:.2f} s at start"
        elif event == "not_ready":
            self.state = f"not ready: {line.get('reason', '')}"


class Replicas:
    """All controllers of a run.

    Args:
        environment: Complete environment of `reconciler run`.
        sink: Called with every line that they log.
    """

    def __init__(
        self, count: int, environment: Mapping[str, str], sink: Callable[[str], None]
    ) -> None:
        self.tally = Tally()
        self.all = [
            Replica(f"reconciler-{1 + number}", environment, self.tally, sink)
            for number in range(count)
        ]

    async def run(self) -> None:
        """Keep all of them running until cancelled."""
        async with asyncio.TaskGroup() as group:
            for replica in self.all:
                group.create_task(replica.run())

    async def count_failures(self) -> None:
        """Read the metrics until cancelled; a killed process' last second is not counted."""
        while True:
            await self.read_metrics()
            await asyncio.sleep(READ_S)

    async def read_metrics(self) -> None:
        """Read every process' metrics once."""
        limit = aiohttp.ClientTimeout(total=READ_S)
        async with aiohttp.ClientSession(timeout=limit) as session, asyncio.TaskGroup() as group:
            for replica in self.all:
                group.create_task(replica.read_metrics(session))

    def leader(self, holder: str) -> Replica | None:
        """Return the replica that holds the lease, None if the holder is another client."""
        return next((each for each in self.all if each.is_process(holder)), None)

    def restart(self) -> None:
        """Kill every process; each replica starts a new one."""
        for replica in self.all:
            replica.kill()


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process and all that it started: SIGTERM, and SIGKILL after `END_S`."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
