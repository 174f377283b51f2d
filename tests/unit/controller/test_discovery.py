"""Namespaces that come and go while the whole controller runs, hours of virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from msgspec.structs import replace

from reconciler.controller.controller import Controller
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.namespaces.discovery import OCCUPIED_TIMEOUT_S, NamespaceUsage
from reconciler.controller.namespaces.informers import CACHE_SYNC_TIMEOUT_S
from reconciler.controller.runtime import Stores
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.errors import Forbidden, ServerError
from reconciler.kube.api import ApiResource, ListOptions, Page
from reconciler.kube.decoding import metadata_resource
from reconciler.lab.apiserver.core import AT_ONCE
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.in_process_client import InProcessKube, InProcessWatch
from reconciler.lab.apiserver.kinds import PODS, SECRETS
from reconciler.leadership.api import NoElection
from reconciler.naming import SessionKey
from reconciler.platform.api import OnPage
from reconciler.platform.models import PlatformSession
from reconciler.platform.pagination import ignore_page
from tests.unit.controller import virtual
from tests.unit.controller.virtual import NAMES, PROJECT, World, running

RESYNC_S = 360.0

simulate = partial(virtual.simulate, finds_namespaces=True, resync_s=RESYNC_S)


class Limited:
    """A Kube without permissions in the namespaces of `denied`; records what it forbids.

    Lists of `failing`, plurals and namespaces, are answered with 500.
    """

    def __init__(self, inner: Any, *denied: str) -> None:
        self._inner: InProcessKube = inner
        self.denied = set(denied)
        self.refused: list[str] = []
        self.read_singly: list[str] = []
        self.failing: set[tuple[str, str]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def list(self, resource: ApiResource[Any], scope: ListOptions, **more: Any) -> Page[Any]:
        self._check(scope)
        if (resource.plural, scope.namespace) in self.failing:
            raise ServerError("answered 500", status=500, reason="InternalError")
        if scope.fields.startswith("metadata.name="):
            self.read_singly.append(scope.fields)
        return await self._inner.list(resource, scope, **more)

    @asynccontextmanager
    async def watch(
        self, resource: ApiResource[Any], scope: ListOptions, **more: Any
    ) -> AsyncIterator[InProcessWatch[Any]]:
        self._check(scope)
        async with self._inner.watch(resource, scope, **more) as opened:
            yield opened

    def _check(self, scope: ListOptions) -> None:
        assert scope.namespace is not None, "asked for all namespaces"
        if scope.namespace in self.denied:
            self.refused.append(scope.namespace)
            raise Forbidden(f"list in {scope.namespace}: answered 403", status=403)


class Switch(NoElection):
    """Leads once `began` is set."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    @property
    def leads(self) -> bool:  # type: ignore[override]  # Alone leads always
        return self.began.is_set()

    async def wait_started(self) -> None:
        await self.began.wait()


def limit(world: World, *denied: str) -> Limited:
    """Give the world a controller with limited permissions."""
    kube = Limited(world.ports.kube, *denied)
    world.controller = Controller(replace(world.ports, kube=kube), world.endpoints, world.config)
    return kube


def watched(world: World) -> set[str | None]:
    return {reflector.stats().namespace for reflector in world.controller.informers.reflectors}


