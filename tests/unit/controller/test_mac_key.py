"""A client secret that is rotated in its file: confirmations are rewritten before a restart."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from reconciler.clock import Instant
from reconciler.controller.compose import connect
from reconciler.controller.controller import Controller
from reconciler.controller.decide.confirmation_mac import PREVIOUS_KEY_S, ConfirmationMac
from reconciler.controller.decide.refresh_plan import Confirmation
from reconciler.controller.state.confirmations import REWRITE_S
from reconciler.controller.state.mac_key import INTERVAL_S, MacKeyFile
from reconciler.errors import Invalid, SettingsError
from reconciler.lab.apiserver.kinds import SECRETS
from reconciler.lab.apiserver.write_log import Commit
from reconciler.leadership.api import Leadership, LeadershipState
from reconciler.naming import SessionKey
from tests.unit.controller.build import KEY, is_confirmed
from tests.unit.controller.virtual import (
    INTRUDER,
    NAMES,
    PLATFORM,
    PROJECT,
    US,
    SwitchFence,
    World,
    finished,
    running,
    simulate,
)

FIRST, SECOND = "obviously-fake-secret-1", "obviously-fake-secret-2"
SESSIONS = 60
LONG_TTL_S = 86_400
"""No token of such a life is refreshed in the hour of a test: only confirmations are written."""


class Replica:
    """A controller that watches a secret in a separate file, and leads from the start."""

    def __init__(
        self,
        world: World,
        secret: str,
        name: str = "replica-0/1",
        *,
        leadership: Leadership | None = None,
    ) -> None:
        self.holds: str | None = secret
        self.fence = SwitchFence()
        self.fence.term = name
        ports = replace(
            world.ports,
            secret=secret,
            reread_secret=self._read,
            fence=self.fence,
            leadership=leadership or world.ports.leadership,
        )
        endpoints = connect(ports)
        self.seal = endpoints.confirmation_mac
        self.controller = Controller(ports, endpoints, world.config)

    def _read(self) -> str:
        if self.holds is None:
            raise SettingsError("the file is not there")
        return self.holds


@asynccontextmanager
async def leading(world: World, replica: Replica, times: int) -> AsyncIterator[None]:
    async with running(world, replica.controller):
        await finished(world, times)
        yield


def populate(world: World) -> None:
    world.issuer.ttl_s = LONG_TTL_S
    for number in range(SESSIONS):
        world.add(f"2Ab{number}")


def seals_alone(world: World, since: int) -> list[Commit]:
    """Return the writes of ours, from a number on, that changed a confirmation and no token."""
    last: dict[str, Any] = {}
    found = []
    for index, commit in enumerate(world.secret_writes()):
        name = commit.object["metadata"]["name"]
        before, last[name] = last.get(name), commit.object
        if index >= since and before is not None and before["data"] == commit.object["data"]:
            found.append(commit)
    return found


def names(commits: list[Commit]) -> Counter[str]:
    return Counter(commit.object["metadata"]["name"] for commit in commits)


def test_a_restart_after_a_rotation_refreshes_every_session_without_the_platform() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        first = Replica(world, FIRST)
        async with leading(world, first, 1):
            written = len(world.secret_writes())
            first.holds = SECOND
            began_at = world.clock.monotonic()
            await asyncio.sleep(REWRITE_S + 3 * INTERVAL_S)
            world.platform.unreachable = True
            await asyncio.sleep(3600)
            seals = seals_alone(world, written)
            assert len(world.secret_writes()) - written == len(seals) == SESSIONS
            assert set(names(seals).values()) == {1}
            per_tenth = Counter(int((c.at - began_at) // (REWRITE_S / 10)) for c in seals)
            assert max(per_tenth.values()) < SESSIONS / 3
        written = len(world.secret_writes())
        again = Replica(world, SECOND, "replica-0/2")
        async with leading(world, again, 2):
            refreshed = world.secret_writes()[written:]
            assert len({c.object["metadata"]["name"] for c in refreshed}) == SESSIONS
            assert world.platform.lookups == 0

    simulate(scenario)


def test_scheduled_refreshes_write_the_new_confirmation_and_no_other_write_does() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        world.issuer.ttl_s = 200
        replica = Replica(world, FIRST)
        async with leading(world, replica, 1):
            replica.holds = SECOND
            written = len(world.secret_writes())
            await asyncio.sleep(REWRITE_S + 100)
            alone = names(seals_alone(world, written))
            assert max(alone.values(), default=0) <= 1
            assert len(alone) < SESSIONS
            for secret in replica.controller.secrets.snapshot():
                key = SessionKey(secret.namespace, secret.session_id)
                found = secret.annotations.confirmation or ""
                assert is_confirmed(ConfirmationMac(SECOND), found, key, secret.uid)

    simulate(scenario)


def test_a_confirmation_by_a_leaked_previous_secret_is_accepted_for_a_limited_time() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        replica = Replica(world, FIRST)
        async with leading(world, replica, 1):
            replica.holds = SECOND
            await asyncio.sleep(PREVIOUS_KEY_S + 3 * INTERVAL_S)
            world.platform.unreachable = True
            world.add("2Forged", known=False)
            forged = world.secret("2Forged")["metadata"]
            key = SessionKey(PROJECT, "2Forged")
            proof = {NAMES.confirmation: ConfirmationMac(FIRST).make(key, forged["uid"])}
            world.core.patch(
                SECRETS, PROJECT, forged["name"], {"metadata": {"annotations": proof}}, by=PLATFORM
            )
            written = len(world.secret_writes())
            await asyncio.sleep(1800)
            assert world.secret_writes()[written:] == []
            secret = replica.controller.secrets.get(PROJECT, forged["name"])
            confirmation = replica.controller.confirmations.confirmation(key, None, secret)
            assert confirmation is not Confirmation.YES

    simulate(scenario)


def test_a_standby_writes_no_confirmation_and_the_next_leader_writes_each_once() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        leader = Replica(world, FIRST)
        async with leading(world, leader, 1):
            pass
        office = LeadershipState(_release_nothing)
        follower = Replica(world, FIRST, "replica-1/1", leadership=office)
        follower.fence.is_open = False
        async with running(world, follower.controller):
            await asyncio.sleep(60)
            written = len(world.secret_writes())
            follower.holds = SECOND
            world.platform.unreachable = True
            await asyncio.sleep(REWRITE_S + 3 * INTERVAL_S)
            assert world.secret_writes()[written:] == []
            follower.fence.is_open = True
            office.started("")
            await finished(world, 2)
            since = [c.object["metadata"]["name"] for c in world.secret_writes()[written:]]
            assert Counter(since) == dict.fromkeys(set(since), 1)
            assert len(since) == SESSIONS

    simulate(scenario)


@pytest.mark.parametrize("every_s", [0.0, 1.0])
def test_a_previous_confirmation_that_is_restored_each_time_is_rewritten_rarely(
    every_s: float,
) -> None:
    async def scenario(world: World) -> None:
        populate(world)
        name = NAMES.secret_name("2Ab0")
        async with leading(world, first := Replica(world, FIRST), 1):
            former = world.secret("2Ab0")["metadata"]["annotations"][NAMES.confirmation]
            back = {"metadata": {"annotations": {NAMES.confirmation: former}}}
            first.holds = SECOND
            await asyncio.sleep(REWRITE_S + 3 * INTERVAL_S)

            def put_back() -> None:
                world.core.patch(SECRETS, PROJECT, name, back, by=INTRUDER)

            def answer(commit: Commit) -> None:
                if commit.caller == US and commit.object["metadata"]["name"] == name:
                    asyncio.get_running_loop().call_soon(put_back)

            written = len(world.secret_writes())
            if not every_s:
                world.core.on_commit.append(answer)
            put_back()
            for _ in range(600):
                await asyncio.sleep(1.0)
                if every_s:
                    put_back()
                assert len(world.secret_writes()) - written <= 1 + PREVIOUS_KEY_S / REWRITE_S
            assert len(world.secret_writes()) - written >= 1

    simulate(scenario)


@pytest.mark.parametrize("every_s", [20.0, 200.0])
def test_a_secret_that_changes_several_times_leaves_no_confirmation_by_a_previous_one(
    every_s: float,
) -> None:
    async def scenario(world: World) -> None:
        populate(world)
        async with leading(world, replica := Replica(world, FIRST), 1):
            for number in range(2, 6):
                replica.holds = f"obviously-fake-secret-{number}"
                await asyncio.sleep(every_s)
            await asyncio.sleep(REWRITE_S + 3 * INTERVAL_S)
            last = ConfirmationMac("obviously-fake-secret-5")
            for number in range(SESSIONS):
                metadata = world.secret(f"2Ab{number}")["metadata"]
                seal = metadata["annotations"][NAMES.confirmation]
                assert is_confirmed(
                    last, seal, SessionKey(PROJECT, f"2Ab{number}"), metadata["uid"]
                )

    simulate(scenario)


def test_a_verified_confirmation_ends_with_its_key() -> None:
    async def scenario(world: World) -> None:
        populate(world)
        replica = Replica(world, FIRST)
        directory, planner = replica.controller.confirmations, replica.controller.sessions
        key = SessionKey(PROJECT, "2Ab0")
        async with leading(world, replica, 1):
            body = {"metadata": {"annotations": {NAMES.paused: "true"}}}
            world.core.patch(SECRETS, PROJECT, NAMES.secret_name("2Ab0"), body, by=INTRUDER)
            await asyncio.sleep(1)
            _, secret = planner.objects(key)
            directory.begin_term()  # only the confirmation on the Secret is left
            assert directory.was_confirmed(key, None, secret)
            replica.holds = SECOND
            await asyncio.sleep(PREVIOUS_KEY_S - INTERVAL_S)
            assert directory.was_confirmed(key, None, secret)
            await asyncio.sleep(6 * INTERVAL_S)
            directory.begin_term()
            assert not directory.was_confirmed(key, None, secret)

    simulate(scenario)


async def _release_nothing() -> None:
    """Nothing waits for this one to release."""


def test_a_file_that_is_half_written_or_missing_changes_nothing() -> None:
    holds: list[str | None] = [FIRST]

    def read() -> str:
        if holds[0] is None:
            raise SettingsError("the file is not there")
        return holds[0]

    seal = ConfirmationMac(FIRST)
    key = MacKeyFile(read, FIRST, seal)
    made = seal.make(KEY, "uid-1")
    with capture_logs() as lines:
        for value in ("o", "obviously", None, None, SECOND, FIRST, FIRST, SECOND):
            holds[0] = value
            assert not key.reload_once()
        assert seal.make(KEY, "uid-1") == made
        assert key.reload_once()
    assert seal.make(KEY, "uid-1") == ConfirmationMac(SECOND).make(KEY, "uid-1")
    assert [line["event"] for line in lines] == ["rotated_file_kept", "confirmation_key_changed"]


@pytest.mark.parametrize(
    ("after_s", "is_valid"), [(PREVIOUS_KEY_S - 1, True), (PREVIOUS_KEY_S, False)]
)
def test_a_previous_key_ends(after_s: float, *, is_valid: bool) -> None:
    now = [1000.0]
    seal = ConfirmationMac(FIRST, lambda: Instant(now[0]))
    made = seal.make(KEY, "uid-1")
    seal.set_key(SECOND)
    seal.set_key(SECOND)
    now[0] += after_s
    assert is_confirmed(seal, made, KEY, "uid-1") == is_valid
    now[0] = 1000.0
    assert is_confirmed(seal, made, KEY, "uid-1") == is_valid
    assert is_confirmed(seal, seal.make(KEY, "uid-1"), KEY, "uid-1")


class RefusesSeals:
    """A way to the API server where patches of a confirmation alone are refused."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def patch(self, resource: Any, namespace: str, name: str, body: Any, **more: Any) -> Any:
        if resource.plural == "secrets" and "data" not in body:
            self.refused += 1
            raise Invalid("no annotation without a token", status=422)
        return await self._inner.patch(resource, namespace, name, body, **more)


@pytest.mark.parametrize("ttl_s", [300, 600])
def test_a_confirmation_that_is_refused_costs_no_token(ttl_s: int) -> None:
    async def scenario(world: World) -> None:
        populate(world)
        world.issuer.ttl_s = ttl_s
        kube: Any = RefusesSeals(world.ports.kube)
        world.ports = replace(world.ports, kube=kube)
        async with leading(world, replica := Replica(world, FIRST), 1):
            await asyncio.sleep(2 * ttl_s)

            replica.holds = SECOND
            for _ in range(900):
                await asyncio.sleep(1.0)
                least_s = min(world.remaining_s(f"2Ab{number}") for number in range(SESSIONS))
                assert least_s >= 0.49 * ttl_s  # as if nothing were refused
            assert kube.refused

    simulate(scenario)
