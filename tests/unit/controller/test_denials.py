"""Sessions whose writes a webhook or a policy denies: they share their tries, and the end."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler import backoff
from reconciler.controller.decide.denials import WOKEN, Denials
from reconciler.controller.decide.write_errors import (
    DENIED_LEAST_S,
    DENIED_PROBE_S,
    DENIED_URGENT_S,
    denied_wait_s,
)
from reconciler.errors import AdmissionDenied, KubeError, TooManyRequests
from reconciler.kube.api import Kube
from reconciler.kube.forwarding import ForwardingKube, KubeCall
from reconciler.naming import SessionKey
from tests.unit.controller.build import TTL_S
from tests.unit.controller.virtual import PROJECT, World, running, simulate

ROUNDS_S = 3.0
"""More than the rounds of writes in which one accepted write wakes hundreds of sessions take."""


def denial() -> AdmissionDenied:
    return AdmissionDenied("patch: denied", status=403, denied_by="webhook guard.example")


class Webhook(ForwardingKube):
    """Denies the writes of Secrets in the namespaces of `denies`; `tried` is when and where."""

    def __init__(self, kube: Kube, denies: set[str], error: Callable[[], KubeError]) -> None:
        super().__init__(kube)
        self.denies = denies
        self._error = error
        self.tried: list[tuple[float, str]] = []

    @contextmanager
    def around(self, call: KubeCall) -> Iterator[None]:
        if (call.verb, call.resource.plural) == ("patch", "secrets"):
            self.tried.append((asyncio.get_running_loop().time(), call.namespace or ""))
            if call.namespace in self.denies:
                raise self._error()
        yield

    def tries(self, since_s: float, namespace: str = PROJECT) -> list[float]:
        return [at for at, where in self.tried if at >= since_s and where == namespace]


def install(world: World, *denies: str, error: Callable[[], KubeError] = denial) -> Webhook:
    webhook = Webhook(world.ports.kube, set(denies), error)
    world.ports = replace(world.ports, kube=webhook)
    return webhook


def add_sessions(world: World, number: int, project: str = PROJECT) -> None:
    for index in range(number):
        world.add(f"{project[-1]}{index:03}", project=project)


def refreshed(world: World, project: str = PROJECT) -> int:
    """Return how many sessions of a project have a token with most of its life left."""
    return sum(
        world.left_s(world.token(each.id, project)) > 0.5 * TTL_S
        for each in world.platform.sessions.values()
        if each.project_id == project
    )


def now_s() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("sessions", [1, 20, 200])
def test_denied_sessions_are_refreshed_soon_after_the_denial_ends_and_try_seldom_before(
    sessions: int,
) -> None:
    async def scenario(world: World) -> None:
        webhook = install(world, PROJECT)
        add_sessions(world, sessions)
        async with running(world):
            await asyncio.sleep(600)
            assert len(webhook.tried) <= 2 * sessions + 600 / (DENIED_PROBE_S / 2)
            webhook.denies.clear()
            await asyncio.sleep(backoff.DENIED.cap_s + ROUNDS_S)
            assert refreshed(world) == sessions

    simulate(scenario)


def test_tokens_of_one_issue_are_tried_until_they_expire_and_not_all_at_once() -> None:
    async def scenario(world: World) -> None:
        webhook = install(world)
        add_sessions(world, 200)
        async with running(world):
            await asyncio.sleep(60)
            webhook.denies.add(PROJECT)
            await asyncio.sleep(TTL_S - 60)
            last = Counter(int(at) for at in webhook.tries(now_s() - 30))
            assert len(last) > 20
            assert max(last.values()) <= 3 / DENIED_URGENT_S

    simulate(scenario)


def test_what_is_still_denied_in_one_namespace_delays_no_other() -> None:
    async def scenario(world: World) -> None:
        world.add_project("team-b")
        webhook = install(world, PROJECT, "team-b")
        add_sessions(world, 100)
        async with running(world):
            await asyncio.sleep(120)
            add_sessions(world, 20, "team-b")
            await asyncio.sleep(300)
            webhook.denies.remove("team-b")
            ended_at = now_s()
            await asyncio.sleep(backoff.DENIED.cap_s + ROUNDS_S)
            assert refreshed(world, "team-b") == 20
            assert len(webhook.tries(ended_at)) <= 20 * WOKEN + 30

    simulate(scenario)


@pytest.mark.parametrize("attempt", [1, 3, 100])
@pytest.mark.parametrize("rand", [0.0, 0.999])
def test_one_session_alone_waits_as_long_as_a_probe(attempt: int, rand: float) -> None:
    wait_s = denied_wait_s(attempt, 1, slack_s=200.0, left_s=300.0, rand=rand)
    window_s = min(2.0**attempt, backoff.DENIED.cap_s)
    assert window_s / 2 <= wait_s <= window_s


@pytest.mark.parametrize(
    ("sessions", "slack_s", "left_s", "shortest_s", "longest_s"),
    [
        (500, -400.0, -310.0, 500 * DENIED_PROBE_S / 2, 500 * DENIED_PROBE_S),
        (100, 300.0, 390.0, 75.0, 150.0),
        (1, -80.0, 10.0, 2.5, 5.0),
        (1, -90.0, 0.5, DENIED_LEAST_S / 2, DENIED_LEAST_S),
        (500, -90.0, 0.5, 500 * DENIED_URGENT_S / 2, 500 * DENIED_URGENT_S),
    ],
)
def test_the_wait_is_in_the_upper_half_of_its_bound(
    sessions: int, slack_s: float, left_s: float, shortest_s: float, longest_s: float
) -> None:
    waits_s = [
        denied_wait_s(9, sessions, slack_s=slack_s, left_s=left_s, rand=rand)
        for rand in (0.0, 0.999)
    ]
    assert waits_s == pytest.approx([shortest_s, longest_s], rel=0.01)


class Throttled(ForwardingKube):
    """Denies all writes for a minute; then the first one of `2Ab0` is too many, which ends this."""

    wait_s = 50.0
    throttled_s = 0.0
    accepted: tuple[tuple[str, float], ...] = ()

    def around(self, call: KubeCall) -> AbstractContextManager[None]:
        return nullcontext()

    async def patch(
        self, resource: Any, namespace: str, name: str, body: Any, **options: Any
    ) -> Any:
        if not self.throttled_s:
            if now_s() < 60.0 or "2ab0" not in name:
                raise denial()
            self.throttled_s = now_s()
            raise TooManyRequests("patch: later", status=429, retry_after_s=self.wait_s)
        self.accepted += ((name, now_s()),)
        return await super().patch(resource, namespace, name, body, **options)


def test_an_accepted_write_does_not_shorten_the_wait_of_one_that_was_throttled_since() -> None:
    async def scenario(world: World) -> None:
        server = Throttled(world.ports.kube)
        world.ports = replace(world.ports, kube=server)
        for session in ("2Ab0", "2Ab1"):
            world.add(session)
        async with running(world):
            await asyncio.sleep(300)
            assert server.accepted[0][0] == "session-2ab1-creds"
            throttled = [at_s for name, at_s in server.accepted if "2ab0-creds" in name]
            assert throttled[0] >= server.throttled_s + server.wait_s

    simulate(scenario)


def keys(namespace: str, number: int) -> list[SessionKey]:
    return [SessionKey(namespace, str(index)) for index in range(number)]


def test_an_accepted_write_wakes_the_sessions_of_its_namespace_first() -> None:
    denials = Denials()
    here, there, elsewhere = keys("a", 3), keys("b", 3), keys("c", 3)
    for key in (*there, *here, *elsewhere):
        denials.record_denied(key, "webhook x")
    assert denials.record_accepted(here[0]) == (here[1], here[2], there[0], elsewhere[0])
    assert denials.record_accepted(here[1]) == (there[1], elsewhere[1])


def test_no_session_is_woken_twice_before_it_is_denied_again() -> None:
    denials = Denials()
    one, two, three = keys("a", 3)
    for key in (one, two, three):
        denials.record_denied(key, "")
    assert denials.record_accepted(one) == (two, three)
    assert denials.record_accepted(two) == ()
    denials.record_denied(two, "")
    assert denials.record_denied(three, "") == 2
    assert denials.record_accepted(two) == (three,)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(("a", "webhook x"), ("a", "policy x"), id="another denier"),
        pytest.param(("a", ""), ("b", ""), id="objects of another namespace"),
    ],
)
def test_another_denial_is_not_concerned(first: tuple[str, str], second: tuple[str, str]) -> None:
    denials = Denials()
    key, other = SessionKey(first[0], "1"), SessionKey(second[0], "2")
    assert [denials.record_denied(key, first[1]), denials.record_denied(other, second[1])] == [1, 1]
    assert denials.record_accepted(key) == ()


def test_a_write_that_was_not_denied_before_wakes_nothing() -> None:
    denials = Denials()
    key, other = keys("a", 2)
    denials.record_denied(key, "webhook x")
    assert denials.record_accepted(other) == ()
    denials.forget(key)
    assert denials.record_accepted(key) == ()
    assert len(denials) == 0


def test_the_sessions_tried_longest_ago_are_woken_first() -> None:
    denials = Denials()
    first, *others = keys("a", WOKEN + 2)
    for key in (first, *others, others[0]):
        denials.record_denied(key, "webhook x")
    assert denials.record_accepted(first) == (*others[1:],)
