"""Snapshots of the controller: correct, bounded, in slices, and without any token."""

import asyncio
import math
from itertools import pairwise

import msgspec
import pytest
from msgspec.structs import replace

from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.reconcile.run import ReconcileRun
from reconciler.controller.status.fleet import FleetSummary
from reconciler.controller.status.snapshot import LeaseStatus, SessionStatus
from reconciler.controller.status.status_metrics import samples
from reconciler.errors import PlatformError
from reconciler.lab.apiserver.kinds import PODS, SECRETS
from reconciler.naming import SessionKey
from reconciler.platform.models import PlatformSession
from reconciler.telemetry import metrics
from reconciler.time_slice import MAX_ITEMS
from tests.lab.leaks import find_leaks
from tests.support import counted_turns
from tests.unit.controller.virtual import INTRUDER, NAMES, PROJECT, US, World, running, simulate


async def settled(world: World) -> None:
    async with asyncio.timeout(60):
        await world.controller.startup.finished.wait()
        await asyncio.sleep(5)


def key(session_id: str) -> SessionKey:
    return SessionKey(PROJECT, session_id)


async def rows(world: World) -> dict[str, SessionStatus]:
    surveyor = world.controller.status_collector
    survey = await surveyor.snapshot(max_age_s=0.0)
    return {row.session_id: row for row in await surveyor.rows(survey)}


def test_a_healthy_session_shows_its_life_its_next_deadline_and_why() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        async with running(world):
            await settled(world)
            row = (await rows(world))["2Aa"]
            assert (row.state, row.block_reason, row.reason, row.stage) == (
                TokenState.OK, "", "scheduled", "waiting",
            )  # fmt: skip
            assert row.pod == "session-2aa-runner"
            assert row.secret == "session-2aa-creds"
            assert row.project == PROJECT
            assert row.remaining_s == pytest.approx(world.remaining_s("2Aa"), abs=1)
            assert row.due_s is not None
            # Each session is planned every 300 s at least: that, or the refresh, is the deadline.
            assert world.clock.wall() < row.due_s <= world.clock.wall() + 301
            assert row.refreshed_by == "replica-0/1"
            [past] = world.controller.status_collector.runs(row.key)
            assert past[1:4] == ("refreshed", "first_write", "")

    simulate(scenario)


def test_what_blocks_a_session_is_named() -> None:
    async def scenario(world: World) -> None:
        for session_id in ("2Paused", "2Fine", "2Forged", "2Gone"):
            world.add(session_id, known=session_id != "2Forged")
        pause = {"metadata": {"annotations": {NAMES.paused: "true"}}}
        world.core.patch(PODS, PROJECT, "session-2paused-runner", pause, by=INTRUDER)
        async with running(world):
            await settled(world)
            found = await rows(world)
            assert {name: row.block_reason for name, row in found.items()} == {
                "2Paused": "paused", "2Fine": "", "2Forged": "not_confirmed", "2Gone": "",
            }  # fmt: skip
            assert found["2Forged"].state == TokenState.UNMANAGED
            survey = await world.controller.status_collector.snapshot()
            assert survey.fleet.blocked == {"paused": 1, "not_confirmed": 1}
            assert survey.fleet.sessions == 4
            world.delete_pod("2Gone")
            world.platform.sessions.pop("2Gone")
            await asyncio.sleep(400)
            assert "2Gone" not in await rows(world)

    simulate(scenario)


ALARMING = {
    metrics.EXPOSURE.name, metrics.REMAINING.name, metrics.REMAINING_MIN.name,
    metrics.SURVIVAL.name, metrics.SESSIONS.name, metrics.FAILING.name,
    metrics.SESSION_REMAINING.name,
}  # fmt: skip
"""What alerts and the fleet's figures are made of."""


async def alarming(world: World) -> dict[object, object]:
    survey = await world.controller.status_collector.snapshot(max_age_s=0.0)
    return {
        (sample.metric.name, sample.labels): sample.value
        for sample in samples(survey, per_session=True)
        if sample.metric.name in ALARMING
    }


async def unsendable(session_id: str, project: str | None) -> PlatformSession | None:
    raise PlatformError("not asked for, this ID cannot be sent", reason="invalid_id")


async def unanswered(session_id: str, project: str | None) -> PlatformSession | None:
    raise PlatformError("the platform answered about another session", status=200)


