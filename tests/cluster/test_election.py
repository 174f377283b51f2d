"""Leader election on the real API server: its thread, permissions, and stalls of the main loop."""

import asyncio
import ctypes
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler.app.election import Election
from reconciler.clock import SystemClock, parse_utc
from reconciler.errors import NotLeaderError
from reconciler.kube.auth.credentials import find_credentials
from reconciler.kube.client import HttpKube
from reconciler.kube.decoding import metadata_resource
from reconciler.leadership.api import LeadershipState
from reconciler.leadership.lease import Identity
from reconciler.settings import Settings, load_settings
from tests.cluster.admin import Admin, Json, rule
from tests.cluster.controlplane import ControlPlane
from tests.cluster.deeds import LEASES_GROUP, leases
from tests.cluster.installed import ACCOUNT, LEASE_RIGHTS, account_file, install
from tests.cluster.world import NAMES, open_world
from tests.controller import running
from tests.unit.leadership.electors import Ready

pytestmark = pytest.mark.timeout(120)

LEASE = "token-reconciler"
OF_THE_LEASE = ("base/serviceaccount.yaml", LEASE_RIGHTS)
LEASE_S = 4
LIMIT_S = 30.0
SHORT_LEASE = {
    "RECONCILER_LEASE_DURATION_S": str(LEASE_S),
    "RECONCILER_RENEW_DEADLINE_S": "3",
    "RECONCILER_RETRY_PERIOD_S": "0.5",
    "RECONCILER_REQUEST_LIMIT_S": "3",
}
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def _ignore(_namespace: str, _why: str) -> None:
    """Ignore that the Lease is of an earlier history."""


class Place:
    """A namespace with its Lease, and the settings of the candidates there."""

    def __init__(
        self,
        control_plane: ControlPlane,
        admin: Admin,
        namespace: str,
        folder: Path,
        patch: pytest.MonkeyPatch,
        token: str,
    ) -> None:
        self.token = token
        """Settings of the account of the manifests in this namespace."""
        self.admin = admin
        self.namespace = namespace
        self._control_plane = control_plane
        self._folder = folder
        self._patch = patch

    def settings(self, *, user: str = ACCOUNT, **environment: str) -> Settings:
        path = self._folder / user
        if user == ACCOUNT:
            kubeconfig = account_file(self._control_plane, self.token, path)
        else:
            kubeconfig = self._control_plane.kubeconfig(path, user=user)
        whole: Mapping[str, str] = {
            "KUBECONFIG": str(kubeconfig),
            "AMBIENT_API_TOKEN": "obviously-fake-static-token",
            "NAMESPACE": self.namespace,
            **SHORT_LEASE,
            **environment,
        }
        with self._patch.context() as patch:
            for name, value in whole.items():
                patch.setenv(name, value)
            return load_settings()

    @asynccontextmanager
    async def contender(self, name: str, *, user: str = ACCOUNT) -> AsyncIterator[Election]:
        """Run an election in this process, on a separate thread, until the block ends."""
        me = Identity(name, f"pod-of-{name}", secrets.token_hex(4))
        election = Election(self.settings(user=user), me, SystemClock(), asyncio.new_event_loop)
        async with (
            election.contend(Ready(), lambda namespace, why: None),
            asyncio.TaskGroup() as group,
        ):
            tasks = [group.create_task(part()) for part in election.background_tasks]
            try:
                yield election
            finally:
                for task in tasks:
                    task.cancel()

    async def lease(self, accept: str = "application/json") -> Json:
        path = leases(self.namespace, LEASE)
        return await self.admin.expect("GET", path, accept=accept)

    async def spec(self) -> Json:
        found: Json = (await self.lease())["spec"]
        return found


