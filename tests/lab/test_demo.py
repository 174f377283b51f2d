"""`reconciler demo` as a process: its exit code and its output."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler.lab.chaos.actions import ChaosActions
from reconciler.lab.chaos.schedule import ScheduledFault, parse_chaos
from reconciler.lab.cluster.cluster import LabCluster
from reconciler.lab.cluster.replicas import Replicas
from reconciler.lab.demo.demo import Demo, DemoPlan
from reconciler.lab.fault_catalogue import DEMO_FAULTS, Fault
from tests.commands import terminal
from tests.controller import CLEARED, COMMAND
from tests.lab.leaks import core_texts, find_leaks

pytestmark = pytest.mark.realtime

KEYS = [
    "sessions", "replicas", "token_ttl_s", "lease_s", "duration_s", "refreshes",
    "refresh_failures", "startup_resync", "expired_token_seconds", "unauthenticated",
    "reauthentications", "grpc_calls", "lateness_p99_s", "leader_changes", "failover_s",
    "writes_fenced", "writes_applied_without_leadership", "chaos",
]  # fmt: skip
ROOT = Path(__file__).parents[2]
SMALL = ("--sessions", "8", "--token-ttl", "8", "--projection-delay", "0.2-0.6", "--report", "json")


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    def report(self) -> dict[str, Any]:
        """Return the one object on standard output; the run must have leaked nothing."""
        assert find_leaks({"stdout": self.stdout, "stderr": self.stderr}) == []
        (line,) = self.stdout.splitlines()
        found: dict[str, Any] = json.loads(line)
        assert list(found) == KEYS
        return found


def environment() -> Mapping[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(CLEARED)}
    return inherited | {"LOG_LEVEL": "debug"}


async def start(*options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        COMMAND,
        "demo",
        *options,
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(*options: str) -> Ended:
    process = await start(*options)
    try:
        stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


def assert_clean(found: dict[str, Any]) -> None:
    assert found["expired_token_seconds"] == 0
    assert found["unauthenticated"] == 0
    assert found["startup_resync"]["seconds"] < 3


async def test_a_quiet_run_expires_nothing_and_says_all_that_is_promised() -> None:
    ended = await run(*SMALL, "--duration", "12")

    found = ended.report()
    assert ended.code == 0
    assert_clean(found)
    assert (found["sessions"], found["replicas"], found["token_ttl_s"]) == (8, 2, 8.0)
    assert found["refreshes"] > 16
    assert found["grpc_calls"] > 8
    assert found["startup_resync"]["sessions"] == 8
    assert "runner_token_refreshed" in ended.stderr


async def test_a_killed_controller_costs_nothing() -> None:
    ended = await run(*SMALL, "--duration", "16", "--chaos", "restart-all@8")

    found = ended.report()
    assert ended.code == 0
    assert_clean(found)
    assert ended.stderr.count('"event":"startup_resync_finished"') == 2
    assert found["chaos"] == [{"name": "restart-all", "start_s": 8, "seconds": 0, "injected": True}]


async def test_an_outage_that_outlasts_the_tokens_is_reported_and_fails_the_run() -> None:
    ended = await run(*SMALL, "--duration", "14", "--chaos", "issuer-outage@1+12")

    assert ended.report()["expired_token_seconds"] > 0
    assert ended.code == 1


async def test_each_failed_try_is_counted() -> None:
    ended = await run(*SMALL, "--duration", "8", "--chaos", "api-throttle@1+5")

    assert ended.report()["refresh_failures"] > ended.stderr.count('"event":"refresh_failed"') > 0


async def test_a_forged_pod_gets_no_token() -> None:
    ended = await run(*SMALL, "--duration", "6", "--chaos", "forged-pod@2")

    found = ended.report()
    assert ended.code == 0
    assert_clean(found)
    (chaos,) = found["chaos"]
    assert chaos["namespaces"] == ["not-a-project"]
    assert chaos["secrets_with_token"] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--chaos", "coffee-outage@3"), ("coffee-outage", *DEMO_FAULTS)),
        (("--projection-delay", "3-1"), ("--projection-delay", "A-B")),
        (("--report", "xml"), ("--report xml", "json")),
    ],
)
async def test_what_cannot_be_run_is_refused_in_one_line(
    options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    ended = await run(*options)

    assert ended.code == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert all(word in line for word in words)


async def test_every_fault_is_listed_with_what_it_does() -> None:
    ended = await run("--chaos", "list")

    assert ended.code == 0
    assert [line.split()[0] for line in ended.stdout.splitlines()] == [*DEMO_FAULTS]
    assert all(fault.help in ended.stdout for fault in DEMO_FAULTS)


async def test_ctrl_c_in_a_terminal_ends_make_demo_with_0() -> None:
    words = ("--directory", ROOT, "--assume-old=.venv/.locked", "demo")
    async with terminal(*words, program="make", columns=100) as shown:
        await shown.wait_for("how to end it", lambda text: "Ctrl-C ends the demo with" in text)
        shown.type("\x03")
        assert await shown.wait() == 0
        await shown.wait_for("its result", lambda text: "no runner held an expired token" in text)


async def test_ctrl_c_ends_it_promptly_with_the_report_and_leaves_no_child() -> None:
    planned_s = 600.0
    process = await start(*SMALL, "--duration", f"{planned_s:g}")
    assert process.stderr is not None
    lines: list[str] = []
    while not lines or "startup_resync_finished" not in lines[-1]:
        lines.append((await process.stderr.readline()).decode())
        assert lines[-1], "it ended too early"
    children = _children(process.pid)

    process.send_signal(signal.SIGINT)
    stdout, stderr = await process.communicate()

    assert process.returncode == 0
    ended = Ended(0, stdout.decode(), "".join(lines) + stderr.decode())
    assert ended.report()["expired_token_seconds"] == 0
    assert ended.report()["duration_s"] < planned_s
    assert "drain_timeout" not in ended.stderr
    if sys.platform == "linux":
        assert children
        assert _alive(children) == []


async def test_nothing_secret_leaves_the_processes_at_debug() -> None:
    logs: list[str] = []
    chaos = [parse_chaos(each, ttl_s=8.0) for each in ("delete-secret@3", "stale-secret@3")]
    plan = DemoPlan(8, 1, 8.0, (0.2, 0.6), 6.0, tuple(chaos), seed=1, log_level="debug")
    demo = Demo(plan, say=logs.append, sink=logs.append)
    frames: list[str] = []

    async def show(shown: Demo) -> None:
        while True:
            frames.append(repr(shown.frame()))
            await asyncio.sleep(0.5)

    report = await demo.run(asyncio.Event(), show)

    assert report.is_good
    texts = core_texts(demo.cluster.core) | {
        "logs": "\n".join(logs),
        "frames": "\n".join(frames),
        "report": repr(report),
        "parts": repr([demo, demo.cluster, demo.plan, demo.cluster.sessions]),
    }
    assert re.search("runner_token_refreshed", texts["logs"])
    assert demo.cluster.issuer.tokens_total > 8
    assert find_leaks(texts, demo.cluster.secret_values()) == []


async def test_a_token_in_a_forgers_namespace_would_be_counted() -> None:
    async with LabCluster(ttl_s=60.0) as cluster:
        actions = ChaosActions(cluster, Replicas(0, {}, print))
        fault = ScheduledFault(Fault.FORGED_POD, 0.0, 0.0)
        forging = asyncio.create_task(actions.inject(fault))
        while not cluster.sessions:
            await asyncio.sleep(0.01)
        assert actions.tokens_in_forged() == 0

        session = list(cluster.sessions.values())[-1]
        cluster.put_token(session, cluster.issuer.issue())

        assert actions.tokens_in_forged() == 1
        forging.cancel()


async def test_the_search_finds_what_it_is_for() -> None:
    token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJub2JvZHkifQ.c2lnbmF0dXJl"
    texts = {"whole": f"x {token} y", "claims": token.split(".")[1], "clean": "session team-1/2Ab"}

    assert find_leaks(texts, [token]) == ["whole", "claims"]


def _alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(each) for each in path.read_text().split()] if path.exists() else []