@pytest.mark.parametrize(
    "how", ["no seal", "a forged seal", "paused", "an ID that cannot be sent", "no answer about it"]
)
def test_a_forged_secret_that_expired_in_1970_changes_no_figure(how: str) -> None:
    async def scenario(world: World) -> None:
        for number in range(3):
            world.add(f"2Ab{number}")
        async with running(world):
            await settled(world)
            name = "2Forged"
            if how == "an ID that cannot be sent":
                world.platform.session = unsendable  # type: ignore[method-assign]
            if how == "no answer about it":
                world.platform.session = unanswered  # type: ignore[method-assign]
            forged = {
                NAMES.issued_at: "1970-01-01T00:00:00Z",
                NAMES.expires_at: "1970-01-01T00:15:00Z",
                NAMES.refreshed_at: "1970-01-01T00:00:00.000Z",
                NAMES.refreshed_by: "replica-0/1",
            }
            if how == "a forged seal":
                forged[NAMES.confirmation] = "v1." + "x" * 40
            if how == "paused":
                forged[NAMES.paused] = "true"
            before = await alarming(world)
            now_s = world.controller.sessions.now_s()
            world.add(name, known=False)
            world.core.patch(
                SECRETS,
                PROJECT,
                NAMES.secret_name(name),
                {
                    "metadata": {"annotations": forged},
                    "stringData": {NAMES.secret_key: "obviously-fake-forgery"},
                },
                by=US,  # under our field manager's name
            )
            await asyncio.sleep(60)
            assert name in await rows(world)
            failing = world.controller.queue.stats().schedule.failing
            assert failing == (how == "no answer about it")
            after = await alarming(world)
            passed_s = world.controller.sessions.now_s() - now_s
            for each, value in before.items():
                if isinstance(value, float) and value > 0:  # lives grow shorter
                    assert after.pop(each) == pytest.approx(value - passed_s, abs=1)
                elif not isinstance(value, metrics.HistogramValue):
                    assert after.pop(each) == value
                else:
                    found = after.pop(each)
                    assert isinstance(found, metrics.HistogramValue)
                    assert sum(found.counts) == sum(value.counts)
            assert after == {}
            survey = await world.controller.status_collector.snapshot()
            values = {
                sample.metric.name: sample.value for sample in samples(survey, per_session=True)
            }
            assert values[metrics.UNCONFIRMED.name] == 1
            assert sum(survey.fleet.blocked.values()) == 1
        assert len(world.secret_writes()) == 3 + 1  # the forger wrote as we do

    simulate(scenario)


def test_the_last_five_runs_are_kept_newest_first() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        async with running(world):
            await settled(world)
            world.issuer.unreachable = True
            await asyncio.sleep(950)
            world.issuer.unreachable = False
            await asyncio.sleep(30)
            attempts = world.controller.status_collector.runs(key("2Aa"))
            assert len(attempts) == 5
            assert attempts[0].outcome == "refreshed"
            assert {past.outcome for past in attempts[1:]} <= {"failed", "no_better_token"}
            assert attempts[1].error in ("IssuerUnavailable", "")
            assert all(newer.ended_s >= older.ended_s for newer, older in pairwise(attempts))

    simulate(scenario)


def test_estimated_exposure_counts_what_the_issuer_cost_and_never_goes_back() -> None:
    async def scenario(world: World) -> None:
        for number in range(3):
            world.add(f"2Ab{number}")
        async with running(world):
            await settled(world)
            world.issuer.unreachable = True
            ends_s = [world.remaining_s(f"2Ab{n}") for n in range(3)]
            seen = [0.0]
            survey = await world.controller.status_collector.snapshot(max_age_s=0.0)
            for _ in range(130):
                await asyncio.sleep(10)
                survey = await world.controller.status_collector.snapshot(max_age_s=0.0)
                seen.append(survey.fleet.exposure_s)
            assert seen == sorted(seen)
            lifted_s = max(ends_s)
            assert seen[-1] == pytest.approx(3 * (1300 - lifted_s), rel=0.15)
            assert survey.fleet.states[TokenState.EXPIRED] == 3
            assert survey.fleet.survival_s == 0.0
            world.issuer.unreachable = False
            await asyncio.sleep(30)
            survey = await world.controller.status_collector.snapshot(max_age_s=0.0)
            rest_s = survey.fleet.exposure_s - seen[-1]
            assert 0 < rest_s < 3 * 10  # the outage's end, and a second for each touch
            await asyncio.sleep(300)
            after = await world.controller.status_collector.snapshot(max_age_s=0.0)
            assert after.fleet.exposure_s == survey.fleet.exposure_s
            assert after.fleet.survival_s is not None
            assert after.fleet.survival_s > 0.8 * 900

    simulate(scenario)


def test_a_snapshot_shares_the_loop_and_is_shared() -> None:
    async def scenario(world: World) -> None:
        count = 2 * MAX_ITEMS
        for number in range(count):
            world.add(f"2Ab{number}")
        async with running(world):
            await settled(world)
            surveyor = world.controller.status_collector
            async with counted_turns() as turns:
                first, second = await asyncio.gather(
                    surveyor.snapshot(max_age_s=0.5), surveyor.snapshot(max_age_s=0.5)
                )
            assert first is second
            assert len(first.readings) == count
            assert turns.count >= count // MAX_ITEMS

    simulate(scenario)


