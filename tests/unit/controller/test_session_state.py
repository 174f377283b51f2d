"""What is known of a session: the pod that counts, records of one term, reads that fail."""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from msgspec.structs import replace

from reconciler.controller.controller import Controller
from reconciler.controller.decide.write_errors import STALE_CONFLICTS
from reconciler.controller.state.session_state import newest_live_pod
from reconciler.errors import Conflict
from reconciler.kube.api import ListOptions, Page
from reconciler.kube.client import ONE_NAME
from reconciler.kube.forwarding import ForwardingKube, KubeCall
from reconciler.lab.apiserver.fault_injection import InjectedFault
from tests.unit.controller.build import NOW_S, pod
from tests.unit.controller.virtual import World, running, simulate


def test_of_several_pods_the_newest_that_is_not_being_deleted_counts() -> None:
    leaving = pod(name="c", created_s=NOW_S, is_deleting=True)
    older, newer = pod(name="b", created_s=NOW_S - 20), pod(name="a", created_s=NOW_S - 10)
    assert newest_live_pod([leaving, older, newer]) is newer
    assert newest_live_pod([leaving]) is leaving
    assert newest_live_pod([]) is None


def test_records_of_writes_end_with_their_term() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await asyncio.sleep(30)
            sessions = world.controller.sessions
            assert len(sessions.records) == 1
            sessions.begin_term()
            assert len(sessions.records) == 1  # no other replica has led since
            world.fence.term = "replica-0/3"
            sessions.begin_term()
            assert len(sessions.records) == 0

    simulate(scenario)


class Undecodable(ForwardingKube):
    """An API server whose answer to a read of one object cannot be decoded."""

    def around(self, call: KubeCall) -> AbstractContextManager[None]:
        return nullcontext()

    async def list(self, resource: Any, scope: ListOptions, **options: Any) -> Page[Any]:
        page: Page[Any] = await super().list(resource, scope, **options)
        if not scope.fields.startswith(ONE_NAME):
            return page
        return Page([], page.version, "", skipped=len(page.items))


def test_a_secret_that_cannot_be_decoded_is_not_created_again() -> None:
    async def scenario(world: World) -> None:
        asked: list[tuple[str, str]] = []

        def conflict(verb: str, plural: str) -> InjectedFault | None:
            asked.append((verb, plural))
            if (verb, plural) != ("patch", "secrets"):
                return None
            return InjectedFault(Conflict("another version", status=409, reason="Conflict"))

        world.add("2Ab0")
        world.faults.rule = conflict
        ports = replace(world.ports, kube=Undecodable(world.ports.kube))
        async with running(world, Controller(ports, world.endpoints, world.config)):
            await asyncio.sleep(120)
            assert asked.count(("patch", "secrets")) > STALE_CONFLICTS
            assert ("create", "secrets") not in asked

    simulate(scenario)