async def refreshed(world: World, session_id: str, project: str, *, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while world.token(session_id, project) not in world.issuer.minted:
            await asyncio.sleep(0.5)


async def settled(world: World) -> None:
    async with asyncio.timeout(60):
        await world.controller.startup.finished.wait()


def test_only_namespaces_of_projects_are_asked_for_and_all_their_sessions_live() -> None:
    async def scenario(world: World) -> None:
        limit(world)
        world.add_project("team-b")
        world.add("2Aa")
        world.add("2Ab", project="team-b")
        async with running(world):
            await settled(world)
            assert world.controller.health.readiness_problem() == ""
            assert watched(world) == {PROJECT, "team-b"}
            assert world.controller.startup.outcomes == {"refreshed": 2}
            await asyncio.sleep(3600)
            for session_id, project in (("2Aa", PROJECT), ("2Ab", "team-b")):
                assert world.token(session_id, project) in world.issuer.minted[-12:]

    simulate(scenario)


def test_a_project_that_appears_is_served_within_one_list() -> None:
    async def scenario(world: World) -> None:
        kube = limit(world)
        world.add("2Aa")
        slow = InjectedFault(delay_s=0.5)
        async with running(world):
            await settled(world)
            world.faults.rule = lambda verb, plural: slow if plural == "secrets" else None
            world.add_project("team-new")
            world.add("2Anew", project="team-new")
            await refreshed(world, "2Anew", "team-new", within_s=35)
            [line] = world.events("namespaces_found")[1:]
            assert line["names"] == "team-new"
            # Its Secret was known before its pod, so that no single read looked for it.
            assert kube.read_singly == []

    simulate(scenario)


def test_a_namespace_whose_lists_fail_at_a_start_costs_only_itself() -> None:
    async def scenario(world: World) -> None:
        kube = limit(world)
        world.add_project("team-b")
        world.add("2Aa")
        world.add("2Ab", project="team-b")
        kube.failing = {("secrets", "team-b")}
        async with running(world):
            await refreshed(world, "2Aa", PROJECT, within_s=CACHE_SYNC_TIMEOUT_S + 5)
            await settled(world)
            assert world.controller.health.readiness_problem() == ""
            await asyncio.sleep(1800)
            assert world.remaining_s("2Aa") > 300
            kube.failing = set()
            await refreshed(world, "2Ab", "team-b", within_s=60)
        # It was there all the time, so that nothing was made in its place.
        assert world.controller.stats.created_total == 0

    virtual.simulate(scenario, namespaces=(PROJECT, "team-b"))


def test_lists_that_fail_everywhere_are_waited_for() -> None:
    async def scenario(world: World) -> None:
        kube = limit(world)
        world.add_project("team-b")
        world.add("2Aa")
        kube.failing = {("secrets", PROJECT), ("secrets", "team-b")}
        async with running(world):
            await asyncio.sleep(600)
            assert (
                "waiting for the first list of secrets"
                in world.controller.health.readiness_problem()
            )
            assert world.secret_writes() == []
            kube.failing = set()
            await refreshed(world, "2Aa", PROJECT, within_s=60)

    virtual.simulate(scenario, namespaces=(PROJECT, "team-b"))


def test_a_short_period_is_how_often_the_projects_are_asked_for() -> None:
    async def scenario(world: World) -> None:
        async with running(world):
            await settled(world)
            world.add_project("team-new")
            await asyncio.sleep(5.5)
            assert "team-new" in watched(world)

    virtual.simulate(scenario, finds_namespaces=True, resync_s=5.0)


def test_a_deleted_project_is_unwatched_and_evicted_after_its_last_pod() -> None:
    async def scenario(world: World) -> None:
        kube = limit(world)
        world.add_project("team-b")
        world.add("2Aa")
        world.add("2Ab", project="team-b")
        key = SessionKey("team-b", "2Ab")
        async with running(world):
            await settled(world)
            world.platform.projects.remove("team-b")
            del world.platform.sessions["2Ab"]
            await asyncio.sleep(3 * RESYNC_S)
            assert "team-b" in watched(world)  # its pod lives
            assert world.token("2Ab", "team-b") in world.issuer.minted[-12:]
            world.delete_pod("2Ab", "team-b")
            await asyncio.sleep(2 * RESYNC_S)
            controller = world.controller
            assert watched(world) == {PROJECT}
            assert controller.secrets.namespaces() == {PROJECT}
            assert not controller.secrets.synced("team-b")
            assert controller.queue.entry_info(key) is None
            tasks = [task for task in asyncio.all_tasks() if "team-b" in repr(task.get_coro())]
            assert tasks == []
            # No request goes there any more, so that missing rights are not noticed.
            kube.denied.add("team-b")
            await asyncio.sleep(RESYNC_S)
            assert kube.refused == []
            world.platform.projects.append("team-b")
            kube.denied.clear()
            world.add_pod("2Ab", project="team-b")
            world.platform.sessions["2Ab"] = PlatformSession(
                id="2Ab", project_id="team-b", phase="Running"
            )
            await asyncio.sleep(40)
            assert controller.queue.entry_info(key) is not None

    simulate(scenario)


def test_a_namespace_is_in_use_while_a_write_there_is_in_flight() -> None:
    async def scenario(world: World) -> None:
        controller, queue = world.controller, world.controller.queue
        usage = NamespaceUsage(
            stores=Stores(
                controller.pods,
                controller.secrets,
                metadata_resource("pods", NAMES),
                metadata_resource("secrets", NAMES),
            ),
            confirmations=ConfirmationCache(world.clock, ConfirmationMac("fake"), str),
            sessions=controller.sessions,
            queue=queue,
            touches=controller.touches,
        )
        world.add("2Aa")
        world.faults.rule = lambda verb, plural: (
            InjectedFault(delay_s=0.5) if (verb, plural) == ("patch", "secrets") else None
        )
        async with running(world):
            async with asyncio.timeout(30):
                while not queue.stats().schedule.running:
                    await asyncio.sleep(0.01)
            assert usage.in_use(PROJECT, is_forbidden=True)
            async with asyncio.timeout(30):
                await queue.wait_idle()
            assert not usage.in_use(PROJECT, is_forbidden=True)

    simulate(scenario)


def test_rights_that_go_with_a_namespace_are_not_reported() -> None:
    async def scenario(world: World) -> None:
        kube = limit(world)
        world.add_project("team-b")
        async with running(world):
            await settled(world)
            world.platform.projects.remove("team-b")
            await asyncio.sleep(40)
            kube.denied.add("team-b")
            world.faults.drop_watches()
            await asyncio.sleep(3 * RESYNC_S)
            assert kube.refused
            assert watched(world) == {PROJECT}
            said = [
                line
                for line in world.logs
                if line.get("namespace") == "team-b" and line["log_level"] == "warning"
            ]
            assert said == []

    simulate(scenario)


def test_rights_that_go_before_the_last_pod_leave_no_entry_behind() -> None:
    async def scenario(world: World) -> None:
        kube = limit(world)
        world.add_project("team-b")
        world.add("2Aa")
        world.add("2Ab", project="team-b")
        async with running(world):
            await settled(world)
            world.platform.projects.remove("team-b")
            del world.platform.sessions["2Ab"]
            kube.denied.add("team-b")
            world.faults.drop_watches()
            await asyncio.sleep(1)
            world.delete_pod("2Ab", "team-b")
            async with asyncio.timeout(3 * RESYNC_S):
                while watched(world) != {PROJECT}:
                    await asyncio.sleep(0.5)
            assert world.controller.queue.entry_info(SessionKey("team-b", "2Ab")) is None
            survey = await world.controller.status_collector.snapshot(max_age_s=0.0)
            assert [reading.key.namespace for reading in survey.readings] == [PROJECT]

    simulate(scenario)


def test_a_standby_has_synced_namespaces_that_came_before_its_term() -> None:
    async def scenario(world: World) -> None:
        switch = Switch()
        world.controller = Controller(
            replace(world.ports, leadership=switch), world.endpoints, world.config
        )
        world.add("2Aa")
        async with running(world):
            await asyncio.sleep(60)
            world.add_project("team-new")
            world.add("2Anew", project="team-new")
            await asyncio.sleep(60)
            assert not world.secret_writes()
            assert world.controller.health.readiness_problem() == ""
            assert watched(world) == {PROJECT, "team-new"}
            assert world.controller.secrets.synced("team-new")
            switch.began.set()
            await refreshed(world, "2Anew", "team-new", within_s=2)
            await settled(world)
            assert world.controller.startup.outcomes == {"refreshed": 2}

    simulate(scenario)


def test_neither_an_outage_nor_a_short_nor_an_empty_list_unwatches_a_namespace() -> None:
    async def scenario(world: World) -> None:
        world.add_project("team-b")
        async with running(world):
            await settled(world)
            both = {PROJECT, "team-b"}
            world.platform.unreachable = True
            await asyncio.sleep(4 * RESYNC_S)
            assert watched(world) == both
            world.platform.unreachable = False
            world.platform.cut_short = True
            await asyncio.sleep(4 * RESYNC_S)
            assert watched(world) == both
            world.platform.cut_short = False
            world.platform.projects.clear()
            await asyncio.sleep(4 * RESYNC_S)
            assert watched(world) == both

    simulate(scenario)


def test_a_namespace_without_rights_costs_only_itself_and_is_noticed_when_it_gets_them() -> None:
    async def scenario(world: World) -> None:
        world.add_project("team-b")
        world.add_project("team-c")
        kube = limit(world, "team-b")
        world.add("2Aa")
        world.add("2Ab", project="team-b")
        world.add("2Ac", project="team-c")
        async with running(world):
            await settled(world)
            assert world.controller.health.readiness_problem() == ""
            await refreshed(world, "2Ac", "team-c", within_s=5)
            await asyncio.sleep(3600)
            assert world.controller.health.liveness_problem() == ""
            assert len(world.events("list_forbidden")) == 2  # pods and Secrets, once each
            assert len(kube.refused) < 2 * 3600 / 30 + 2
            kube.denied.clear()
            await refreshed(world, "2Ab", "team-b", within_s=70)

    simulate(scenario)


def test_a_new_namespace_whose_rights_come_later_is_tried_often_at_first() -> None:
    async def scenario(world: World) -> None:
        kube = limit(world, "team-new")
        async with running(world):
            await settled(world)
            world.add_project("team-new")
            world.add("2Anew", project="team-new")
            await asyncio.sleep(60)
            assert world.controller.health.readiness_problem() == ""
            kube.denied.clear()
            await refreshed(world, "2Anew", "team-new", within_s=7)

    simulate(scenario)


def test_rights_that_are_removed_for_long_do_not_look_like_a_stalled_stream() -> None:
    async def scenario(world: World) -> None:
        kube = limit(world)
        world.add_project("team-b")
        async with running(world):
            await settled(world)
            kube.denied.add("team-b")
            world.faults.drop_watches()
            await asyncio.sleep(3000)
            assert world.controller.health.liveness_problem() == ""

    simulate(scenario)


def test_without_a_name_the_start_waits_for_the_platform_and_writes_nothing() -> None:
    async def scenario(world: World) -> None:
        world.platform.unreachable = True
        world.add("2Aa")
        async with running(world):
            await asyncio.sleep(600)
            assert (
                world.controller.health.readiness_problem()
                == "waiting for the platform to name a project"
            )
            assert world.controller.health.liveness_problem() == ""
            assert world.commits[-1].caller != virtual.US
            world.platform.unreachable = False
            await refreshed(world, "2Aa", PROJECT, within_s=10)
            assert world.controller.health.readiness_problem() == ""

    simulate(scenario)


def test_a_platform_that_names_no_project_at_all_is_asked_again_soon() -> None:
    async def scenario(world: World) -> None:
        world.platform.projects.clear()
        async with running(world):
            await asyncio.sleep(60)
            assert world.controller.health.readiness_problem()
            assert len(world.events("no_namespaces_discovered")) == 1
            world.platform.projects.append(PROJECT)
            world.add("2Aa")
            await refreshed(world, "2Aa", PROJECT, within_s=7)

    simulate(scenario)


def test_static_names_are_served_by_confirmations_while_the_platform_is_unreachable() -> None:
    async def scenario(world: World) -> None:
        world.add_project("team-b")
        world.add("2Aa")
        world.add("2Ab", project="team-b")
        async with running(world):
            await settled(world)
        world.platform.unreachable = True
        world.fence.term = "replica-0/2"
        world.controller = Controller(world.ports, world.endpoints, world.config)
        await asyncio.sleep(700)
        before = len(world.issuer.minted)
        async with running(world):
            async with asyncio.timeout(20):
                while world.token("2Aa") not in world.issuer.minted[before:]:
                    await asyncio.sleep(0.5)
            assert world.controller.health.readiness_problem() == ""
            assert watched(world) == {PROJECT}
            world.platform.unreachable = False
            async with asyncio.timeout(35):
                while world.token("2Ab", "team-b") not in world.issuer.minted[before:]:
                    await asyncio.sleep(0.5)
            world.platform.projects.remove(PROJECT)
            world.delete_pod("2Aa")
            await asyncio.sleep(3 * RESYNC_S)
            assert PROJECT in watched(world)

    simulate(scenario, namespaces=(PROJECT,))


def test_static_names_do_not_wait_for_a_platform_that_hangs() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")

        async def hangs() -> Any:
            await asyncio.Event().wait()

        world.platform.list_projects = hangs  # type: ignore[method-assign]
        async with running(world), asyncio.timeout(30):
            while world.controller.health.readiness_problem():
                await asyncio.sleep(0.5)
        assert watched(world) == {PROJECT}

    simulate(scenario, namespaces=(PROJECT,))


def test_a_session_that_is_looked_up_brings_its_namespace_at_once() -> None:
    async def scenario(world: World) -> None:
        async with running(world):
            await settled(world)
            await asyncio.sleep(1)
            world.add_project("team-new")
            world.add("2Anew", project="team-new")
            world.add_pod("2Anew", name="elsewhere")  # a pod of that session, in another namespace
            await refreshed(world, "2Anew", "team-new", within_s=3)
            await asyncio.sleep(10)
        [denied] = world.events("session_not_confirmed")
        assert denied["namespace"] == PROJECT
        assert denied["reason"] == "the platform has it in namespace team-new"

    virtual.simulate(scenario, finds_namespaces=True, resync_s=RESYNC_S)


def test_a_session_without_a_project_brings_the_namespace_that_it_names() -> None:
    async def scenario(world: World) -> None:
        world.add_project("lonely")
        world.platform.projects.remove("lonely")
        world.platform.sessions["2Lone"] = PlatformSession(
            id="2Lone", phase="Running", kube_namespace="lonely"
        )
        world.platform.sessions["2Odd"] = PlatformSession(
            id="2Odd", phase="Running", kube_namespace="no/namespace"
        )
        async with running(world):
            await settled(world)
            await asyncio.sleep(1)
            assert watched(world) == {PROJECT}  # its project's list does not name them
            world.platform.cut_short = True  # then one list covers all
            await asyncio.sleep(RESYNC_S + 10)
            assert watched(world) == {PROJECT, "lonely"}

    simulate(scenario)


def test_an_invalid_project_is_logged_once_and_the_limit_holds() -> None:
    async def scenario(world: World) -> None:
        world.platform.projects += ["a" * 70, *(f"p{number}" for number in range(10))]
        async with running(world):
            await settled(world)
            assert len(watched(world)) == 4
            await asyncio.sleep(300)
            assert [line["count"] for line in world.events("namespace_limit_exceeded")] == [7]
            assert len(world.events("project_invalid")) == 1

    simulate(scenario, max_namespaces=4)


def test_projects_with_running_sessions_come_before_empty_ones_at_the_limit() -> None:
    async def scenario(world: World) -> None:
        for number in range(10):
            world.add_project(f"p{number}")
        world.add("2Alate", project="p9")
        world.add("2Amid", project="p5")
        async with running(world):
            await refreshed(world, "2Alate", "p9", within_s=10)
            await refreshed(world, "2Amid", "p5", within_s=1)
            assert watched(world) == {"p9", "p5", PROJECT}

    simulate(scenario, max_namespaces=3)


def test_a_session_beyond_the_limit_replaces_an_empty_namespace() -> None:
    async def scenario(world: World) -> None:
        for number in range(10):
            world.add_project(f"p{number}")
        world.add("2Afirst")
        async with running(world):
            await settled(world)
            assert watched(world) == {PROJECT, "p0", "p1"}
            world.add("2Alate", project="p9")
            await refreshed(world, "2Alate", "p9", within_s=RESYNC_S + 30)
            assert PROJECT in watched(world)
            assert len(watched(world)) == 3
            world.add("2Blate", project="p8")
            await refreshed(world, "2Blate", "p8", within_s=RESYNC_S + 30)
            world.add("2Clate", project="p7")
            before = watched(world)
            await asyncio.sleep(3 * RESYNC_S)
            assert watched(world) == before == {PROJECT, "p9", "p8"}

    simulate(scenario, max_namespaces=3)


def test_a_standby_knows_which_projects_have_running_sessions() -> None:
    async def scenario(world: World) -> None:
        switch = Switch()
        world.controller = Controller(
            replace(world.ports, leadership=switch), world.endpoints, world.config
        )
        for number in range(10):
            world.add_project(f"p{number}")
        world.add("2Alate", project="p9")
        async with running(world):
            await asyncio.sleep(10)
            assert "p9" in watched(world)
            world.add("2Bmid", project="p5")
            await asyncio.sleep(RESYNC_S + 60)
            assert {"p9", "p5"} <= watched(world)
            switch.began.set()
            await refreshed(world, "2Alate", "p9", within_s=2)
            await refreshed(world, "2Bmid", "p5", within_s=2)

    simulate(scenario, max_namespaces=3)


def test_a_platform_without_a_list_of_sessions_delays_a_start_for_seconds() -> None:
    async def scenario(world: World) -> None:
        for number in range(10):
            world.add_project(f"p{number}")
        world.add("2Afirst")

        async def hangs(project: str | None, on_page: OnPage = ignore_page) -> Any:
            await asyncio.Event().wait()

        world.platform.list_running = hangs  # type: ignore[method-assign]
        async with running(world):
            await asyncio.sleep(OCCUPIED_TIMEOUT_S + 1)
            assert watched(world) == {PROJECT, "p0", "p1"}
            assert len(world.events("occupied_namespaces_unknown")) == 1

    simulate(scenario, max_namespaces=3)


def test_a_pod_of_a_late_namespace_has_no_secret_only_if_it_has_none() -> None:
    async def scenario(world: World) -> None:
        async with running(world):
            await settled(world)
            world.add_project("team-new")
            world.add("2Anew", project="team-new")
            world.core.delete(
                SECRETS,
                "team-new",
                virtual.NAMES.secret_name("2Anew"),
                AT_ONCE,
                by=virtual.INTRUDER,
            )
            async with asyncio.timeout(60):
                while not world.events("secret_recreated"):
                    await asyncio.sleep(0.5)
            [pod] = [c for c in world.pod_writes() if c.kind is PODS][:1]
            assert pod.object["metadata"]["namespace"] == "team-new"

    simulate(scenario)
