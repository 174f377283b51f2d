"""Each write asks the fence twice: for the whole time limit, and as its bytes leave."""

import asyncio

import pytest
from msgspec.structs import replace

from reconciler.controller.controller import Controller
from reconciler.errors import NotLeaderError
from reconciler.lab.apiserver.fault_injection import InjectedFault
from tests.unit.controller.virtual import SwitchFence, World, running, simulate

WRITES = pytest.mark.parametrize("verb", ["patch", "create"])


class LeaseFence(SwitchFence):
    """A fence with a lease that outlasts `left_s`, and that may end between the two questions."""

    left_s = 0.0
    ends_between = False

    def may_write(self, need_s: float) -> bool:
        return need_s <= self.left_s

    def check(self) -> None:
        if self.ends_between:
            self.fenced_total += 1
            raise NotLeaderError("the lease has ended since the first question")


def add_session(world: World, verb: str) -> None:
    """Add a session whose next write is a patch of its Secret, or the Secret's creation."""
    world.add("2Ab0")
    if verb == "create":
        world.delete_secret("2Ab0")


def replica(world: World, fence: LeaseFence) -> Controller:
    return Controller(replace(world.ports, fence=fence), world.endpoints, world.config)


@WRITES
def test_no_write_starts_unless_the_lease_outlasts_its_time_limit(verb: str) -> None:
    async def scenario(world: World) -> None:
        add_session(world, verb)
        fence, asked = LeaseFence(), []

        def judge(verb: str, plural: str) -> InjectedFault | None:
            asked.append((verb, plural))
            return None

        world.faults.rule = judge
        fence.left_s = world.config.request_limit_s - 0.1
        async with running(world, replica(world, fence)):
            await asyncio.sleep(60)
            assert not {(verb, "secrets"), ("patch", "pods")} & set(asked)
            fence.left_s = world.config.request_limit_s
            await asyncio.sleep(10)
            assert (verb, "secrets") in asked
            assert world.remaining_s("2Ab0") > 700

    simulate(scenario)


@WRITES
def test_a_gate_that_closes_between_asking_and_sending_stops_the_write(verb: str) -> None:
    async def scenario(world: World) -> None:
        add_session(world, verb)
        fence = LeaseFence()
        fence.left_s, fence.ends_between = 60.0, True
        async with running(world, replica(world, fence)):
            await asyncio.sleep(60)
            assert fence.fenced_total > 0
            assert world.secret_writes() + world.pod_writes() == []
            fence.ends_between = False
            await asyncio.sleep(10)
            assert world.remaining_s("2Ab0") > 700

    simulate(scenario)