def test_a_secret_that_changed_is_read_again() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await settled(world)
            before = (await rows(world))["2Ab0"]
            body = {"metadata": {"annotations": {NAMES.paused: "true"}}}
            world.core.patch(SECRETS, PROJECT, before.secret, body, by=INTRUDER)
            await asyncio.sleep(1)
            states = before.state, (await rows(world))["2Ab0"].state
            assert states == (TokenState.OK, TokenState.PAUSED)

    simulate(scenario)


def test_no_token_is_in_a_snapshot() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        async with running(world):
            await settled(world)
            survey = await world.controller.status_collector.snapshot()
            texts = {
                "survey": repr(survey),
                "rows": msgspec.json.encode(
                    await world.controller.status_collector.rows(survey)
                ).decode(),
            }
            assert find_leaks(texts, [world.token("2Aa"), *world.issuer.minted]) == []

    simulate(scenario)


def test_the_lease_is_read_from_the_fence() -> None:
    async def scenario(world: World) -> None:
        fence = world.fence
        fence.is_open, fence.has_lapsed, fence.transitions, fence.fenced_total = False, True, 3, 7
        survey = await world.controller.status_collector.snapshot()
        assert survey.lease == LeaseStatus("replica-0/1", False, "replica-0", 3, 7, lapsed=True)
        assert survey.lease.leader == ""

    simulate(scenario)


def add(
    fleet: FleetSummary,
    life: float | None,
    standby_s: float | None,
    *,
    hold: str = "",
    has_pod: bool = True,
) -> None:
    state = TokenState.UNMANAGED if life is None else TokenState.OK
    fleet.add(
        key("2Aa"),
        state,
        life,
        block_reason=hold,
        confirmed=hold != "not_confirmed",
        has_pod=has_pod,
        standby_s=standby_s,
    )


@pytest.mark.parametrize(
    ("lives", "standby_s", "survives_s"),
    [
        ([], 800.0, None),
        ([500.0, 300.0], 800.0, 790.0),
        ([500.0, 300.0], None, 290.0),
        ([500.0, None], 800.0, 790.0),
        ([None], None, None),
        ([900.0], 800.0, 890.0),
        ([5.0], None, 0.0),
    ],
    ids=["no pod", "lifted", "no spare", "unknown", "nothing known", "better", "never negative"],
)
def test_the_fleet_survives_as_long_as_its_worst_pod_can_be_refreshed(
    lives: list[float | None], standby_s: float | None, survives_s: float | None
) -> None:
    fleet = FleetSummary()
    for life in lives:
        add(fleet, life, standby_s)
    fleet.survive(10.0)
    assert fleet.survival_s == survives_s


@pytest.mark.parametrize("hold", ["paused", "not_confirmed", "secret_name_taken"])
def test_a_session_that_is_not_to_be_refreshed_is_counted_apart(hold: str) -> None:
    fleet = FleetSummary()
    add(fleet, -1.8e9, 800.0, hold=hold)
    add(fleet, 100.0, 50.0)
    add(fleet, 20.0, 800.0, has_pod=False)
    add(fleet, math.inf, 800.0)
    fleet.survive(0.0)
    assert fleet.survival_s == 100.0
    assert fleet.remaining_min_s == 100.0
    assert sum(fleet.remaining_counts) == sum(fleet.states.values()) == 3
    assert fleet.remaining_sum_s == 120.0
    assert (fleet.sessions, fleet.blocked) == (4, {hold: 1})
    assert fleet.unconfirmed == (hold == "not_confirmed")


def test_a_session_has_the_traces_of_its_runs_and_its_events() -> None:
    async def scenario(world: World) -> None:
        def keep_failures(run: ReconcileRun) -> None:
            run.trace.sampled = run.outcome == "failed"

        world.ports = replace(world.ports, observers=(keep_failures,))
        world.add("2Aa")
        async with running(world):
            await settled(world)
            collector = world.controller.status_collector
            [first] = collector.runs(key("2Aa"))
            world.issuer.refused = True
            await asyncio.sleep(900)
            failed, *_ = collector.runs(key("2Aa"))
            events = collector.events(PROJECT, "session-2aa-runner")
        assert (first.outcome, first.hex_trace_id, first.exported) == ("refreshed", "", False)
        assert (failed.outcome, failed.exported) == ("failed", True)
        assert len(failed.hex_trace_id) == 32
        assert [each.reason for each in events] == ["RefreshFailed"]
        assert collector.events(PROJECT, "another") == ()

    simulate(scenario)
