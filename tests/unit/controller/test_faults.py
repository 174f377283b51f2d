"""Each fault of the design as a scenario: the whole controller, minutes of virtual time."""

import asyncio
import dataclasses
from collections import Counter
from contextlib import suppress

import pytest
from msgspec.structs import replace

from reconciler.controller.controller import Controller
from reconciler.controller.decide.refresh_plan import SessionState
from reconciler.errors import Conflict, Forbidden, PlatformError, ServerError, TransportError
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.kinds import PODS, SECRETS, Kind
from reconciler.lab.apiserver.write_log import Commit
from reconciler.naming import SessionKey
from reconciler.platform.api import OnPage
from reconciler.platform.models import PlatformSession
from reconciler.platform.pagination import ListResult, ignore_page
from tests.unit.controller.virtual import (
    INTRUDER,
    NAMES,
    PROJECT,
    US,
    SwitchFence,
    World,
    running,
    simulate,
)


async def settled(world: World) -> None:
    async with asyncio.timeout(60):
        while not world.events("startup_resync_finished"):
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)  # the second touch


def asked_of(world: World) -> Counter[str]:
    """Count the requests to the API server from now on, as `verb plural`."""
    asked: Counter[str] = Counter()

    def judge(verb: str, plural: str) -> InjectedFault | None:
        asked[f"{verb} {plural}"] += 1
        return None

    world.faults.rule = judge
    return asked


def successor(world: World) -> Controller:
    """Return another replica of the same world, with another term."""
    fence = SwitchFence()
    fence.term = "replica-1/1"
    endpoints = replace(world.endpoints, background_tasks=())
    return Controller(replace(world.ports, fence=fence), endpoints, world.config)


def test_an_hour_without_faults_leaves_no_expired_token_and_writes_as_scheduled() -> None:
    async def scenario(world: World) -> None:
        for number in range(20):
            world.add(f"2Ab{number}")
        async with running(world):
            await settled(world)
            before = len(world.secret_writes())
            for _ in range(360):
                await asyncio.sleep(10)
                assert min(world.remaining_s(f"2Ab{n}") for n in range(20)) > 0.4 * 900 - 10
        writes = len(world.secret_writes()) - before
        assert writes == pytest.approx(20 * 3600 / 360, rel=0.1)
        # Untouched pods: no token came near its end after the first.
        assert len(world.pod_writes()) == 2 * 20

    simulate(scenario)


def test_an_issuer_outage_within_the_slack_costs_nothing_with_a_standby_token() -> None:
    async def scenario(world: World) -> None:
        for number in range(5):
            world.add(f"2Ab{number}")
        async with running(world):
            await settled(world)
            await asyncio.sleep(1000)
            world.issuer.unreachable = True
            for _ in range(70):
                await asyncio.sleep(10)  # 700 s: less than 0.9 of a life minus the allowance
                assert min(world.remaining_s(f"2Ab{n}") for n in range(5)) > 90
            asked = world.issuer.requests
            world.issuer.unreachable = False
            await asyncio.sleep(30)
            assert min(world.remaining_s(f"2Ab{n}") for n in range(5)) > 0.7 * 900
            assert world.issuer.requests - asked < 5
        assert world.events("endpoint_recovered")

    simulate(scenario)


def test_an_api_outage_sends_no_write_and_ends_with_one_per_secret() -> None:
    asked: list[str] = []

    def unreachable(verb: str, _plural: str) -> InjectedFault:
        asked.append(verb)
        return InjectedFault(TransportError("no route"))

    async def scenario(world: World) -> None:
        for number in range(10):
            world.add(f"2Ab{number}")
        async with running(world):
            await settled(world)
            await asyncio.sleep(400)
            world.faults.rule = unreachable
            world.faults.drop_watches()
            await asyncio.sleep(300)
            assert asked
            assert "patch" not in asked
            before = len(world.secret_writes())
            world.faults.rule = None
            await asyncio.sleep(20)
            written = [
                commit.object["metadata"]["name"] for commit in world.secret_writes()[before:]
            ]
            assert len(written) == len(set(written))
            assert min(world.remaining_s(f"2Ab{n}") for n in range(10)) > 300

    simulate(scenario)


