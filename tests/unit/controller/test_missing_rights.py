"""Sessions whose writes lack a right: they share their tries, and find out when it is granted."""

import asyncio
import itertools

import pytest

from reconciler import backoff
from reconciler.controller.decide.denials import NAMESPACES_AT_ONCE, Denials
from reconciler.controller.decide.write_errors import DENIED_PROBE_S
from reconciler.errors import Forbidden
from reconciler.kube.authorization import PATIENCE_S
from reconciler.naming import SessionKey
from tests.unit.controller.build import TTL_S
from tests.unit.controller.test_denials import (
    ROUNDS_S,
    Webhook,
    add_sessions,
    install,
    keys,
    now_s,
    refreshed,
)
from tests.unit.controller.virtual import PROJECT, World, running, simulate


def forbidden() -> Forbidden:
    return Forbidden("patch secrets: no", status=403, reason="Forbidden")


def remove_right(world: World, *namespaces: str) -> Webhook:
    return install(world, *namespaces, error=forbidden)


@pytest.mark.parametrize(
    ("sessions", "noticed_s"), [(1, backoff.DENIED.cap_s), (20, 2.5), (100, 2.5)]
)
def test_a_right_that_is_granted_again_is_noticed_soon_and_is_asked_for_seldom_before(
    sessions: int, noticed_s: float
) -> None:
    async def scenario(world: World) -> None:
        authorizer = remove_right(world)
        add_sessions(world, sessions)
        async with running(world):
            await asyncio.sleep(60)
            authorizer.denies.add(PROJECT)
            await asyncio.sleep(TTL_S + 300)
            steady = authorizer.tries(now_s() - 300)
            assert len(steady) <= sessions + 300 / (DENIED_PROBE_S / 2)
            authorizer.denies.clear()
            await asyncio.sleep(noticed_s + ROUNDS_S)
            assert refreshed(world) == sessions

    simulate(scenario)


def test_a_right_is_asked_for_again_before_half_of_the_tokens_life_is_over() -> None:
    async def scenario(world: World) -> None:
        authorizer = remove_right(world)
        add_sessions(world, 1)
        async with running(world):
            await asyncio.sleep(60)
            authorizer.denies.add(PROJECT)
            removed_s = now_s()
            await asyncio.sleep(TTL_S)
            tried = [at for at in authorizer.tries(removed_s) if at < TTL_S - 2.0]
        assert tried[-1] - tried[0] > PATIENCE_S
        for at, next_at in itertools.pairwise(tried):
            assert next_at - at <= max((TTL_S - at) / 2, 1.1)
        assert TTL_S - tried[-1] < 5.0

    simulate(scenario)


def test_a_right_that_is_missing_in_one_namespace_delays_no_other() -> None:
    async def scenario(world: World) -> None:
        world.add_project("team-b")
        authorizer = remove_right(world, PROJECT, "team-b")
        add_sessions(world, 100)
        add_sessions(world, 1, "team-b")
        async with running(world):
            await asyncio.sleep(300)
            authorizer.denies.remove("team-b")
            await asyncio.sleep(backoff.DENIED.cap_s + ROUNDS_S)
            assert refreshed(world, "team-b") == 1

    simulate(scenario)


def test_a_right_that_many_namespaces_lack_is_asked_for_at_one_rate_and_granted_to_all() -> None:
    namespaces = [f"team-{index:02}" for index in range(2 * NAMESPACES_AT_ONCE + 1)]

    async def scenario(world: World) -> None:
        authorizer = remove_right(world, *namespaces)
        for number, namespace in enumerate(namespaces):
            world.add_project(namespace)
            for index in range(10):
                world.add(f"s{number:02}x{index:02}", project=namespace)
        async with running(world):
            await asyncio.sleep(500)
            last = [at for at, _where in authorizer.tried if at > now_s() - 300]
            assert 300 < len(last) <= 6 * 300
            authorizer.denies.clear()
            await asyncio.sleep(2.5 + ROUNDS_S)
            assert [refreshed(world, each) for each in namespaces] == [10] * len(namespaces)

    simulate(scenario)


def test_the_tries_are_shared_in_a_namespace_and_between_the_namespaces_above_a_number() -> None:
    denials = Denials()
    for index in range(NAMESPACES_AT_ONCE):
        for number, key in enumerate(keys(f"ns-{index}", 3)):
            assert denials.record_forbidden(key) == number + 1
    assert denials.record_forbidden(SessionKey("one-more", "1")) == 2
    assert denials.record_forbidden(SessionKey("ns-0", "1")) == 3 * 2
    denials.forget(SessionKey("one-more", "1"))
    assert denials.record_forbidden(SessionKey("ns-0", "1")) == 3


def test_a_missing_right_and_a_denial_are_two_things() -> None:
    denials = Denials()
    one, two = keys("a", 2)
    denials.record_denied(one, "")
    denials.record_forbidden(two)
    assert denials.record_accepted(one) == ()
    assert denials.record_accepted(two) == ()
    assert len(denials) == 0
