"""Steps nest by task, end with their error, and say who they are to peers and to the log."""

import asyncio
import gc
import re
from random import Random

import pytest

from reconciler.clock import Instant
from reconciler.errors import Conflict
from reconciler.telemetry.trace import MAX_SPANS, Tracer, current, span, traceparent
from tests.support import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tracer(clock: ManualClock) -> Tracer:
    return Tracer(clock, Random(1))


def fail(clock: ManualClock) -> None:
    with span("patch", "secret"):
        clock.advance(3.0)
        raise Conflict("obviously", status=409)


def test_outside_of_a_trace_nothing_is_recorded_or_sent() -> None:
    with span("patch") as found:
        assert found is None
    assert traceparent() == {}
    assert current() is None


def test_steps_have_their_instants_their_parents_and_their_errors(
    tracer: Tracer, clock: ManualClock
) -> None:
    with tracer.begin("reconcile", queued_at=Instant(990)) as trace:
        with span("token_request"):
            clock.advance(1.0)
            with span("POST", "http://issuer/token"):
                clock.advance(2.0)
        with pytest.raises(Conflict):
            fail(clock)
    found = {one.name: one for one in trace.spans}
    assert {name: one.seconds for name, one in found.items()} == {
        "token_request": 3.0, "POST": 2.0, "patch": 3.0,
    }  # fmt: skip
    assert found["POST"].parent is found["token_request"]
    assert found["token_request"].parent is trace
    failed = found["patch"]
    assert (failed.error, failed.message, failed.status) == ("Conflict", "obviously", 409)
    assert not trace.failed
    assert trace.seconds == 6.0


def test_a_traceparent_names_the_innermost_step(tracer: Tracer) -> None:
    with tracer.begin("reconcile") as trace, span("token_request") as mint:
        header = traceparent()["traceparent"]
        assert mint is not None
        assert header == f"00-{trace.hex_id}-{mint.span_id:016x}-00"
    # Source: W3C Trace Context 3.2.2.
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", header)
    tracer.on_end(lambda trace: None)
    with tracer.begin("reconcile"):
        assert traceparent()["traceparent"].endswith("-01")


async def test_tasks_side_by_side_keep_their_steps_apart(tracer: Tracer) -> None:
    async def work(name: str) -> None:
        with span(name):
            await asyncio.sleep(0)
            with span(f"{name} inner"):
                await asyncio.sleep(0)

    with tracer.begin("resync") as trace:
        async with asyncio.TaskGroup() as group:
            for name in ("one", "two"):
                group.create_task(work(name))
    assert {(s.name, s.parent.name if s.parent else "") for s in trace.spans} == {
        ("one", "resync"), ("two", "resync"), ("one inner", "one"), ("two inner", "two"),
    }  # fmt: skip


def test_a_trace_keeps_so_many_steps_and_counts_the_rest(tracer: Tracer) -> None:
    with tracer.begin("resync") as trace:
        for _ in range(MAX_SPANS + 10):
            with span("GET"):
                pass
    assert len(trace.spans) == MAX_SPANS
    assert trace.dropped_spans == 10


def test_a_run_that_is_cut_short_counts_as_failed(tracer: Tracer) -> None:
    trace = tracer.begin("reconcile")
    with pytest.raises(RuntimeError, match="cut"), trace:
        raise RuntimeError("cut")
    assert trace.failed
    assert current() is None


def test_runs_that_are_not_kept_leave_no_cycles(tracer: Tracer) -> None:
    def run() -> None:
        with tracer.begin("reconcile") as trace, span("token_request"), span("POST"):
            traceparent()
        trace.release()

    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            run()
        assert gc.collect() < 100  # three hundred, were each run a cycle
    finally:
        gc.enable()


def test_a_kept_trace_keeps_its_steps(tracer: Tracer) -> None:
    with tracer.begin("reconcile") as trace, span("token_request"):
        pass
    trace.sampled = True
    trace.release()
    assert [one.name for one in trace.spans] == ["token_request"]