@pytest.mark.parametrize(
    "error",
    [Conflict("stale", status=409), ServerError("oops", status=500), TransportError("reset")],
    ids=["409", "500", "reset"],
)
def test_a_write_that_fails_once_is_repeated_within_seconds(error: Exception) -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        world.faults.fail_next(InjectedFault(error), verb="patch", resource="secrets")  # type: ignore[arg-type]  # a KubeError
        async with running(world):
            async with asyncio.timeout(10):
                while world.token("2Ab0") not in world.issuer.minted:
                    await asyncio.sleep(0.1)

    simulate(scenario)


def test_a_write_with_a_lost_response_is_not_repeated_without_need() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        lost = InjectedFault(TransportError("reset"), applied=True)
        world.faults.fail_next(lost, verb="patch", resource="secrets")
        async with running(world):
            await settled(world)
        assert len(world.secret_writes()) == 1

    simulate(scenario)


def test_a_deleted_secret_comes_back_confirmed_and_owned() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
            world.delete_secret("2Ab0")
            await asyncio.sleep(5)
            metadata = world.secret("2Ab0")["metadata"]
            assert metadata["ownerReferences"][0]["kind"] == "Pod"
            assert metadata["annotations"][NAMES.confirmation].startswith("v1.")
            assert world.remaining_s("2Ab0") > 700

    simulate(scenario)


def test_a_secret_that_lost_its_labels_is_reported_and_not_overwritten() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
            name = NAMES.secret_name("2Ab0")
            world.core.patch(
                SECRETS, PROJECT, name, {"metadata": {"labels": {NAMES.managed: None}}}
            )
            before, asked = len(world.secret_writes()), asked_of(world)
            await asyncio.sleep(600)
            assert len(world.secret_writes()) == before
            # One read and one try of its creation at each look, a minute apart or more.
            assert 1 <= asked["create secrets"] <= 10
            assert asked["list secrets"] <= 10
            assert asked["patch secrets"] == asked["patch pods"] == 0
        assert len(world.events("secret_without_labels")) == 1

    simulate(scenario)


def test_a_restarted_session_with_an_expired_token_is_written_and_touched_at_once() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        world.add("2AbOther")  # an empty list alone would not make us stop
        async with running(world):
            await settled(world)
            world.delete_pod("2Ab0")
            world.platform.sessions["2Ab0"] = PlatformSession(
                id="2Ab0", project_id=PROJECT, phase="Stopped"
            )
            await asyncio.sleep(3000)
            assert world.remaining_s("2Ab0") < 0
            writes, touches = len(world.secret_writes()), len(world.pod_writes())
            world.add_pod("2Ab0")
            await asyncio.sleep(5)
            assert world.remaining_s("2Ab0") > 700
            assert len(world.secret_writes()) == writes + 1
            assert len(world.pod_writes()) == touches + 2

    simulate(scenario)


def test_an_overwrite_is_repaired_at_once_and_repeated_ones_with_back_off() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
            for _ in range(100):
                world.overwrite("2Ab0")
                await asyncio.sleep(1)
            fought = world.events("competing_writer")
            assert [line["writer"] for line in fought] == ["kubectl"]
            assert len(world.secret_writes()) < 20
            await asyncio.sleep(400)
            assert world.remaining_s("2Ab0") > 0

    simulate(scenario)


@pytest.mark.parametrize("startup", ["all", "stale"])
def test_a_touch_that_a_crashed_writer_did_not_send_is_sent_by_the_next(startup: str) -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        world.issuer.mint(900)
        first = asyncio.create_task(world.controller.run(asyncio.Event()))

        def die(commit: Commit) -> None:
            if commit.caller == US and commit.kind is SECRETS:
                first.cancel()

        world.core.on_commit.append(die)
        with suppress(asyncio.CancelledError):
            await first
        assert (len(world.secret_writes()), world.pod_writes()) == (1, [])
        world.core.on_commit.remove(die)
        async with running(world, successor(world)):
            await settled(world)
            await asyncio.sleep(30)
        assert len(world.pod_writes()) == 2
        assert world.remaining_s("2Ab0") > 800

    simulate(scenario, startup=startup)


