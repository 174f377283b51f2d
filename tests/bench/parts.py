"""The parts of a run, in the order in which they run.

A part of a fleet is measured with each number of sessions; the parts of one number share a fleet.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import failover, resync, telemetry
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


async def _resync(fleet: Fleet, binaries: Binaries, plan: Plan) -> Sequence[Value]:
    return await resync.measure(fleet, binaries, rounds=plan.rounds(fleet.sessions))


async def _failover(control_plane: ControlPlane, folder: Path, plan: Plan) -> Sequence[Value]:
    return await failover.measure(control_plane, folder, rounds=plan.failovers)


async def _telemetry(_: ControlPlane, __: Path, plan: Plan) -> Sequence[Value]:
    return await telemetry.measure(sessions=plan.telemetry_sessions)


FLEET_PARTS = (FleetPart("resync", _resync),)
SINGLE_PARTS = (SinglePart("failover", _failover), SinglePart("telemetry", _telemetry))

PROGRAMS = ("etcd", "kube-apiserver", "peer-operator")
"""What `make assets` must have built for them."""

NAMES = tuple(part.name for part in (*FLEET_PARTS, *SINGLE_PARTS))


def peers(names: Sequence[str], sessions: int) -> tuple[str, ...]:
    """Return the peers that need Secrets of their own in a fleet for these parts."""
    if "resync" not in names:
        return ()
    return (BARE, KOPF) if sessions <= resync.KOPF_MOST else (BARE,)
