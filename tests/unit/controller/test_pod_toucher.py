"""Touches that fail or hang: tokens are written all the same, and in time."""

import asyncio

import pytest

from reconciler.clock import EpochTime
from reconciler.controller.decide.pod_touches import MAX_FAILURES
from reconciler.errors import (
    AdmissionDenied,
    Conflict,
    Forbidden,
    KubeError,
    ProtocolError,
    ServerError,
    TooManyRequests,
    TransportError,
)
from reconciler.kube.api import ObjectMeta
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.naming import NO_ANNOTATIONS
from reconciler.workqueue.items import Priority, ScheduleRequest
from tests.unit.controller.virtual import PROJECT, World, running, simulate


async def dead_seconds(world: World, *sessions: str, during_s: int) -> int:
    """Return for how many seconds any of these Secrets held a dead token."""
    dead = 0
    for _ in range(during_s):
        await asyncio.sleep(1)
        dead += any(world.remaining_s(session) <= 0 for session in sessions)
    return dead


@pytest.mark.parametrize(
    "error",
    [
        ServerError("a webhook is unreachable", status=500, reason="InternalError"),
        TooManyRequests("later", status=429),
        Conflict("somebody else", status=409),
        KubeError("too large", status=413),
        TransportError("no answer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_touch_that_fails_stops_no_token(error: KubeError) -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        tries = 0

        def judge(verb: str, plural: str) -> InjectedFault | None:
            nonlocal tries
            if (verb, plural) != ("patch", "pods"):
                return None
            tries += 1
            return InjectedFault(error)

        world.faults.rule = judge
        async with running(world):
            await asyncio.sleep(5)
            assert await dead_seconds(world, "2Ab0", during_s=3000) == 0
        assert tries == MAX_FAILURES
        assert len(world.secret_writes()) == pytest.approx(3000 / 360, abs=2)
        assert world.controller.stats.failures == {}
        assert len(world.events("pod_touch_failed")) == 1

    simulate(scenario)


def test_without_touches_a_token_is_written_and_no_pod_is_patched() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        requests: list[tuple[str, str]] = []
        world.faults.rule = lambda verb, plural: requests.append((verb, plural))
        async with running(world):
            await asyncio.sleep(30)
        assert ("patch", "secrets") in requests
        assert ("patch", "pods") not in requests
        assert len(world.controller.touches) == 0

    simulate(scenario, touch=False)


def test_a_touch_whose_answer_cannot_be_read_stops_no_token_either() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        patch = world.ports.kube.patch

        async def babbling(resource, *args, **more):  # type: ignore[no-untyped-def]
            if resource.plural == "pods":
                raise ProtocolError("not an object")
            return await patch(resource, *args, **more)

        world.ports.kube.patch = babbling  # type: ignore[method-assign]
        async with running(world):
            await asyncio.sleep(5)
            assert await dead_seconds(world, "2Ab0", during_s=1800) == 0

    simulate(scenario)


def test_a_touch_that_fails_for_a_while_is_sent_when_it_can_be() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        unreachable = InjectedFault(
            ServerError("a webhook is unreachable", status=500, reason="InternalError")
        )
        world.faults.rule = lambda verb, plural: unreachable if plural == "pods" else None
        async with running(world):
            await asyncio.sleep(5)
            assert world.pod_writes() == []
            world.faults.rule = None
            await asyncio.sleep(30)
            assert len(world.pod_writes()) == 2

    simulate(scenario)


LOST = {
    "a proxy repeats the request": InjectedFault(repeated_s=0.5),
    "no answer in time": InjectedFault(answer_s=60.0),
    "a reset": InjectedFault(TransportError("reset"), applied=True),
    "a 500": InjectedFault(ServerError("etcdserver: request timed out", status=500), applied=True),
}
"""Faults of a write that is applied."""


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_a_write_that_is_applied_is_touched_for_whatever_its_answer_is(
    fault: InjectedFault,
) -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        world.faults.fail_next(fault, verb="patch", resource="secrets")
        async with running(world):
            await asyncio.sleep(60)
            assert len(world.secret_writes()) == 1
            assert len(world.pod_writes()) == 2

    simulate(scenario)


def test_touches_that_hang_leave_most_workers_to_the_tokens() -> None:
    """A webhook that is unreachable and ignored costs each patch of a pod its whole limit, 10 s."""

    async def scenario(world: World) -> None:
        sessions = [f"2Ab{number}" for number in range(150)]
        for session in sessions:
            world.add(session)
        hanging = InjectedFault(TransportError("no answer in 10 s"), delay_s=10.0)
        world.faults.rule = lambda verb, plural: (
            hanging if (verb, plural) == ("patch", "pods") else None
        )
        async with running(world):
            await asyncio.sleep(5)
            for session in sessions[:40]:
                world.delete_secret(session)
            await asyncio.sleep(10)  # of the world: one try of a touch
            for _ in range(40):
                assert min(world.remaining_s(session) for session in sessions) > 0.4 * 900 - 30
                await asyncio.sleep(15)

    simulate(scenario, workers=8)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Forbidden("no", status=403, reason="Forbidden"), "pod_touch_forbidden"),
        (
            AdmissionDenied("patch pods: denied, by webhook guard.example", status=403),
            "touch_refused",
        ),
    ],
    ids=["right", "webhook"],
)
def test_a_touch_that_is_denied_is_not_called_a_missing_right(error: KubeError, says: str) -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        world.faults.rule = lambda verb, plural: (
            InjectedFault(error) if (verb, plural) == ("patch", "pods") else None
        )
        async with running(world):
            await asyncio.sleep(5)
            assert await dead_seconds(world, "2Ab0", during_s=1800) == 0
        [line] = [line for line in world.logs if line["event"].startswith(("touch_", "pod_touch_"))]
        assert (line["event"], line["error"]) == (says, str(error))

    simulate(scenario)


