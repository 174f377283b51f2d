"""Wrong clocks: the issuer's Date, the node, the issuer itself; the whole controller, virtual time.

The validator has the issuer's clock: a token is expired when the issuer would say so.
"""

import asyncio

import pytest

from reconciler.clock import Instant
from reconciler.lab.apiserver.kinds import SECRETS
from reconciler.preflight.environment import watch_clock
from tests.unit.controller.virtual import INTRUDER, NAMES, PROJECT, World, running, simulate

SESSIONS = 20


def populate(world: World, count: int = SESSIONS) -> list[str]:
    ids = [f"2Ab{number}" for number in range(count)]
    for session_id in ids:
        world.add(session_id)
    return ids


def is_jwt(token: str) -> bool:
    return token.startswith("eyJ")


async def expired_s(world: World, ids: list[str], seconds: int) -> int:
    """Let time pass; return the session-seconds in which a Secret held an expired token."""
    total = 0
    for _ in range(seconds):
        await asyncio.sleep(1)
        total += sum(is_jwt(token) and world.left_s(token) <= 0 for token in map(world.token, ids))
    return total


@pytest.mark.parametrize("ahead_s", [300.0, 901.0, 86_400.0, -300.0])
@pytest.mark.parametrize("has_expires_in", [True, False])
def test_a_gateways_date_that_is_off_costs_no_token_and_no_write(
    ahead_s: float, has_expires_in: bool
) -> None:
    async def scenario(world: World) -> None:
        world.issuer.date_ahead_s = ahead_s
        world.issuer.has_expires_in = has_expires_in
        ids = populate(world)
        async with running(world):
            await asyncio.sleep(30)
            assert all(is_jwt(world.token(each)) for each in ids)
            before, asked = len(world.secret_writes()), world.issuer.requests
            assert await expired_s(world, ids, 3600) == 0
        writes = len(world.secret_writes()) - before
        assert writes == pytest.approx(10 * SESSIONS, rel=0.1)
        assert world.issuer.requests - asked < 60

    simulate(scenario)


@pytest.mark.parametrize("node_ahead_s", [-40.0, -120.0, 120.0, 0.0])
def test_an_issuer_without_a_date_and_a_nodes_clock_that_is_off_cost_nothing(
    node_ahead_s: float,
) -> None:
    async def scenario(world: World) -> None:
        world.issuer.ttl_s = 60
        world.issuer.date_ahead_s = None
        world.issuer.has_expires_in = True
        ids = populate(world)
        async with running(world):
            await asyncio.sleep(10)
            before = len(world.secret_writes())
            spent_s = await expired_s(world, ids, 600)
            exposure_s = world.controller.exposure.total_s
        writes = len(world.secret_writes()) - before
        assert spent_s == 0
        assert exposure_s == 0
        assert writes == pytest.approx(SESSIONS * 600 / 24, rel=0.1)

    simulate(scenario, node_ahead_s=node_ahead_s)


@pytest.mark.parametrize("step_s", [700.0, -700.0, 7200.0])
@pytest.mark.parametrize("has_date", [True, False])
def test_a_step_of_the_issuers_clock_costs_nothing_after_it_was_noticed(
    step_s: float, has_date: bool
) -> None:
    async def scenario(world: World) -> None:
        world.issuer.date_ahead_s = 0.0 if has_date else None
        world.issuer.has_expires_in = True
        ids = populate(world, 60)
        async with running(world):
            await asyncio.sleep(1000)
            before_ahead_s = world.ports.issuer_time.skew_s
            before, stepped_at = len(world.secret_writes()), world.clock.monotonic()
            world.issuer.offset_s = step_s
            noticed_s, unnoticed = 0, 0
            while abs(world.ports.issuer_time.skew_s - before_ahead_s) < 5:
                unnoticed += await expired_s(world, ids, 1)
                noticed_s += 1
                assert noticed_s < 95
            after = await expired_s(world, ids, 900)
            written = len(world.secret_writes()) - before
        assert after <= 60
        assert stepped_at > Instant(0)
        assert written <= 60 * 4

    simulate(scenario)


def test_a_write_whose_own_token_shows_a_step_is_planned_again_and_touches_its_pod() -> None:
    async def scenario(world: World) -> None:
        [session] = populate(world, 1)
        async with running(world):
            await asyncio.sleep(50)
            touches, left_s = len(world.pod_writes()), world.remaining_s(session)
            world.issuer.offset_s = left_s - 30  # less than the kubelet's next sync
            body = {"metadata": {"annotations": {NAMES.requested_at: "now"}}}
            world.core.patch(SECRETS, PROJECT, NAMES.secret_name(session), body, by=INTRUDER)
            await asyncio.sleep(5)
            assert world.remaining_s(session) > 800
            assert len(world.pod_writes()) > touches
        # Planned by the former time it would be "requested", and wait behind all that is expiring.
        assert world.events("runner_token_refreshed")[-1]["reason"] == "expiring"

    simulate(scenario)


