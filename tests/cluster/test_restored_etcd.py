"""Etcd restored to an earlier revision under the product, as an operator does after a disaster."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.cluster.admin import SECRETS
from tests.cluster.conftest import NEEDED, require
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import World, open_fleet
from tests.controller import Controller, running

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

SESSIONS = 20

SLACK_S = 270.0
"""Longest fault for tokens of 15 minutes (0.4 of their life less the allowance), seconds."""


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A separate control plane: a restore would also remove the objects of other tests."""
    with ControlPlane(require(*NEEDED)) as control_plane:
        yield control_plane


async def until_all_are_good(world: World, old: set[str], *, limit_s: float) -> None:
    """Wait until each Secret has a token of the issuer that is not in `old`."""
    async with asyncio.timeout(limit_s):
        for runner in world.runners:
            while (token := await world.token(runner)) in old or token not in world.issuer.issued:
                await asyncio.sleep(0.5)


async def overwrite_all(world: World) -> None:
    body = {"stringData": {"api-token": "obviously-fake-intruder"}}
    for runner in world.runners:
        await world.admin.patch(runner.namespace, SECRETS, runner.secret, body)


async def restore(world: World) -> None:
    """Undo many of the product's writes, the last renewals of its Lease included."""
    await asyncio.to_thread(world.control_plane.back_up)
    for _ in range(2):
        await overwrite_all(world)
        await until_all_are_good(world, set(), limit_s=SLACK_S)
    await asyncio.to_thread(world.control_plane.restore)


@asynccontextmanager
async def restored(
    plane: ControlPlane, folder: Path, ttl_s: float
) -> AsyncIterator[tuple[World, Controller]]:
    """Run the product on a control plane, and restore its store; the product must end cleanly."""
    async with (
        open_fleet(plane, folder, sessions=SESSIONS, ttl_s=ttl_s) as world,
        running(world.environment()) as controller,
    ):
        await controller.wait_for_event("startup_resync_finished")
        await restore(world)
        yield world, controller
        assert await controller.terminate() == 0


async def test_what_the_store_has_from_a_lost_future_keeps_no_token_from_being_written(
    plane: ControlPlane, tmp_path: Path
) -> None:
    async with restored(plane, tmp_path, 60.0) as (world, _):
        old = set(world.issuer.issued)
        await until_all_are_good(world, old, limit_s=60.0)


async def test_what_is_changed_after_a_restore_is_noticed_within_the_slack(
    plane: ControlPlane, tmp_path: Path
) -> None:
    async with restored(plane, tmp_path, 900.0) as (world, controller):
        await overwrite_all(world)
        await until_all_are_good(world, set(), limit_s=SLACK_S)
        # The Lease shows it, or a list that its lost connection brings first.
        assert controller.events("history_rewound")
