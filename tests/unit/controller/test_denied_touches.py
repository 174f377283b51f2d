"""Touches that a webhook denies, or whose right is missing, are tried until that ends."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler import backoff
from reconciler.controller.decide.denials import Denials
from reconciler.controller.decide.pod_touches import LATEST_SYNC_S, TOUCHES_PER_WRITE
from reconciler.controller.decide.write_errors import DENIED_PROBE_S
from reconciler.errors import KubeError, TooManyRequests
from reconciler.kube.forwarding import ForwardingKube, KubeCall
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.kinds import PODS
from tests.unit.controller.test_denials import ROUNDS_S, denial, keys, now_s
from tests.unit.controller.test_missing_rights import forbidden
from tests.unit.controller.virtual import (
    INTRUDER,
    NAMES,
    PROJECT,
    World,
    running,
    simulate,
)

Error = Callable[[], KubeError]


class Denied:
    """A rule that denies the patches of these kinds; `tried` is when a pod's patch was sent."""

    def __init__(self, *plurals: str, error: Error = denial) -> None:
        self.plurals = set(plurals)
        self.tried: list[float] = []
        self._error = error

    def __call__(self, verb: str, plural: str) -> InjectedFault | None:
        if verb != "patch":
            return None
        if plural == "pods":
            self.tried.append(now_s())
        return InjectedFault(self._error()) if plural in self.plurals else None


by_whom = pytest.mark.parametrize("error", [denial, forbidden], ids=["webhook", "no right"])


def touched(world: World) -> set[str]:
    return {commit.object["metadata"]["name"] for commit in world.pod_writes()}


class OneDenied(ForwardingKube):
    """A policy that denies the patches of the pods in `denied`."""

    denied = frozenset({"session-2ab0-runner"})

    def around(self, call: KubeCall) -> AbstractContextManager[None]:
        return nullcontext()

    async def patch(
        self, resource: Any, namespace: str, name: str, body: Any, **options: Any
    ) -> Any:
        if resource.plural == "pods" and name in self.denied:
            raise denial()
        return await super().patch(resource, namespace, name, body, **options)


@by_whom
@pytest.mark.parametrize("sessions", [20, 300])
def test_touches_follow_soon_after_their_denial_ends_and_are_tried_seldom_before(
    sessions: int, error: Error
) -> None:
    async def scenario(world: World) -> None:
        denied = world.faults.rule = Denied("pods", error=error)
        for index in range(sessions):
            world.add(f"2Ab{index:03}")
        async with running(world):
            await asyncio.sleep(120)
            assert touched(world) == set()
            tries = len(denied.tried)
            assert sessions < tries <= 2 * sessions + 120 / (DENIED_PROBE_S / 2)
            denied.plurals.clear()
            await asyncio.sleep(5 + ROUNDS_S)
            assert len(touched(world)) == sessions
            assert len(world.controller.sessions.denials) == 0

    simulate(scenario)


def test_what_is_accepted_wakes_the_touches_and_the_writes_of_its_denier() -> None:
    async def scenario(world: World) -> None:
        denied = world.faults.rule = Denied("pods")
        world.add("2Ab0")
        async with running(world):
            await asyncio.sleep(10)
            denied.plurals.add("secrets")
            world.add("2Ab1")
            await asyncio.sleep(110)
            denied.plurals.clear()
            written = len(world.secret_writes())
            async with asyncio.timeout(backoff.DENIED.cap_s):
                while not touched(world) and len(world.secret_writes()) == written:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            assert touched(world) == {"session-2ab0-runner", "session-2ab1-runner"}
            assert len(world.secret_writes()) > written

    simulate(scenario)


@by_whom
def test_a_touch_that_is_denied_for_good_is_tried_until_the_kubelet_has_synced_without_it(
    error: Error,
) -> None:
    async def scenario(world: World) -> None:
        denied = world.faults.rule = Denied("pods", error=error)
        world.add("2Ab0")
        async with running(world):
            await asyncio.sleep(1000)
            assert LATEST_SYNC_S < denied.tried[-1] <= LATEST_SYNC_S + backoff.DENIED.cap_s
            assert len(denied.tried) <= 5 + LATEST_SYNC_S / (backoff.DENIED.cap_s / 2)
            assert len(world.controller.touches) == 0
            assert len(world.controller.sessions.denials) == 0

    simulate(scenario)


