"""A session that failed is retried by its own back-off; other events do not change that."""

import asyncio
import itertools
from collections.abc import Callable

import pytest

from reconciler.errors import AdmissionDenied, Forbidden, KubeError, ServerError, TooManyRequests
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.kinds import PODS, SECRETS
from reconciler.naming import SessionKey
from reconciler.workqueue.items import MAX_REQUESTED_WAIT_S
from tests.unit.controller.build import TTL_S
from tests.unit.controller.virtual import (
    NAMES,
    PLATFORM,
    PROJECT,
    World,
    finished,
    running,
    simulate,
)

STATUS = {
    "403": Forbidden("no", status=403, reason="Forbidden"),
    "429": TooManyRequests("later", status=429, retry_after_s=60.0),
    "503": ServerError("oops", status=503),
}


def tries(
    error: KubeError, event: Callable[[World, int], object] = lambda world, second: None
) -> list[float]:
    """Return when a session's write was tried in 600 s of one error and one event a second."""
    tried: list[float] = []

    def judge(verb: str, plural: str) -> InjectedFault | None:
        if (verb, plural) != ("patch", "secrets"):
            return None
        tried.append(asyncio.get_running_loop().time())
        return InjectedFault(error)

    async def scenario(world: World) -> None:
        world.add("2Ab0")
        world.faults.rule = judge
        async with running(world):
            for second in range(600):
                event(world, second)
                await asyncio.sleep(1)

    simulate(scenario)
    return tried


def change_pod(world: World, second: int) -> None:
    body = {"metadata": {"annotations": {"changes": str(second)}}}
    world.core.patch(PODS, PROJECT, "session-2ab0-runner", body, by=PLATFORM)


def change_secret(world: World, second: int) -> None:
    body = {"metadata": {"annotations": {"changes": str(second)}}}
    world.core.patch(SECRETS, PROJECT, NAMES.secret_name("2Ab0"), body, by=PLATFORM)


def ask(world: World, second: int) -> None:
    body = {"metadata": {"annotations": {NAMES.requested_at: str(second)}}}
    world.core.patch(PODS, PROJECT, "session-2ab0-runner", body, by=PLATFORM)


def drop_watches(world: World, second: int) -> None:
    world.faults.drop_watches()


def resync(world: World, second: int) -> None:
    for key in world.controller.sessions.live_keys():
        world.controller.event_handler.enqueue(key, "resync")


EVENTLESS = {"pod": change_pod, "relist": drop_watches, "resync": resync}


@pytest.mark.parametrize("event", EVENTLESS.values(), ids=EVENTLESS)
@pytest.mark.parametrize("error", STATUS.values(), ids=STATUS)
def test_no_event_shortens_a_retry(error: KubeError, event: Callable[[World, int], object]) -> None:
    quiet, busy = tries(error), tries(error, event)
    assert 2 <= len(busy) <= len(quiet) + 3
    assert len(busy) < 60


@pytest.mark.parametrize("error", STATUS.values(), ids=STATUS)
def test_a_changed_secret_and_a_persons_request_shorten_a_retry_within_limits(
    error: KubeError,
) -> None:
    quiet, changed, asked = tries(error), tries(error, change_secret), tries(error, ask)
    assert len(quiet) < len(changed) <= 10 * len(quiet) + 10
    assert len(quiet) < len(asked) <= len(quiet) + 600 / MAX_REQUESTED_WAIT_S + 10


def test_a_pod_that_changes_each_second_costs_no_write_while_nothing_fails() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(30)
            before = len(world.secret_writes()), len(world.pod_writes())
            for second in range(100):
                change_pod(world, second)
                await asyncio.sleep(1)
            assert (len(world.secret_writes()), len(world.pod_writes())) == before

    simulate(scenario)


def test_a_persons_request_is_served_at_once_when_the_fault_is_over() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        denied = InjectedFault(Forbidden("no", status=403, reason="Forbidden"))
        world.faults.rule = lambda verb, plural: denied if verb == "patch" else None
        async with running(world):
            await asyncio.sleep(900)
            assert world.secret_writes() == []
            world.faults.rule = None
            look = world.controller.queue.entry_info(SessionKey(PROJECT, "2Ab0"))
            assert look is not None
            assert look.at - world.clock.monotonic() > 2 * MAX_REQUESTED_WAIT_S
            ask(world, 0)
            await asyncio.sleep(MAX_REQUESTED_WAIT_S + 1)
            assert world.remaining_s("2Ab0") > 700

    simulate(scenario)


def test_a_write_that_is_denied_is_tried_again_before_half_of_the_tokens_life_is_over() -> None:
    tried: list[float] = []

    def deny(verb: str, plural: str) -> InjectedFault | None:
        if (verb, plural) != ("patch", "secrets"):
            return None
        tried.append(asyncio.get_running_loop().time())
        return InjectedFault(AdmissionDenied("no", status=403))

    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await asyncio.sleep(60)
            world.faults.rule = deny
            await asyncio.sleep(TTL_S)

    simulate(scenario)
    while_valid = [at for at in tried if at < TTL_S - 2.0]
    assert 8 <= len(while_valid) <= 40
    for at, next_at in itertools.pairwise(while_valid):
        assert next_at - at <= max((TTL_S - at) / 2, 1.1)
    assert TTL_S - while_valid[-1] < 5.0