@pytest.fixture
async def place(
    control_plane: ControlPlane,
    admin: Admin,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    token = await install(admin, control_plane, namespace, files=OF_THE_LEASE)
    return Place(control_plane, admin, namespace, tmp_path, monkeypatch, token)


async def began(election: Election) -> None:
    async with asyncio.timeout(LIMIT_S):
        await election.leadership.wait_started()


async def ended(election: Election) -> None:
    async with asyncio.timeout(LIMIT_S):
        await election.leadership.wait_stopped()


def leads(election: Election) -> bool:
    assert isinstance(election.leadership, LeadershipState)
    return election.leadership.leads


def refuses(election: Election) -> bool:
    try:
        election.fence.check()
    except NotLeaderError:
        return True
    return False


class TestLease:
    async def test_others_can_read_it(self, place: Place) -> None:
        async with place.contender("first") as first:
            await began(first)
            lease = await place.lease()
            table = await place.lease(accept=TABLE)
        holder = lease["spec"]["holderIdentity"]
        assert holder.startswith("first_pod-of-first_")
        assert lease["spec"] == {
            "holderIdentity": holder,
            "leaseDurationSeconds": LEASE_S,
            "leaseTransitions": 0,
            "acquireTime": lease["spec"]["acquireTime"],
            "renewTime": lease["spec"]["renewTime"],
        }
        for name in ("acquireTime", "renewTime"):
            text = lease["spec"][name]
            assert len(text) == len("2026-01-01T00:00:00.000000Z")
            assert parse_utc(text) is not None
        assert {entry["manager"] for entry in lease["metadata"]["managedFields"]} == {
            NAMES.field_manager
        }
        [row] = table["rows"]
        assert row["cells"][:2] == [LEASE, holder]

    async def test_it_is_handed_over_by_a_leader_that_resigns(self, place: Place) -> None:
        async with place.contender("first") as first:
            await began(first)
            before = await place.spec()
            async with place.contender("second") as second:
                await first.leadership.release()
                assert refuses(first)
                await began(second)
                assert not refuses(second)
                after = await place.spec()
        assert after["holderIdentity"].startswith("second_")
        assert after["leaseTransitions"] == before["leaseTransitions"] + 1
        assert after["leaseDurationSeconds"] == LEASE_S
        # The second one was ended without a word: its Lease runs out.
        assert (await place.spec())["holderIdentity"] == after["holderIdentity"]

    async def test_its_last_holder_leaves_it_in_client_gos_released_form(
        self, place: Place
    ) -> None:
        async with place.contender("first") as first:
            await began(first)
            await first.leadership.release()
            spec = await place.spec()
        assert (spec.get("holderIdentity", ""), spec["leaseDurationSeconds"]) == ("", 1)
        async with place.contender("next") as following:
            await began(following)
            assert (await place.spec())["leaseTransitions"] == 1


class TestStalls:
    async def test_a_blocked_main_loop_keeps_the_lease(self, place: Place) -> None:
        async with place.contender("first") as first:
            await began(first)
            before = await place.spec()
            async with place.contender("second") as second:
                time.sleep(LEASE_S + 1.5)  # noqa: ASYNC251 - the stall that is tested
                assert not refuses(first)
                assert not leads(second)
                after = await place.spec()
        assert after["holderIdentity"] == before["holderIdentity"]
        assert after["leaseTransitions"] == before["leaseTransitions"]
        assert after["renewTime"] > before["renewTime"]

    async def test_a_stall_that_holds_the_interpreters_lock_writes_nothing_afterwards(
        self, control_plane: ControlPlane, place: Place, tmp_path: Path
    ) -> None:
        async with open_world(control_plane, place.admin, tmp_path) as world:
            project = await world.add_project()
            runner = await world.add(project)
            place.namespace, place.token = world.home, world.account_token
            settings = place.settings()
            names = settings.names()
            kube = HttpKube(
                find_credentials(settings.kubeconfig, SystemClock()), names, connections=2
            )
            rival_settings = world.environment(RECONCILER_REPLICA="rival", **SHORT_LEASE)
            async with place.contender("first") as first, kube, running(rival_settings) as rival:
                await began(first)
                await rival.wait_for_event("leader_observed")
                await rival.wait_for_event("stores_synced")
                assert first.fence.may_write(1.0)
                # So long that the rival leads when it ends, on a busy machine, too.
                hold_the_interpreters_lock(3 * LEASE_S)
                assert refuses(first)
                assert not first.fence.may_write(0.0)
                with pytest.raises(NotLeaderError):
                    await kube.patch(
                        metadata_resource("secrets", names),
                        project,
                        runner.secret,
                        {"metadata": {"annotations": {"late": "write"}}},
                        permit=first.fence.check,
                    )
                await ended(first)
                await rival.wait_for_event("lease_acquired")
                await rival.wait_for_event("startup_resync_finished")
                assert (await place.spec())["holderIdentity"].startswith("rival_")
                assert not rival.events("lease_lost")
            secret = await world.secret(runner)
        assert "late" not in secret["metadata"]["annotations"]
        assert secret["metadata"]["annotations"][NAMES.refreshed_by].startswith("rival/")


def hold_the_interpreters_lock(seconds: int) -> None:
    """Sleep in C with the interpreter lock held, so that the elector's thread stops, too."""
    ctypes.PyDLL(None).sleep(seconds)


class TestRights:
    @staticmethod
    def needed() -> list[dict[str, Any]]:
        """Permissions of an elector; RBAC cannot name an object for its creation."""
        named = rule("leases", "list", "watch", "patch", group=LEASES_GROUP)
        return [rule("leases", "create", group=LEASES_GROUP), named | {"resourceNames": [LEASE]}]

    async def test_create_and_the_one_name_are_enough(self, place: Place) -> None:
        await place.admin.grant("reconciler", self.needed(), namespace=place.namespace)
        with capture_logs() as lines:
            async with place.contender("first", user="reconciler") as first:
                await began(first)
                before = await place.spec()
                async with place.contender("second", user="reconciler") as second:
                    async with asyncio.timeout(LIMIT_S):
                        while (await place.spec())["renewTime"] == before["renewTime"]:
                            await asyncio.sleep(0.05)
                    await first.leadership.release()
                    await began(second)
                    await second.leadership.release()
        assert not [line for line in lines if line["log_level"] == "warning"]

    @pytest.mark.parametrize("missing", ["all", "create", "the name"])
    async def test_a_right_that_is_missing_is_one_line_and_heals_when_it_is_granted(
        self, place: Place, missing: str
    ) -> None:
        create, named = self.needed()
        first_rights = {"all": [], "create": [named], "the name": [create]}[missing]
        await place.admin.grant("rival", first_rights, namespace=place.namespace)
        with capture_logs() as lines:
            async with place.contender("first", user="rival") as first:
                await has(lines, "lease_refused")
                assert refuses(first)
                await place.admin.grant("rival", [create, named], namespace=place.namespace)
                await began(first)
                assert not refuses(first)
                await has(lines, "lease_recovered")
                await first.leadership.release()
        [refusal] = events(lines, "lease_refused")
        assert f"{LEASE} in namespace {place.namespace}" in refusal["needs"]
        assert "403" in refusal["error"]

    async def test_a_right_that_is_removed_ends_the_tenure_and_comes_back(
        self, place: Place
    ) -> None:
        await place.admin.grant("platform", self.needed(), namespace=place.namespace)
        with capture_logs() as lines:
            async with place.contender("first", user="platform") as first:
                await began(first)
                await place.admin.grant("platform", [], namespace=place.namespace)
                await ended(first)
                assert refuses(first)
                await place.admin.grant("platform", self.needed(), namespace=place.namespace)
                await began(first)
                await first.leadership.release()
        assert len(events(lines, "lease_refused")) == 1
        [lost] = events(lines, "lease_lost")
        assert lost["reason"].startswith("not renewed for ")


def events(lines: list[Any], name: str) -> list[Any]:
    return [line for line in lines if line["event"] == name]


async def has(lines: list[Any], name: str, *, count: int = 1) -> None:
    """Wait until the log holds so many lines of an event."""
    async with asyncio.timeout(LIMIT_S):
        while len(events(lines, name)) < count:
            await asyncio.sleep(0.02)
