"""The parts of a run, in the order in which they run.

A part of a fleet is measured with each number of sessions; the parts of one number share a fleet.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import (
    failover,
    idle,
    observed,
    pages,
    restart,
    resync,
    steady,
    storm,
    takeover,
    telemetry,
)
from tests.bench.figures import Value
from tests.bench.fleet import BARE, KOPF, Fleet
from tests.bench.plan import Plan
from tests.cluster.controlplane import ControlPlane

Binaries = Mapping[str, Path]


@dataclass(frozen=True)
class FleetPart:
    """A part of a fleet of sessions that the product has adopted."""

    name: str
    measure: Callable[[Fleet, Binaries, Plan], Awaitable[Sequence[Value]]]


@dataclass(frozen=True)
class SinglePart:
    """A part with sessions of its own, or without any."""

    name: str
    measure: Callable[[ControlPlane, Path, Plan], Awaitable[Sequence[Value]]]


async def _first_start(fleet: Fleet, _: Binaries, __: Plan) -> Sequence[Value]:
    """Return what the run that adopted the fleet has measured."""
    return [Value(name, value, fleet.sessions) for name, value in fleet.first_start.items()]


async def _resync(fleet: Fleet, binaries: Binaries, plan: Plan) -> Sequence[Value]:
    rounds = plan.rounds(fleet.sessions)
    return await resync.measure(fleet, binaries, rounds=rounds, old_loop_most=plan.old_loop_most)


async def _profile(fleet: Fleet, _: Binaries, __: Plan) -> Sequence[Value]:
    return await observed.profile(fleet)


async def _memory(fleet: Fleet, _: Binaries, __: Plan) -> Sequence[Value]:
    return await observed.memory(fleet)


async def _idle(fleet: Fleet, _: Binaries, plan: Plan) -> Sequence[Value]:
    return await idle.measure(fleet, seconds=plan.idle_s, renews=plan.renews)


async def _takeover(fleet: Fleet, _: Binaries, __: Plan) -> Sequence[Value]:
    return await takeover.measure(fleet)


async def _restart(fleet: Fleet, _: Binaries, __: Plan) -> Sequence[Value]:
    return await restart.measure(fleet)


async def _pages(fleet: Fleet, _: Binaries, __: Plan) -> Sequence[Value]:
    return await pages.measure(fleet)


async def _steady(control_plane: ControlPlane, folder: Path, plan: Plan) -> Sequence[Value]:
    return await steady.measure(control_plane, folder, rate=plan.steady_rate, seconds=plan.steady_s)


async def _failover(control_plane: ControlPlane, folder: Path, plan: Plan) -> Sequence[Value]:
    return await failover.measure(control_plane, folder, rounds=plan.failovers)


async def _storm(_: ControlPlane, __: Path, plan: Plan) -> Sequence[Value]:
    return await storm.measure(sessions=plan.storm_sessions, seconds=plan.storm_s)


async def _telemetry(_: ControlPlane, __: Path, plan: Plan) -> Sequence[Value]:
    return await telemetry.measure(sessions=plan.telemetry_sessions)


FLEET_PARTS = (
    FleetPart("first_start", _first_start),
    FleetPart("resync", _resync),
    FleetPart("profile", _profile),
    FleetPart("memory", _memory),
    FleetPart("idle", _idle),
    FleetPart("takeover", _takeover),
    FleetPart("pages", _pages),
    # Last: the API server is a new process then.
    FleetPart("restart", _restart),
)
SINGLE_PARTS = (
    SinglePart("failover", _failover),
    SinglePart("storm", _storm),
    SinglePart("telemetry", _telemetry),
    # Last: its sessions make the control plane slower.
    SinglePart("steady", _steady),
)

PROGRAMS = ("etcd", "kube-apiserver", "peer-operator")
"""What `make assets` must have built for them."""

NAMES = tuple(part.name for part in (*FLEET_PARTS, *SINGLE_PARTS))


def peers(names: Sequence[str], sessions: int) -> tuple[str, ...]:
    """Return the peers that need Secrets of their own in a fleet for these parts."""
    if "resync" not in names:
        return ()
    return (BARE, KOPF) if sessions <= resync.KOPF_MOST else (BARE,)
