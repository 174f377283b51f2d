"""A confirmation that is missing on a Secret: written again while the platform's word is known."""

import asyncio
from itertools import pairwise

import pytest
from msgspec.structs import replace

from reconciler.controller.controller import Controller
from reconciler.controller.state.confirmations import REWRITE_S
from reconciler.errors import ServerError, TransportError
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.kinds import SECRETS
from reconciler.lab.apiserver.write_log import Commit
from tests.unit.controller.virtual import (
    INTRUDER,
    NAMES,
    PROJECT,
    SwitchFence,
    World,
    finished,
    running,
    simulate,
)

SESSION = "2AbLost"
LONG_TTL_S = 86_400
"""No token of such a life is refreshed within a test: only the confirmation is written."""


def is_sealed(world: World) -> bool:
    return NAMES.confirmation in world.secret(SESSION)["metadata"].get("annotations", {})


def strip(world: World) -> None:
    body = {"metadata": {"annotations": {NAMES.confirmation: None}}}
    world.core.patch(SECRETS, PROJECT, NAMES.secret_name(SESSION), body, by=INTRUDER)


def fail_next_patch(world: World, fault: InjectedFault) -> list[str]:
    """Have the next patch of a Secret fail once; the list has the verb of each failed request."""
    failed: list[str] = []

    def judge(verb: str, plural: str) -> InjectedFault | None:
        if (verb, plural) != ("patch", "secrets") or failed:
            return None
        failed.append(verb)
        return fault

    world.faults.rule = judge
    return failed


@pytest.mark.parametrize("started_s", [5.0, 2 * REWRITE_S], ids=["early", "late"])
@pytest.mark.parametrize("error", [ServerError("oops", status=500), TransportError("reset")])
def test_a_recreated_secret_gets_its_confirmation_after_one_lost_patch(
    started_s: float, error: ServerError | TransportError
) -> None:
    async def scenario(world: World) -> None:
        world.issuer.ttl_s = LONG_TTL_S
        world.add(SESSION)
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(started_s)
            failed = fail_next_patch(world, InjectedFault(error))
            written = len(world.secret_writes())
            world.delete_secret(SESSION)
            await asyncio.sleep(REWRITE_S)
            assert failed == ["patch"]
            assert is_sealed(world)
            assert len(world.secret_writes()) - written == 2  # it was made, and sealed
            assert len(world.events("secret_recreated")) == 1
            await asyncio.sleep(3 * REWRITE_S)
            assert len(world.secret_writes()) - written == 2
        world.platform.unreachable = True
        again = SwitchFence()
        again.term = "replica-0/2"
        second = Controller(replace(world.ports, fence=again), world.endpoints, world.config)
        async with running(world, second):
            await finished(world, 2)
            refreshed = world.secret(SESSION)["metadata"]["annotations"][NAMES.refreshed_by]
            assert refreshed == "replica-0/2"

    simulate(scenario)


def test_a_writer_that_removes_the_confirmation_each_second_gets_one_write_in_five_minutes() -> (
    None
):
    async def scenario(world: World) -> None:
        world.issuer.ttl_s = LONG_TTL_S
        world.add(SESSION)
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(REWRITE_S)
            written, touched = len(world.secret_writes()), len(world.pod_writes())
            for _ in range(int(4 * REWRITE_S)):
                strip(world)
                await asyncio.sleep(1)
            seals: list[Commit] = world.secret_writes()[written:]
            assert 4 <= len(seals) <= 5
            gaps_s = [b.at - a.at for a, b in pairwise(seals)]
            assert min(gaps_s) >= REWRITE_S
            assert len({commit.object["data"][NAMES.secret_key] for commit in seals}) == 1
            await asyncio.sleep(REWRITE_S)
            assert is_sealed(world)
            assert len(world.pod_writes()) == touched

    simulate(scenario)


def test_a_session_that_the_platforms_list_lacks_gets_no_new_confirmation() -> None:
    async def scenario(world: World) -> None:
        world.issuer.ttl_s = LONG_TTL_S
        world.add(SESSION)
        world.add("2AbOther")
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(2 * REWRITE_S)
            del world.platform.sessions[SESSION]
            await asyncio.sleep(2 * REWRITE_S)  # a resync, and its answers
            written = len(world.secret_writes())
            if is_sealed(world):
                strip(world)
            await asyncio.sleep(3 * REWRITE_S)
            assert len(world.secret_writes()) == written
            assert not is_sealed(world)

    simulate(scenario)
