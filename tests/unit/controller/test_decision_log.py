"""Log lines of decisions, of a start and of a fleet that is taken over."""

import asyncio

import structlog
from structlog.testing import LogCapture

from reconciler.telemetry.log_setup import add_trace_id
from tests.lab.leaks import find_leaks
from tests.unit.controller.test_telemetry import watch
from tests.unit.controller.virtual import World, finished, running, simulate


def test_the_startup_resync_and_the_refreshes_that_it_causes_name_one_trace() -> None:
    async def scenario(world: World) -> None:
        for number in range(10):
            world.add(f"2Ab{number}")
        watched = await watch(world)
        capture = LogCapture()
        structlog.configure(processors=[add_trace_id, capture], cache_logger_on_first_use=False)
        async with running(world):
            while not watched.named("startup_resync"):
                await asyncio.sleep(0.1)
        [resync] = watched.named("startup_resync")
        traces: dict[str, set[str]] = {}
        for line in capture.entries:
            traces.setdefault(line["event"], set()).add(line.get("trace_id", ""))
        for event in ("startup_resync_started", "startup_resync_finished"):
            assert traces[event] == {resync.hex_id}
        assert resync.hex_id in traces["runner_token_refreshed"]

    simulate(scenario)


def test_each_decision_is_one_line_at_debug_and_holds_no_token() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(2000)
        lines = world.events("decided")
        assert {line["log_level"] for line in lines} == {"debug"}
        assert {line["session_id"] for line in lines} == {"2Ab0"}
        first = next(line for line in lines if line["action"] == "write")
        assert (first["reason"], first["priority"]) == ("first_write", "expiring")
        writes = [line for line in lines if line["action"] == "write"]
        assert len(writes) == len(world.secret_writes())
        assert [line for line in lines if line["action"] == "wait"][-1]["due_in_s"] > 0
        assert find_leaks({"log": repr(lines)}, world.issuer.minted) == []

    simulate(scenario)


def test_a_fleet_that_is_taken_over_is_written_first_and_overwritten_by_no_other() -> None:
    async def scenario(world: World) -> None:
        for number in range(50):
            world.add(f"2Ab{number}")
        watched = await watch(world)
        async with running(world):
            while not world.events("startup_resync_finished"):
                await asyncio.sleep(0.1)
            values = await watched.values()
        assert {line["reason"] for line in world.events("runner_token_refreshed")} == {
            "first_write"
        }
        assert values["refreshes_total{reason=first_write,result=success}"] == 50
        wrong = ("overwrites_total", "refresh_errors_total")
        assert sum(value for name, value in values.items() if name.startswith(wrong)) == 0
        assert world.events("competing_writer") == []

    simulate(scenario)