def test_a_pod_that_is_touched_is_not_touched_again_with_one_that_is_denied() -> None:
    def touches(world: World) -> dict[str, int]:
        return Counter(commit.object["metadata"]["name"] for commit in world.pod_writes())

    async def scenario(world: World) -> None:
        policy = OneDenied(world.ports.kube)
        world.ports = replace(world.ports, kube=policy)
        world.add("2Ab0")
        world.add_pod("2Ab0", name="session-2ab0-other")
        async with running(world):
            await asyncio.sleep(200)
            assert touches(world) == {"session-2ab0-other": TOUCHES_PER_WRITE}
            policy.denied = frozenset()
            await asyncio.sleep(backoff.DENIED.cap_s + 5)
            assert touches(world) == dict.fromkeys(
                ("session-2ab0-other", "session-2ab0-runner"), TOUCHES_PER_WRITE
            )
            assert len(world.controller.sessions.denials) == 0

    simulate(scenario)


class Throttled(ForwardingKube):
    """Denies touches until half a minute after the second write of `2Ab0`, which is too many."""

    wait_s = 50.0
    throttled_s = 0.0
    writes: tuple[float, ...] = ()

    def around(self, call: KubeCall) -> AbstractContextManager[None]:
        return nullcontext()

    async def patch(
        self, resource: Any, namespace: str, name: str, body: Any, **options: Any
    ) -> Any:
        if resource.plural == "pods" and not 0 < self.throttled_s < now_s() - 30:
            raise denial()
        if name == "session-2ab0-creds":
            self.writes += (now_s(),)
            if len(self.writes) == 2:
                self.throttled_s = now_s()
                raise TooManyRequests("patch: later", status=429, retry_after_s=self.wait_s)
        return await super().patch(resource, namespace, name, body, **options)


def test_an_accepted_touch_does_not_shorten_the_wait_of_a_write_that_was_throttled() -> None:
    async def scenario(world: World) -> None:
        server = Throttled(world.ports.kube)
        world.ports = replace(world.ports, kube=server)
        for session in ("2Ab0", "2Ab1", "2Ab2"):
            world.add(session)
        async with running(world):
            await asyncio.sleep(60)
            asked = {"metadata": {"annotations": {NAMES.requested_at: "now"}}}
            world.core.patch(PODS, PROJECT, "session-2ab0-runner", asked, by=INTRUDER)
            await asyncio.sleep(240)
            assert server.writes[2] >= server.throttled_s + server.wait_s
            assert len(touched(world)) == 3

    simulate(scenario)


def test_a_session_that_ends_takes_its_denied_touch_along() -> None:
    async def scenario(world: World) -> None:
        world.faults.rule = Denied("pods")
        world.add("2Ab0")
        async with running(world):
            await asyncio.sleep(20)
            assert len(world.controller.sessions.denials) == 1
            del world.platform.sessions["2Ab0"]
            world.delete_pod("2Ab0")
            world.delete_secret("2Ab0")
            await asyncio.sleep(1)
            assert len(world.controller.sessions.denials) == 0

    simulate(scenario)


def test_a_write_and_a_touch_of_one_session_are_denied_each_for_itself() -> None:
    denials = Denials()
    one, two = keys("a", 2)
    assert denials.record_denied(one, "webhook x") == 1
    assert denials.record_denied(one, "webhook x", is_touch=True) == 2
    assert denials.record_denied(two, "webhook x", is_touch=True) == 3
    assert denials.record_accepted(two) == ()
    assert denials.record_accepted(two, is_touch=True) == (one,)
    denials.forget_write(one)
    assert len(denials) == 1
    denials.forget(one)
    assert len(denials) == 0


def test_touches_without_a_right_delay_no_write_without_one() -> None:
    denials = Denials()
    for key in keys("a", 100):
        denials.record_forbidden(key, is_touch=True)
    writes = keys("a", 2)
    assert [denials.record_forbidden(key) for key in writes] == [1, 2]
    assert denials.record_accepted(writes[0]) == (writes[1],)