@pytest.mark.parametrize("tick_s", [240, 600])
def test_with_the_replaced_loop_running_no_runner_keeps_its_short_lived_tokens(tick_s: int) -> None:
    """The worst kubelet there is: the loop's token is projected at once, ours by a touch alone."""

    async def scenario(world: World) -> None:
        sessions = {f"session-2ab{number}-runner": f"2Ab{number}" for number in range(10)}
        for session in sessions.values():
            world.add(session)
        files, seen = {}, 0
        async with running(world):
            await settled(world)
            for second in range(7200):
                if second % tick_s == 0:
                    cached = world.issuer.mint(31)  # it reuses one until 30 s before its end
                    for session in sessions.values():
                        world.overwrite(session, cached)
                        files[session] = cached
                touches = world.pod_writes()
                for touched in touches[seen:]:
                    session = sessions[touched.object["metadata"]["name"]]
                    files[session] = world.token(session)
                seen = len(touches)
                assert min(world.left_s(token) for token in files.values()) > 0
                await asyncio.sleep(1)
        first, *_ = world.events("competing_writer")
        assert (first["writer"], first["overwrites"]) == ("kubectl", 3)

    simulate(scenario)


@pytest.mark.parametrize(("stopped_before_s", "is_valid"), [(0, True), (60, False)])
def test_installed_before_the_loop_is_stopped_every_secret_always_has_a_valid_token(
    stopped_before_s: int, is_valid: bool
) -> None:
    """docs/migrate.md, steps 2 and 3; in the other order the loop's last token ends."""
    lowest_s: list[float] = []

    async def watch(world: World, seconds: int, *, loop: bool) -> None:
        for second in range(seconds):
            if loop and second % 20 == 0:
                world.overwrite("2Ab0", world.issuer.mint(50))
            lowest_s.append(world.left_s(world.token("2Ab0")))
            await asyncio.sleep(1)

    async def scenario(world: World) -> None:
        world.add("2Ab0")
        await watch(world, 100, loop=True)
        await watch(world, stopped_before_s, loop=False)
        async with running(world):
            if not stopped_before_s:
                await watch(world, 100, loop=True)
            await watch(world, 1800, loop=False)

    simulate(scenario)
    assert (min(lowest_s) > 0) is is_valid


@pytest.mark.parametrize(
    ("expires", "issued"),
    [
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:05"),
        ("9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59-14:00"),
        ("1969-12-31T23:59:59Z", "1969-12-31T23:00:00Z"),
    ],
)
def test_impossible_instants_are_unreadable_and_no_crash(expires: str, issued: str) -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
            before = len(world.secret_writes())
            forged = {NAMES.expires_at: expires, NAMES.issued_at: issued}
            body = {"metadata": {"annotations": forged}}
            world.core.patch(SECRETS, PROJECT, NAMES.secret_name("2Ab0"), body)
            await asyncio.sleep(5)
            assert len(world.secret_writes()) == before + 1
        assert world.controller.stats.reconcile_panics_total == 0

    simulate(scenario)


def test_a_project_that_cannot_be_listed_keeps_no_stopped_session() -> None:
    async def scenario(world: World) -> None:
        listed = world.platform.list_running

        async def list_running(
            project: str | None, on_page: OnPage = ignore_page
        ) -> ListResult[PlatformSession]:
            if project == "team-b":
                raise PlatformError("answered 500", status=500)
            return await listed(project, on_page)

        world.platform.list_running = list_running  # type: ignore[method-assign]
        world.add_project("team-b")
        world.add("2Ab", project="team-b")
        for number in range(10):
            world.add(f"2Aa{number}")
        async with running(world):
            await settled(world)
            for number in range(9):
                world.delete_pod(f"2Aa{number}")
                row = world.platform.sessions.pop(f"2Aa{number}")
                if number % 2:  # stopped, and still known to the platform
                    world.platform.sessions[row.id] = dataclasses.replace(row, phase="Stopped")
            await asyncio.sleep(900)
            before = len(world.secret_writes())
            await asyncio.sleep(3600)
            assert len(world.secret_writes()) - before == pytest.approx(2 * 10, abs=2)
            assert min(world.remaining_s("2Aa9"), world.left_s(world.token("2Ab", "team-b"))) > 270

    simulate(scenario)


