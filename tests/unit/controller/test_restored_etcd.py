"""Etcd restored to an earlier revision: what the stores hold is of a history that is no more."""

import asyncio

import pytest

from reconciler.controller.decide.write_errors import STALE_CONFLICTS
from reconciler.informer.protocol import DISTRUST_S
from reconciler.lab.apiserver.core import AT_ONCE
from reconciler.lab.apiserver.kinds import PODS, SECRETS
from reconciler.naming import SessionKey
from tests.unit.controller.virtual import INTRUDER, NAMES, PROJECT, World, running, simulate

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


async def lose_a_future(world: World, *, is_restart_seen: bool = True) -> None:
    """Have every Secret written four times, and then undone.

    Args:
        is_restart_seen: False = only the watches are cut, as by a balancer that turns to a server
            that is up already.
    """
    version = world.core.version
    for _ in range(2):
        for session in SESSIONS:
            world.overwrite(session)
        await asyncio.sleep(5)
    assert world.core.version - version >= 80
    if is_restart_seen:
        await restore(world, version)
    else:
        world.core.restore(version)
        world.faults.drop_watches()


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


def test_a_lease_of_an_earlier_history_has_everything_listed_at_once() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        async with running(world):
            await settled(world)
            await asyncio.sleep(100)
            await lose_a_future(world)
            world.add("2Ae0")
            world.controller.informers.distrust("home", "the Lease is of an earlier history")
            async with asyncio.timeout(1):
                while world.token("2Ae0") not in world.issuer.minted:
                    await asyncio.sleep(0.01)
            seen = {str(line.get("resource")) for line in world.events("history_rewound")}
            assert seen == {"None", "pods", "secrets"}

    simulate(scenario)


def test_a_history_that_has_passed_the_lost_one_is_noticed_by_conflicts() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        async with running(world):
            await settled(world)
            await asyncio.sleep(100)
            before = world.core.version
            await lose_a_future(world, is_restart_seen=False)
            lost = before + 100
            for number in range(200):  # another client's, before the first bookmark
                world.add_pod(f"2Ac{number}", name=f"other-{number}")
                world.core.delete(PODS, PROJECT, f"other-{number}", AT_ONCE, by=INTRUDER)
            assert world.core.version > lost
            assert await expired_s(world, 1800, step_s=5) == 0
            conflicts = world.controller.stats.failures["Conflict"]
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
                while world.controller.queue.entry_info(SessionKey(PROJECT, "2Ab1")) is not None:
                    await asyncio.sleep(1)
            await asyncio.sleep(900)
            assert world.remaining_s("2Ab0") > 0
            assert [pod.name for pod in world.controller.pods.snapshot()] == ["session-2ab0-runner"]
            [secret] = world.controller.secrets.snapshot()
            assert secret.uid == world.secret("2Ab0")["metadata"]["uid"]

    simulate(scenario)


def test_a_history_that_has_passed_the_lost_one_is_compared_within_90_seconds() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        async with running(world):
            await settled(world)
            await asyncio.sleep(100)
            await lose_a_future(world)
            lost = int(world.controller.secrets.version(PROJECT) or 0)
            created, deleted = "2Ad0", SESSIONS[3]
            before = world.secret(deleted)["metadata"]["uid"]
            lists = {r: r.stats().protocol.lists for r in world.controller.informers.reflectors}
            world.add(created)
            world.delete_secret(deleted)
            assert world.core.version < lost
            for number in range(100):  # two foreign writes each, within 5 s
                world.add_pod(f"2Ac{number}", name=f"other-{number}")
                world.core.delete(PODS, PROJECT, f"other-{number}", AT_ONCE, by=INTRUDER)
                await asyncio.sleep(0.05)
            assert world.core.version > lost
            async with asyncio.timeout(85):
                while True:
                    found = world.controller.secrets.get(PROJECT, NAMES.secret_name(deleted))
                    is_deleted_known = found is None or found.uid != before
                    if world.token(created) in world.issuer.minted and is_deleted_known:
                        break
                    await asyncio.sleep(0.5)
            assert {line["resource"] for line in world.events("history_rewound")} == {
                "pods",
                "secrets",
            }
            await asyncio.sleep(600)
            assert world.secret(deleted)["metadata"]["uid"] != before
            for reflector, number in lists.items():
                # One list by each, save that a conflict may ask for one more.
                assert reflector.stats().protocol.lists - number <= 2

    simulate(scenario)


def test_a_restart_that_lost_nothing_costs_each_reflector_one_list_and_nothing_else() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        async with running(world):
            await settled(world)
            await asyncio.sleep(100)
            reflectors = world.controller.informers.reflectors
            before = [reflector.stats().protocol.lists for reflector in reflectors]
            await world.faults.restart()
            up_at = asyncio.get_running_loop().time()
            after_s: list[float] = []
            while len(after_s) < len(reflectors):
                counts = [r.stats().protocol.lists for r in reflectors]
                grown = sum(map(int.__sub__, counts, before))
                after_s += [asyncio.get_running_loop().time() - up_at] * (grown - len(after_s))
                await asyncio.sleep(0.5)
            assert max(after_s) <= 75
            assert len(set(after_s)) > 1, "all at one time"
            await asyncio.sleep(1000)
            after = [reflector.stats().protocol.lists for reflector in reflectors]
            assert after == [lists + 1 for lists in before]
            assert not world.events("history_rewound")
            assert not world.events("drift_found")

    simulate(scenario)


def test_a_server_whose_reads_contradict_it_for_ever_costs_few_lists() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        async with running(world):
            await settled(world)
            for reflector in world.controller.informers.reflectors:
                before = reflector.stats().protocol.lists
                for _ in range(600):
                    reflector.distrust()
                    await asyncio.sleep(0.1)
                assert reflector.stats().protocol.lists - before <= 60 / DISTRUST_S + 1

    simulate(scenario)
