"""CPU and memory of the startup resync, by part of the product."""

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.components import OTHER
from tests.bench.figures import Value
from tests.bench.fleet import Fleet, finished_resync
from tests.bench.instrumented import BEGIN, END
from tests.bench.say import say
from tests.controller import Controller, running

TOP = 12
EVENT_LOOP = "app"
"""The component whose innermost frame runs the event loop."""


async def profile(fleet: Fleet) -> list[Value]:
    """Return the share of each component in the CPU of a startup resync; print the top lines."""
    out = fleet.folder / "profile.json"
    command = (sys.executable, "-m", "tests.bench.instrumented", "profile", out, "run")
    async with running(fleet.environment(), command=command) as controller:
        await controller.wait_for_event("stores_synced", limit_s=fleet.limit_s)
        controller.process.send_signal(BEGIN)
        await finished_resync(controller, fleet)
        found = await _observed(controller, END, out, fleet)
        await controller.terminate(limit_s=fleet.limit_s)
    say(f"{found['seconds']:.1f} s of CPU in the startup resync of {fleet.sessions:,} sessions")
    for title, kind in (
        ("innermost frame", "innermost"),
        ("of the product, callees included", "functions"),
    ):
        print(f"  {title}:")
        for name, share in list(found[kind].items())[:TOP]:
            print(f"    {share:6.1%}  {name}", flush=True)
    percent = {name: share * 100 for name, share in found["components"].items()}
    return _values("profile_percent_COMPONENT", fleet, percent, least=1.0)


async def memory(fleet: Fleet) -> list[Value]:
    """Return the bytes of one session by component: all sessions less those of one project.

    What the event loop has allocated is shown separately: it is the connections' buffers.
    """
    namespace = fleet.world.runners[0].namespace
    some = sum(runner.namespace == namespace for runner in fleet.world.runners)
    environment = fleet.environment() | {"RECONCILER_NAMESPACES": namespace}
    few = await _allocated(fleet, environment, some)
    every = await _allocated(fleet, fleet.environment(), fleet.sessions)
    found = {
        name: (every.get(name, 0) - few.get(name, 0)) / (fleet.sessions - some)
        for name in sorted({*few, *every} - {EVENT_LOOP})
    }
    buffers = Value("event_loop_mb", every.get(EVENT_LOOP, 0) / 2**20, fleet.sessions)
    total = Value("session_bytes", sum(found.values()), fleet.sessions)
    return [buffers, total, *_values("session_bytes_COMPONENT", fleet, found, least=16.0)]


def _values(name: str, fleet: Fleet, found: Mapping[str, float], *, least: float) -> list[Value]:
    """Return a number a component, those below `least` summed as `other`."""
    large = {component: value for component, value in found.items() if value >= least}
    rest = sum(found.values()) - sum(large.values())
    large[OTHER] = large.get(OTHER, 0.0) + rest
    return [Value(name, value, fleet.sessions, component) for component, value in large.items()]


async def _allocated(fleet: Fleet, environment: Mapping[str, str], sessions: int) -> dict[str, int]:
    """Return the bytes that the product holds after a startup resync of so many sessions."""
    out = fleet.folder / f"memory-{sessions}.json"
    command = (sys.executable, "-m", "tests.bench.instrumented", "memory", out, "run")
    async with running(environment, command=command) as controller:
        await controller.wait_for_event("startup_resync_finished", limit_s=fleet.limit_s * 5)
        # Tracing makes the product so slow that a few writes reach their time limit; they follow.
        await controller.wait_for_event(
            "runner_token_refreshed", count=sessions, limit_s=fleet.limit_s
        )
        found = await _observed(controller, BEGIN, out, fleet)
        await controller.terminate(limit_s=fleet.limit_s)
    allocated: dict[str, int] = found["components"]
    return allocated


async def _observed(
    controller: Controller, sent: signal.Signals, out: Path, fleet: Fleet
) -> dict[str, Any]:
    """Send the signal, and return what the observer then writes."""
    controller.process.send_signal(sent)
    async with asyncio.timeout(fleet.limit_s):
        while not await asyncio.to_thread(out.exists):
            if controller.process.returncode is not None:
                raise AssertionError("the product ended: " + "".join(list(controller.text)[-20:]))
            await asyncio.sleep(0.05)
    found: dict[str, Any] = json.loads(await asyncio.to_thread(out.read_text))
    return found