def test_a_session_that_ends_before_its_run_does_not_delay_the_end_of_the_startup_resync() -> None:
    async def scenario(world: World) -> None:
        for number in range(50):
            world.add(f"2Ab{number:02}")
        async with running(world):
            while not world.secret_writes():
                await asyncio.sleep(0.001)
            waiting = [f"2Ab{n:02}" for n in range(50) if world.token(f"2Ab{n:02}").count(".") < 2]
            assert len(waiting) > 40
            for session in waiting:
                world.delete_pod(session)
                del world.platform.sessions[session]
            await settled(world)
        [line] = world.events("startup_resync_finished")
        assert line["sessions"] == 50

    simulate(scenario, workers=1)


def test_a_defect_that_one_session_provokes_affects_no_other() -> None:
    async def scenario(world: World) -> None:
        for number in range(5):
            world.add(f"2Ab{number}")
        planner = world.controller.sessions
        view = planner.state

        def crash(key: SessionKey) -> SessionState:
            if key.session_id == "2Ab3":
                raise ZeroDivisionError("obviously a defect")
            return view(key)

        planner.state = crash  # type: ignore[method-assign]
        async with running(world):
            await settled(world)
            await asyncio.sleep(1800)
            assert min(world.remaining_s(f"2Ab{n}") for n in (0, 1, 2, 4)) > 270
        assert 1 <= world.controller.stats.reconcile_panics_total < 60

    simulate(scenario)


def test_no_write_passes_a_closed_fence() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        world.fence.is_open = False
        async with running(world):
            await asyncio.sleep(60)
            assert world.secret_writes() == []
            world.fence.is_open = True
            await settled(world)
            assert world.remaining_s("2Ab0") > 700

    simulate(scenario)


def test_an_empty_or_failing_platform_stops_no_refresh() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
            world.platform.sessions.clear()
            await asyncio.sleep(2000)
            world.platform.unreachable = True
            await asyncio.sleep(2000)
            assert world.remaining_s("2Ab0") > 300

    simulate(scenario)


def test_an_empty_list_ends_no_session_without_a_pod() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
            world.delete_pod("2Ab0")
            await asyncio.sleep(1000)
            assert world.remaining_s("2Ab0") > 200
            world.platform.sessions.clear()
            for _ in range(36):
                await asyncio.sleep(100)
                assert world.remaining_s("2Ab0") > 200

    simulate(scenario)


@pytest.mark.parametrize(
    "kinds", [(PODS, SECRETS), (PODS,), (SECRETS,)], ids=["both", "pod", "Secret"]
)
def test_a_session_labelled_for_another_project_than_the_platforms_gets_nothing(
    kinds: tuple[Kind, ...],
) -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        world.add("2AbOther")
        names = {PODS: "session-2ab0-runner", SECRETS: NAMES.secret_name("2Ab0")}
        elsewhere = {"metadata": {"labels": {NAMES.project_id: "team-b"}}}
        for kind in kinds:
            world.core.patch(kind, PROJECT, names[kind], elsewhere, by=INTRUDER)
        async with running(world):
            await settled(world)
            await asyncio.sleep(1000)
        written = {commit.object["metadata"]["name"] for commit in world.secret_writes()}
        assert written == {NAMES.secret_name("2AbOther")}
        assert world.token("2Ab0") == "obviously-fake-old-token"

    simulate(scenario)


def test_the_confirmation_on_the_secret_survives_a_restart_without_a_platform() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
        assert world.platform.lookups == 0

        world.platform.unreachable = True
        await world.controller.confirmations.prune(lambda key: False)
        world.platform.sessions.clear()
        secret, pod = (
            world.controller.secrets.snapshot()[0],
            world.controller.pods.snapshot()[0],
        )
        fresh = type(world.controller.confirmations)(
            world.clock,
            world.controller.confirmations._mac,
            lambda session: PROJECT,
        )
        assert fresh.confirmation(pod.key, pod, secret).value == "yes"

    simulate(scenario)


def test_a_pod_of_an_unknown_session_is_looked_up_rarely_and_gets_nothing() -> None:
    async def scenario(world: World) -> None:
        world.add("2AbForged", known=False)
        async with running(world):
            await asyncio.sleep(600)
        assert world.secret_writes() == []
        assert len(world.events("session_not_confirmed")) == 1
        assert world.platform.lookups < 15

    simulate(scenario)


