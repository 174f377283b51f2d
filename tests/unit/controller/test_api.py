"""Each write asks the gate twice: for the whole time limit, and as its bytes leave."""

import asyncio
from dataclasses import replace

import pytest

from reconciler.controller.controller import Controller
from reconciler.errors import DeposedError
from reconciler.lab.apiserver.fault_injection import Fault
from tests.unit.controller.virtual import SwitchGate, World, running, simulate

WRITES = pytest.mark.parametrize("verb", ["patch", "create"])


class LeaseGate(SwitchGate):
    """A gate with a lease that outlasts `left_s`, and that may end between the two questions."""

    left_s = 0.0
    ends_between = False

    def may_write(self, need_s: float) -> bool:
        return need_s <= self.left_s

    def check(self) -> None:
        if self.ends_between:
            self.refused_total += 1
            raise DeposedError("the lease has ended since the first question")


def add_session(world: World, verb: str) -> None:
    """Add a session whose next write is a patch of its Secret, or the Secret's creation."""
    world.add("2Ab0")
    if verb == "create":
        world.delete_secret("2Ab0")


def replica(world: World, gate: LeaseGate) -> Controller:
    return Controller(replace(world.ports, gate=gate), world.options)


@WRITES
def test_no_write_starts_unless_the_lease_outlasts_its_time_limit(verb: str) -> None:
    async def scenario(world: World) -> None:
        add_session(world, verb)
        gate, asked = LeaseGate(), []

        def judge(verb: str, plural: str) -> Fault | None:
            asked.append((verb, plural))
            return None

        world.faults.judge = judge
        gate.left_s = world.options.request_limit_s - 0.1
        async with running(world, replica(world, gate)):
            await asyncio.sleep(60)
            assert not {(verb, "secrets"), ("patch", "pods")} & set(asked)
            gate.left_s = world.options.request_limit_s
            await asyncio.sleep(10)
            assert (verb, "secrets") in asked
            assert world.remaining_s("2Ab0") > 700

    simulate(scenario)


@WRITES
def test_a_gate_that_closes_between_asking_and_sending_stops_the_write(verb: str) -> None:
    async def scenario(world: World) -> None:
        add_session(world, verb)
        gate = LeaseGate()
        gate.left_s, gate.ends_between = 60.0, True
        async with running(world, replica(world, gate)):
            await asyncio.sleep(60)
            assert gate.refused_total > 0
            assert world.secret_writes() + world.pod_writes() == []
            gate.ends_between = False
            await asyncio.sleep(10)
            assert world.remaining_s("2Ab0") > 700

    simulate(scenario)
