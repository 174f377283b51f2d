"""Etcd restored to an earlier revision: what the stores hold is of a history that is no more."""

import asyncio

import pytest

from reconciler.control.worker import STALE_CONFLICTS
from reconciler.informer.listwatch import DISTRUST_S
from reconciler.lab.apiserver.core import AT_ONCE
from reconciler.lab.apiserver.kinds import PODS, SECRETS
from reconciler.names import SessionKey
from tests.unit.control.virtual import INTRUDER, NAMES, PROJECT, World, running, simulate

SESSIONS = [f"2Ab{number}" for number in range(20)]

SLACK_S = 270.0
"""How long a fault may last with tokens of 15 minutes (0.4 of their life less the allowance)."""


async def settled(world: World) -> None:
    async with asyncio.timeout(60):
        while not world.events("startup_resync_finished"):
            await asyncio.sleep(0.1)


async def restore(world: World, version: int) -> None:
    """Go back to a version, with the API server restarted, as it is the only way."""
    restart = asyncio.create_task(world.faults.restart())
    await asyncio.sleep(1)
    world.core.restore(version)
    await restart


async def lose_a_future(world: World) -> None:
    """Have every Secret written four times, and then undone."""
    version = world.core.version
    for _ in range(2):
        for session in SESSIONS:
            world.overwrite(session)
        await asyncio.sleep(5)
    assert world.core.version - version >= 80
    await restore(world, version)


async def expired_s(world: World, seconds: float, *, step_s: float) -> float:
    total_s = 0.0
    for _ in range(round(seconds / step_s)):
        await asyncio.sleep(step_s)
        total_s += step_s * sum(world.remaining_s(session) < 0 for session in SESSIONS)
    return total_s


@pytest.mark.parametrize("ttl_s", [120, 900])
def test_tokens_are_refreshed_as_if_nothing_had_happened(ttl_s: int) -> None:
    async def scenario(world: World) -> None:
        world.issuer.ttl_s = ttl_s
        for session in SESSIONS:
            world.add(session)
        async with running(world):
            await settled(world)
            await asyncio.sleep(ttl_s)
            await lose_a_future(world)
            assert await expired_s(world, 3 * ttl_s, step_s=ttl_s / 200) == 0

    simulate(scenario)


def test_what_is_changed_after_it_is_noticed_within_the_slack() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        async with running(world):
            await settled(world)
            await asyncio.sleep(100)
            await lose_a_future(world)
            await asyncio.sleep(5)
            for session in SESSIONS:
                world.overwrite(session)
            async with asyncio.timeout(SLACK_S):
                while not all(world.token(session) in world.issuer.minted for session in SESSIONS):
                    await asyncio.sleep(1)
        assert {line["resource"] for line in world.events("history_rewound")} == {
            "pods",
            "secrets",
        }

    simulate(scenario)


def test_a_history_that_has_passed_the_lost_one_is_noticed_by_conflicts() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        async with running(world):
            await settled(world)
            await asyncio.sleep(100)
            before = world.core.version
            await lose_a_future(world)
            lost = before + 100
            for number in range(200):  # somebody else's, before the first bookmark
                world.add_pod(f"2Ac{number}", name=f"other-{number}")
                world.core.delete(PODS, PROJECT, f"other-{number}", AT_ONCE, by=INTRUDER)
            assert world.core.version > lost
            assert await expired_s(world, 1800, step_s=5) == 0
            conflicts = world.controller.worker.stats.failures["Conflict"]
            assert conflicts <= len(SESSIONS) * (STALE_CONFLICTS + 1)
        assert len(world.events("history_rewound")) == 1

    simulate(scenario)


def test_a_secret_that_came_after_the_copy_is_known_to_be_gone_and_one_that_went_to_be_there() -> (
    None
):
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
            await asyncio.sleep(30)
            version = world.core.version
            world.add("2Ab1")
            world.core.delete(SECRETS, PROJECT, NAMES.secret_name("2Ab0"), AT_ONCE, by=INTRUDER)
            await asyncio.sleep(30)
            assert world.events("secret_recreated")
            await restore(world, version)
            async with asyncio.timeout(SLACK_S):
                while world.controller.queue.look(SessionKey(PROJECT, "2Ab1")) is not None:
                    await asyncio.sleep(1)
            await asyncio.sleep(900)
            assert world.remaining_s("2Ab0") > 0
            assert [pod.name for pod in world.controller.pods.snapshot()] == ["session-2ab0-runner"]
            [secret] = world.controller.secrets.snapshot()
            assert secret.uid == world.secret("2Ab0")["metadata"]["uid"]

    simulate(scenario)


def test_a_server_whose_reads_contradict_it_for_ever_costs_few_lists() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        async with running(world):
            await settled(world)
            for reflector in world.controller.scopes.reflectors:
                before = reflector.stats().protocol.lists
                for _ in range(600):
                    reflector.distrust()
                    await asyncio.sleep(0.1)
                assert reflector.stats().protocol.lists - before <= 60 / DISTRUST_S + 1

    simulate(scenario)
