"""Three shards of two replicas on a real API server: each session has one writer."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.controller.decide.sharding import shard_of
from reconciler.naming import SessionKey
from tests.cluster.admin import MERGE, RBAC, SECRETS, Admin, collection
from tests.cluster.controlplane import ControlPlane
from tests.cluster.test_check import examined
from tests.cluster.world import ExpiryWatch, World, open_world
from tests.controller import Controller, running

pytestmark = pytest.mark.timeout(180)

TTL_S = 120.0
SESSIONS = 24
COUNT = 3
LEASE = {
    "RECONCILER_LEASE_DURATION_S": "6",
    "RECONCILER_RENEW_DEADLINE_S": "4",
    "RECONCILER_RETRY_PERIOD_S": "1",
    "RECONCILER_REQUEST_LIMIT_S": "4",
}


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path, ttl_s=TTL_S) as opened:
        await grant_leases(opened)
        await opened.add_sessions(projects=2, each=SESSIONS // 2)
        yield opened


async def grant_leases(world: World) -> None:
    """Give the account the Leases of the shards, as components/shards does."""
    path = f"/apis/{RBAC}/v1/namespaces/{world.home}/roles/token-reconciler-lease"
    role = await world.admin.expect("GET", path)
    for rule in role["rules"]:
        if "resourceNames" in rule:
            rule["resourceNames"] = [f"token-reconciler-{index}" for index in range(COUNT)]
    await world.admin.expect("PATCH", path, {"rules": role["rules"]}, content_type=MERGE)


@asynccontextmanager
async def shards(world: World) -> AsyncIterator[list[list[Controller]]]:
    """Start two replicas of each shard; yield them by shard, when each shard has refreshed."""
    async with AsyncExitStack() as stack:
        found: list[list[Controller]] = [[] for _ in range(COUNT)]
        for number in range(2):
            for index in range(COUNT):
                settings = world.environment(
                    RECONCILER_REPLICA=f"reconciler-{index}-{number}",
                    RECONCILER_POD_UID=f"11111111-2222-3333-4444-0000000000{index}{number}",
                    RECONCILER_SHARD=f"{index}/{COUNT}",
                    **LEASE,
                )
                found[index].append(await stack.enter_async_context(running(settings)))
        for pair in found:
            for each in pair:
                await each.wait_for_event("stores_synced")
            await leader_of(pair)
        yield found


async def shards_found(world: World, shard: str) -> list[str]:
    """Return what `check` says of the shards."""
    _, found = await examined(world.environment(RECONCILER_SHARD=shard))
    return [finding["message"] for finding in found if finding["area"] == "shards"]


async def leader_of(pair: list[Controller]) -> Controller:
    """Return the replica that leads, once it has refreshed its sessions."""
    async with asyncio.timeout(60):
        while True:
            for each in pair:
                if each.process.returncode is None and each.events("startup_resync_finished"):
                    return each
            await asyncio.sleep(0.05)


def _resync(controller: Controller) -> list[dict[str, Any]]:
    """Return the writes that are no scheduled refresh."""
    written = controller.events("runner_token_refreshed")
    return [line for line in written if line["reason"] != "scheduled"]


def refreshed(controller: Controller) -> Counter[str]:
    return Counter(line["session_id"] for line in controller.events("runner_token_refreshed"))


async def test_each_session_has_one_writer_and_a_dead_leader_is_its_own_shards(
    world: World,
) -> None:
    keys = [SessionKey(runner.namespace, runner.session_id) for runner in world.runners]
    parts = [
        {key.session_id for key in keys if shard_of(key, COUNT) == index} for index in range(COUNT)
    ]
    assert all(parts)
    watch = ExpiryWatch(world)
    async with watch.running(), shards(world) as found:
        leaders = [await leader_of(pair) for pair in found]
        for part, leader, pair in zip(parts, leaders, found, strict=True):
            assert set(refreshed(leader)) == part
            [standby] = [each for each in pair if each is not leader]
            assert not refreshed(standby)
            assert leader.events("stores_synced")[0]["pods"] == len(part)
        startup = [line for one in leaders for line in one.events("startup_resync_finished")]
        assert [line["refreshed"] for line in startup] == [len(part) for part in parts]
        async with asyncio.timeout(30):
            while len(watch.versions) < SESSIONS:
                await asyncio.sleep(0.05)
        early = Counter(line["session_id"] for one in leaders for line in _resync(one))
        assert early == dict.fromkeys([key.session_id for key in keys], 1)
        assert await shards_found(world, f"0/{COUNT}") == ["each of the 3 shards has a leader"]
        assert await shards_found(world, "0/2") == [
            f"the leader of Lease token-reconciler-{index} has shard {index}/3, and n is 2 here: a"
            " session can have two leaders, or none"
            for index in range(COUNT)
        ]
        leaders[1].kill()
        [heir] = [each for each in found[1] if each is not leaders[1]]
        await heir.wait_for_event("startup_resync_finished", limit_s=60)
        assert set(refreshed(heir)) == parts[1]
        for index in (0, 2):
            assert not leaders[index].events("lease_lost")
            assert not any(refreshed(each) for each in found[index] if each is not leaders[index])
            assert Counter(line["session_id"] for line in _resync(leaders[index])) == dict.fromkeys(
                parts[index], 1
            )
        for runner in world.runners:
            world.issuer.verify(await world.token(runner))
    assert watch.expired_s == 0


async def test_the_server_has_no_selector_of_its_own_for_shards(world: World) -> None:
    """Its feature gate is off; with it on, decision 0020 is to be made again."""
    path = collection(world.runners[0].namespace, SECRETS)
    none = "shardRange(object.metadata.uid, '0x0000000000000000', '0x0000000000000001')"
    everything = (await world.admin.expect("GET", path))["items"]
    assert everything
    assert len((await world.admin.expect("GET", path, shardSelector=none))["items"]) == len(
        everything
    )