def test_touches_of_sessions_that_ended_are_forgotten() -> None:
    async def scenario(world: World) -> None:
        world.faults.rule = lambda verb, plural: (
            InjectedFault(ServerError("oops", status=503))
            if (verb, plural) == ("patch", "pods")
            else None
        )
        async with running(world):
            for number in range(100):
                world.add(f"2Ab{number}")
                await asyncio.sleep(1)
                assert world.remaining_s(f"2Ab{number}") > 0
                del world.platform.sessions[f"2Ab{number}"]
                world.delete_pod(f"2Ab{number}")
                world.delete_secret(f"2Ab{number}")
            await asyncio.sleep(1)
            assert len(world.controller.touches) <= 1

    simulate(scenario)


def test_a_namespace_that_is_let_go_takes_its_touches_along() -> None:
    async def scenario(world: World) -> None:
        world.add_project("team-b")
        world.faults.rule = lambda verb, plural: (
            InjectedFault(ServerError("oops", status=503))
            if (verb, plural) == ("patch", "pods")
            else None
        )
        async with running(world):
            await asyncio.sleep(1)
            world.add("2Ab0", project="team-b")
            await asyncio.sleep(10)
            assert len(world.controller.touches) == 1
            world.controller.informers.remove(["team-b"])
            assert len(world.controller.touches) == 0

    simulate(scenario, finds_namespaces=True)


def test_a_touch_whose_session_ends_under_way_crashes_nothing() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        slow = InjectedFault(ServerError("oops", status=503), delay_s=5.0)
        world.faults.rule = lambda verb, plural: (
            slow if (verb, plural) == ("patch", "pods") else None
        )
        async with running(world):
            await asyncio.sleep(2)
            world.delete_pod("2Ab0")
            world.delete_secret("2Ab0")
            await asyncio.sleep(20)
            assert world.controller.stats.reconcile_panics_total == 0
            assert len(world.controller.touches) == 0

    simulate(scenario)


def test_a_touch_of_an_earlier_term_is_forgotten() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        touches = world.controller.touches
        secret = ObjectMeta(
            PROJECT, "any", "uid-1", "1", "2Ended", "", EpochTime(0), False, NO_ANNOTATIONS, ()
        )
        touches.request(secret.key, secret, world.clock.monotonic())
        async with running(world):
            await asyncio.sleep(10)
            assert len(touches) == 0

    simulate(scenario)


def test_a_run_that_finds_its_session_ended_leaves_no_touch() -> None:
    async def scenario(world: World) -> None:
        controller = world.controller
        secret = ObjectMeta(
            PROJECT, "any", "uid-1", "1", "2Ended", "", EpochTime(0), False, NO_ANNOTATIONS, ()
        )
        async with running(world):
            await asyncio.sleep(5)
            now_at = world.clock.monotonic()
            controller.touches.request(secret.key, secret, now_at)
            controller.queue.add(secret.key, ScheduleRequest(now_at, Priority.ROUTINE, 0.0, "pod"))
            await asyncio.sleep(20)
            assert len(controller.touches) == 0

    simulate(scenario)