@pytest.mark.parametrize(("step_s", "kept"), [(7200.0, 1), (-7200.0, 0)])
def test_decisions_know_of_a_step_forward_of_the_issuers_time(step_s: float, kept: int) -> None:
    async def scenario(world: World) -> None:
        populate(world, 1)
        async with running(world):
            await asyncio.sleep(300)
            world.issuer.offset_s = step_s
            await asyncio.sleep(200)
            sessions = world.controller.sessions
            steps = sessions.context().steps
            assert len(steps) == kept
            for step in steps:
                assert step.seconds == pytest.approx(step_s, abs=2)
                assert sessions.now_s() - 200 <= step.before_s + step.seconds <= sessions.now_s()

    simulate(scenario)


def test_one_line_names_the_clock_that_is_off_and_by_how_much() -> None:
    async def scenario(world: World) -> None:
        world.issuer.date_ahead_s = 901.0
        world.issuer.has_expires_in = True
        populate(world, 1)
        watching = asyncio.create_task(watch_clock(world.ports.issuer_time, world.node))
        async with running(world):
            await asyncio.sleep(3000)
            [line] = world.events("clock_skew")
            assert line["clock"] == "issuer_date"
            assert line["off_s"] == pytest.approx(901, abs=2)
            world.node.step_s = -40.0
            await asyncio.sleep(500)
            _, line = world.events("clock_skew")
            assert line["clock"] == "wall_clock"
            assert line["off_s"] == pytest.approx(-40, abs=2)
            assert not world.events("issuer_time_moved")
        watching.cancel()

    simulate(scenario)


def test_a_cache_before_the_issuer_costs_no_token_and_no_storm() -> None:
    async def scenario(world: World) -> None:
        world.issuer.date_ahead_s = None
        world.issuer.has_expires_in = True
        world.issuer.cached_s = 300.0
        ids = populate(world)
        async with running(world):
            await asyncio.sleep(30)
            before, asked = len(world.secret_writes()), world.issuer.requests
            assert await expired_s(world, ids, 3600) == 0
        assert len(world.secret_writes()) - before < 3 * 10 * SESSIONS
        assert world.issuer.requests - asked < 200
        assert abs(world.ports.issuer_time.skew_s) < 2

    simulate(scenario)


# A cache that gives each token until it has expired costs some seconds: test_better_token.py.
@pytest.mark.parametrize(("cached_s", "ttl_s"), [(5.0, 900), (60.0, 900), (170.0, 900), (5.0, 60)])
@pytest.mark.parametrize("is_busy", [True, False])
@pytest.mark.parametrize("node_ahead_s", [0.0, -120.0])
def test_a_short_cache_before_the_issuer_costs_neither_tokens_nor_writes(
    cached_s: float, ttl_s: int, is_busy: bool, node_ahead_s: float
) -> None:
    async def scenario(world: World) -> None:
        world.issuer.ttl_s = ttl_s
        world.issuer.date_ahead_s = None
        world.issuer.has_expires_in = True
        world.issuer.cached_s, world.issuer.is_busy = cached_s, is_busy
        ids = populate(world)
        async with running(world):
            await asyncio.sleep(30)
            before, asked = len(world.secret_writes()), world.issuer.requests
            spent_s = await expired_s(world, ids, 4 * ttl_s)
            counted_s = world.controller.exposure.total_s
        writes = len(world.secret_writes()) - before
        behind_s = -node_ahead_s - world.ports.issuer_time.skew_s
        assert spent_s == counted_s == 0
        assert writes == pytest.approx(10 * SESSIONS, rel=0.1)
        assert world.issuer.requests - asked < 3 * 40
        assert abs(behind_s) <= 2 + cached_s * is_busy
        assert not world.events("issuer_time_moved")

    simulate(scenario, node_ahead_s=node_ahead_s)


@pytest.mark.parametrize("step_s", [-1200.0, -7200.0])
def test_tokens_are_taken_again_after_a_step_back_behind_a_cache(step_s: float) -> None:
    """Each token comes again and again, and by what was proven all of them have expired."""

    async def scenario(world: World) -> None:
        world.issuer.date_ahead_s = None
        world.issuer.has_expires_in = True
        world.issuer.cached_s, world.issuer.is_busy = 45.0, True
        populate(world)
        async with running(world):
            await asyncio.sleep(1000)
            world.issuer.offset_s = step_s
            await asyncio.sleep(90 + 3 * 45)
            world.add("2Abnew")
            await asyncio.sleep(5)
            assert is_jwt(world.token("2Abnew"))
            assert world.remaining_s("2Abnew") > 0
            assert abs(world.ports.issuer_time.skew_s - step_s) <= 45 + 2

    simulate(scenario)


def test_the_exposure_that_a_step_cost_is_counted() -> None:
    async def scenario(world: World) -> None:
        ids = populate(world, 30)
        async with running(world):
            await asyncio.sleep(1000)
            world.issuer.offset_s = 7200.0
            spent_s = await expired_s(world, ids, 300)
            counted_s = world.controller.exposure.total_s
        assert spent_s > 0
        assert spent_s <= counted_s <= spent_s + 30 * 95

    simulate(scenario)


def test_what_is_due_now_is_due_at_this_instant() -> None:
    """Not a rounding error later, for which the queue would sleep a millisecond."""

    async def scenario(world: World) -> None:
        sessions = world.controller.sessions
        for number in range(100):
            await asyncio.sleep(0.1 + number / 7)
            assert sessions.at(sessions.now_s()) == world.clock.monotonic()

    simulate(scenario)