def test_missing_permissions_are_logged_once_a_namespace_and_retried_slowly() -> None:
    async def scenario(world: World) -> None:
        for number in range(10):
            world.add(f"2Ab{number}")

        denied = InjectedFault(Forbidden("no", status=403, reason="Forbidden"))
        tries = 0

        def judge(verb: str, plural: str) -> InjectedFault | None:
            nonlocal tries
            tries += verb == "patch"
            return denied if verb == "patch" else None

        world.faults.rule = judge
        async with running(world):
            await asyncio.sleep(300)
            assert tries >= 10  # each of them did try
            assert len(world.events("write_forbidden")) == 1
            before = tries
            await asyncio.sleep(1200)
            # The slow pace: 15 s at least and 30 s at most between two tries of a session.
            assert 10 * 1200 / 30 <= tries - before <= 10 * 1200 / 15

    simulate(scenario)


def test_short_lived_tokens_never_move_an_expiry_backwards() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
            world.issuer.ttl_s = 60
            last = world.remaining_s("2Ab0") + world.clock.wall()
            for _ in range(150):
                await asyncio.sleep(10)
                expires_s = world.remaining_s("2Ab0") + world.clock.wall()
                assert expires_s >= last
                assert expires_s > world.clock.wall()
                last = expires_s

    simulate(scenario)


def test_requests_are_bounded_while_the_issuer_refuses_for_an_hour() -> None:
    async def scenario(world: World) -> None:
        for number in range(50):
            world.add(f"2Ab{number}")
        world.issuer.unreachable = True
        async with running(world):
            await asyncio.sleep(3600)
            assert world.issuer.requests < 3600 / 0.9
            world.issuer.unreachable = False
            await asyncio.sleep(10)
            assert min(world.remaining_s(f"2Ab{n}") for n in range(50)) > 700

    simulate(scenario)


def test_a_drain_finishes_what_is_in_flight_and_takes_nothing_new() -> None:
    async def scenario(world: World) -> None:
        for number in range(200):
            world.add(f"2Ab{number}")
        world.faults.rule = lambda verb, plural: (
            InjectedFault(delay_s=0.5) if (verb, plural) == ("patch", "secrets") else None
        )
        async with running(world):
            async with asyncio.timeout(30):
                while len(world.secret_writes()) < 64:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.25)
            in_flight = world.controller.queue.stats().schedule.running
            before = len(world.secret_writes())
        assert in_flight == 48  # as many as one namespace may have, in the middle of a request
        written = {commit.object["metadata"]["name"] for commit in world.secret_writes()}
        finished = {line["secret"] for line in world.events("runner_token_refreshed")}
        assert len(world.secret_writes()) - before == in_flight
        assert finished == written
        assert world.controller.queue.stats().schedule.running == 0
        assert not world.events("drain_timeout")

    simulate(scenario)


def test_no_secret_is_created_for_a_pod_that_ended_unseen() -> None:
    async def scenario(world: World) -> None:
        row = PlatformSession(id="2Ab0", project_id=PROJECT, phase="Running")
        world.platform.sessions[row.id] = row
        world.add_pod("2Ab0")
        world.platform.unreachable = True
        async with running(world):
            await asyncio.sleep(3)
            world.faults.silence_watches(silent=True)
            world.delete_pod("2Ab0")
            world.platform.unreachable = False
            await asyncio.sleep(60)
        assert world.secret_writes() == []

    simulate(scenario)


def test_two_replicas_that_overlap_do_not_rewrite_each_others_tokens() -> None:
    async def scenario(world: World) -> None:
        for number in range(10):
            world.add(f"2Ab{number}")
        other = successor(world)
        stop = asyncio.Event()
        async with running(world):
            await settled(world)
            async with asyncio.TaskGroup() as group:
                group.create_task(other.run(stop))
                await asyncio.sleep(100)
                stop.set()
        # Each replica's startup, and at most one renewal that fell into these seconds.
        assert len(world.secret_writes()) <= 3 * 10

    simulate(scenario)
