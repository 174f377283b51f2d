"""What keeps a replica from its work is an Event on the Lease, leader or not."""

import asyncio
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.runtime import ControllerConfig, LogDedup, Runtime
from reconciler.controller.status.replica_report import (
    CHANGED_S,
    REPEAT_S,
    STEADY_S,
    ReplicaReport,
    Reporter,
)
from reconciler.errors import Forbidden, ServerError
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.in_process_client import InProcessKube
from reconciler.lab.apiserver.kinds import EVENTS
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.telemetry.trace import Tracer
from tests.unit.controller.build import NAMES
from tests.unit.controller.virtual import PROJECT, US, World, running, simulate


class Reported:
    """A report over a virtual world; `problems` may be changed at any time."""

    def __init__(self, world: World) -> None:
        self.problems: dict[str, str] = {}
        self.world = world
        kube = InProcessKube(world.core, world.clock, caller=US, faults=world.faults)
        self.report = ReplicaReport(
            Reporter(PROJECT, "token-reconciler", "token-reconciler", "replica-0", kube),
            breaker=CircuitBreaker("kube", world.clock, Random(1)),
            runtime=Runtime(
                ControllerConfig(NAMES),
                world.clock,
                Random(1),
                LogDedup(world.clock),
                Tracer(world.clock, Random(1)),
            ),
            problems=lambda: self.problems,
        )

    def events(self) -> list[Mapping[str, Any]]:
        return [
            one
            for one in self.world.core.list(EVENTS).items
            if one["involvedObject"]["kind"] == "Lease"
        ]

    def said(self) -> list[tuple[str, str, int]]:
        return [(one["reason"], one["message"], one["count"]) for one in self.events()]


def test_a_trouble_that_lasts_is_one_event_that_counts_and_is_repeated_each_minute() -> None:
    async def scenario(world: World) -> None:
        found = Reported(world)
        task = asyncio.create_task(found.report.run())
        found.problems = {"NotReady": "waiting for the first token"}
        await asyncio.sleep(STEADY_S + 5 * REPEAT_S - 5)
        [event] = found.events()
        assert found.said() == [("NotReady", "waiting for the first token", 5)]
        assert event["involvedObject"]["name"] == "token-reconciler"
        assert event["reportingInstance"] == "replica-0"
        assert event["type"] == "Warning"
        found.problems = {}
        await asyncio.sleep(3 * REPEAT_S)
        assert found.said() == [("NotReady", "waiting for the first token", 5)]
        task.cancel()

    simulate(scenario)


def test_a_trouble_that_passes_at_once_is_no_event() -> None:
    async def scenario(world: World) -> None:
        found = Reported(world)
        task = asyncio.create_task(found.report.run())
        for number in range(20):
            found.problems = {"EndpointFailing": "the issuer"} if number % 2 else {}
            await asyncio.sleep(STEADY_S - 1)
        assert found.said() == []
        task.cancel()

    simulate(scenario)


def test_words_that_change_all_the_time_cost_one_request_in_ten_seconds() -> None:
    async def scenario(world: World) -> None:
        found = Reported(world)
        task = asyncio.create_task(found.report.run())
        for number in range(100):
            found.problems = {"NotReady": f"error {number}"}
            await asyncio.sleep(1)
        [(_, message, count)] = found.said()
        assert count <= 100 / CHANGED_S
        assert int(message.split()[1]) > 85
        task.cancel()

    simulate(scenario)


@pytest.mark.parametrize("error", [Forbidden("no", status=403), ServerError("no", status=500)])
def test_a_report_that_is_refused_or_fails_is_tried_again_slowly(error: Forbidden) -> None:
    async def scenario(world: World) -> None:
        asked = 0

        def judge(verb: str, plural: str) -> InjectedFault | None:
            nonlocal asked
            asked += plural == "events"
            return InjectedFault(error) if plural == "events" else None

        world.faults.rule = judge
        found = Reported(world)
        task = asyncio.create_task(found.report.run())
        found.problems = {"NotReady": "waiting"}
        await asyncio.sleep(300)
        assert 2 <= asked <= 300 / CHANGED_S
        world.faults.rule = None
        await asyncio.sleep(REPEAT_S + 2)
        assert [reason for reason, _, _ in found.said()] == ["NotReady"]
        task.cancel()

    simulate(scenario)


def test_an_issuer_that_refuses_us_before_and_after_the_first_token_is_a_trouble() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        world.issuer.refused = True
        async with running(world):
            await asyncio.sleep(60)
            found = world.controller.health.problems()
            assert list(found) == ["NotReady"]
            assert "the issuer refuses our credentials" in found["NotReady"]
            world.issuer.refused = False
            await asyncio.sleep(60)
            assert world.controller.health.problems() == {}
            world.issuer.refused = True
            await asyncio.sleep(800)
            assert world.controller.health.problems() == {
                "EndpointFailing": "the issuer refuses our credentials: answered 401"
            }

    simulate(scenario)


def test_lists_that_are_refused_are_a_trouble_with_their_error() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        world.faults.rule = lambda verb, plural: (
            InjectedFault(Forbidden("GET /secrets: 403", status=403))
            if (verb, plural) == ("list", "secrets")
            else None
        )
        async with running(world):
            await asyncio.sleep(30)
            found = world.controller.health.problems()
            assert found["ListForbidden"].endswith("the last error was: GET /secrets: 403")
            survey = await world.controller.status_collector.snapshot(max_age_s=0.0)
            # Not listed is not absent: whether a Secret is there is unknown.
            assert survey.fleet.states[TokenState.NO_SECRET] == 0
            assert survey.fleet.states[TokenState.UNKNOWN] == 1

    simulate(scenario)
