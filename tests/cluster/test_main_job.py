"""The acceptance test on a real API server, with the controller as a separate process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.admin import SECRETS, Admin, item
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import (
    NAMES,
    PLATFORM_MANAGER,
    ExpiryWatch,
    Runner,
    World,
    open_world,
)
from tests.controller import Controller, running

SHORT_TTL_S = 20.0


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path) as opened:
        yield opened


def refreshed(controller: Controller) -> set[str]:
    return {line["session_id"] for line in controller.events("runner_token_refreshed")}


async def test_a_restart_refreshes_every_running_session_of_every_project(world: World) -> None:
    runners = await world.add_sessions(projects=3, each=5)
    everyone = {runner.session_id for runner in runners}
    async with running(world.environment()) as first:
        await first.wait_for_event("startup_resync_finished")
        assert refreshed(first) == everyone
        first.kill()
    before = {runner: await world.token(runner) for runner in runners}
    async with running(world.environment()) as second:
        await second.wait_for_event("startup_resync_finished")
        assert refreshed(second) == everyone
        assert {line["reason"] for line in second.events("runner_token_refreshed")} == {
            "startup_resync"
        }
        assert await second.terminate() == 0
    for runner in runners:
        token = await world.token(runner)
        assert token != before[runner]
        world.issuer.verify(token)


@pytest.mark.timeout(240)
async def test_tokens_of_20_seconds_stay_valid_for_two_minutes_by_deadlines_alone(
    control_plane: ControlPlane, admin: Admin, tmp_path: Path
) -> None:
    async with open_world(control_plane, admin, tmp_path, ttl_s=SHORT_TTL_S) as world:
        runners = await world.add_sessions(projects=2, each=4)
        # A resync that cannot come within the test leaves the deadlines alone to do the work.
        settings = world.environment(RECONCILER_RESYNC_S="86400")
        watch = ExpiryWatch(world)
        async with running(settings) as controller, watch.running():
            await controller.wait_for_event("startup_resync_finished")
            began_s = world.issuer.now_s()
            while world.issuer.now_s() < began_s + 120:
                count = len(controller.events("runner_token_refreshed"))
                await controller.wait_for_event("runner_token_refreshed", count=count + 1)
        assert watch.expired_s == 0
        assert len(watch.versions) == len(runners)
        # Renewed at an age of 0.4 of their life on average: 15 times in 120 s.
        assert all(count >= 10 for count in watch.versions.values()), watch.versions


async def test_no_token_of_a_run_appears_in_its_log(world: World) -> None:
    await world.add_sessions(each=3)
    async with running(world.environment(LOG_LEVEL="debug")) as controller:
        await controller.wait_for_event("startup_resync_finished")
        await controller.terminate()
    text = "".join(controller.text)
    assert world.issuer.client_secret not in text
    assert not [token for token in world.issuer.issued if token in text]


async def test_a_new_session_has_its_first_token_as_soon_as_its_pod_appears(world: World) -> None:
    [first] = await world.add_sessions(each=1)
    async with running(world.environment()) as controller:
        await controller.wait_for_event("startup_resync_finished")
        late = await world.add(first.namespace)
        await controller.wait_for(
            "the new session's token", lambda: late.session_id in refreshed(controller)
        )
        world.issuer.verify(await world.token(late))


async def test_a_deleted_secret_is_created_again_with_its_labels_and_owner(world: World) -> None:
    [runner] = await world.add_sessions(each=1)
    async with running(world.environment()) as controller:
        await controller.wait_for_event("startup_resync_finished")
        await world.admin.delete(runner.namespace, "secrets", runner.secret)
        await controller.wait_for_event("secret_recreated")
        made = await world.secret(runner)
        pod = await world.pod(runner)
    assert made["metadata"]["labels"] == world.labels(runner)
    assert made["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
    world.issuer.verify(await world.token(runner))


async def test_an_overwritten_token_is_written_again(world: World) -> None:
    [runner] = await world.add_sessions(each=1)
    async with running(world.environment()) as controller:
        await controller.wait_for_event("startup_resync_finished")
        body = {"stringData": {"api-token": "obviously-fake-intruder"}}
        await world.admin.patch(runner.namespace, "secrets", runner.secret, body)
        await controller.wait_for(
            "the repair",
            lambda: any(
                line["reason"] == "foreign_writer"
                for line in controller.events("runner_token_refreshed")[1:]
            ),
        )
        world.issuer.verify(await world.token(runner))


async def test_the_replaced_loop_beside_us_is_named_and_each_of_its_writes_repaired(
    world: World,
) -> None:
    [runner] = await world.add_sessions(each=1)
    async with running(world.environment()) as controller:
        await controller.wait_for_event("startup_resync_finished")
        for tick in range(4):
            stale = f"obviously-fake-cached-token-{tick}"
            await old_loop(world, runner, stale)
            async with asyncio.timeout(20):
                while await world.token(runner) == stale:
                    await asyncio.sleep(0.05)
            world.issuer.verify(await world.token(runner))
        assert await controller.terminate() == 0
    [fought] = controller.events("competing_writer")
    assert (fought["writer"], fought["overwrites"]) == (PLATFORM_MANAGER, 3)


async def old_loop(world: World, runner: Runner, token: str) -> None:
    """Write a token as the replaced loop does: GET, then PUT of the whole object."""
    body = await world.secret(runner) | {"stringData": {NAMES.secret_key: token}}
    path = item(runner.namespace, SECRETS, runner.secret)
    await world.admin.expect("PUT", path, body, fieldManager=PLATFORM_MANAGER)


async def test_a_pod_with_an_expired_token_is_touched_after_the_write(world: World) -> None:
    [runner] = await world.add_sessions(each=1)
    async with running(world.environment()) as controller:
        await controller.wait_for_event("startup_resync_finished")
        annotation = "ambient-code.io/token-touched-at"
        async with asyncio.timeout(20):
            while annotation not in (await world.pod(runner))["metadata"].get("annotations", {}):
                await asyncio.sleep(0.05)


async def test_a_request_by_annotation_is_honoured_once_and_a_pause_stops_writes(
    world: World,
) -> None:
    runner, other = await world.add_sessions(each=2)
    async with running(world.environment()) as controller:
        await controller.wait_for_event("startup_resync_finished")
        asked = {"metadata": {"annotations": {"ambient-code.io/refresh-requested-at": "now"}}}
        await world.admin.patch(runner.namespace, "pods", runner.pod, asked)
        await controller.wait_for(
            "the requested refresh",
            lambda: (
                [
                    line["session_id"]
                    for line in controller.events("runner_token_refreshed")
                    if line["reason"] == "requested"
                ]
                == [runner.session_id]
            ),
        )
        paused = {"metadata": {"annotations": {"ambient-code.io/refresh-paused": "true"}}}
        await world.admin.patch(other.namespace, "pods", other.pod, paused)
        await controller.wait_for(
            "the pause",
            lambda: any(
                line["reason"] == "paused" for line in controller.events("session_blocked")
            ),
        )


async def test_a_labelled_pod_that_the_platform_does_not_know_gets_nothing(world: World) -> None:
    [honest] = await world.add_sessions(each=1)
    forged = await world.add(honest.namespace, with_secret=False, known=False)
    async with running(world.environment()) as controller:
        await controller.wait_for_event("session_not_confirmed")
        await controller.wait_for_event("startup_resync_finished")
        secrets = await world.admin.expect("GET", f"/api/v1/namespaces/{honest.namespace}/secrets")
    assert [found["metadata"]["name"] for found in secrets["items"]] == [honest.secret]
    assert controller.events("session_not_confirmed")[0]["session_id"] == forged.session_id
