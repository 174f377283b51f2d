"""Credentials that the issuer or the platform refuses: one state, the same on every surface."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from msgspec.structs import replace

from reconciler.controller.compose import connect
from reconciler.controller.status.status_metrics import samples
from reconciler.errors import IssuerRefused, PlatformRefused
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.api import Bearer, Platform
from reconciler.platform.models import PlatformSession
from reconciler.statuspage.components import Component, components
from reconciler.statuspage.summary import headline
from reconciler.statuspage.texts import BLOCKING_ENDPOINTS, describe_block
from reconciler.telemetry import metrics
from tests.unit.controller.virtual import World, running, simulate

SESSIONS = 40


async def begin(world: World, sessions: int = SESSIONS) -> None:
    for number in range(sessions):
        world.add(f"2Ab{number:03}")


def refuse(world: World) -> None:
    """Have the issuer refuse us, and with that the platform, which is asked with its tokens."""
    world.issuer.refused = True
    world.platform.failure = IssuerRefused("answered 401", status=401, reason="invalid_client")


def accept(world: World) -> None:
    world.issuer.refused = False
    world.platform.failure = None


async def shown(world: World) -> tuple[dict[str, Component], dict[str, float]]:
    """Return the page's lines by name, and the endpoints' gauges."""
    survey = await world.controller.status_collector.snapshot(max_age_s=0.0)
    values = {
        f"{sample.metric.name.removeprefix(metrics.PREFIX)}/{sample.labels[0]}": float(sample.value)
        for sample in samples(survey, per_session=False)
        if sample.metric in (metrics.DOWN, metrics.REFUSED) and not isinstance(sample.value, tuple)
    }
    return {part.name: part for part in components(survey, "replica-0")}, values


def said_of(world: World, endpoint: str) -> list[MutableMapping[str, Any]]:
    return [line for line in world.logs if line.get("endpoint") == endpoint]


def test_a_start_with_refused_client_credentials_is_named_on_every_surface() -> None:
    async def scenario(world: World) -> None:
        refuse(world)
        await begin(world)
        async with running(world):
            await asyncio.sleep(100)
            why = world.controller.health.readiness_problem()
            assert "the issuer refuses our credentials" in why
            assert "answered 401" in why
            page, values = await shown(world)
            assert page["Issuer"].severity == "bad"
            assert page["Issuer"].value.startswith("rejects us")
            assert (page["Platform"].value, page["Platform"].severity) == (
                "no request yet",
                "neutral",
            )
            assert page["Startup"].severity == "warn"
            assert "refreshed" not in page["Startup"].note.replace("0 refreshed", "")
            assert values["endpoint_refused/issuer"] == values["endpoint_down/issuer"] == 1
            assert values["endpoint_refused/platform"] == 0
            survey = await world.controller.status_collector.snapshot(max_age_s=0.0)
            rows = await world.controller.status_collector.rows(survey)
            words = {
                describe_block(row) if row.block_reason else BLOCKING_ENDPOINTS[row.blocked_on]
                for row in rows
            }
            assert len(rows) == SESSIONS
            assert all("the issuer gives no token" in each for each in words), words
            assert not any("does not know" in each for each in words)
            accept(world)
            await asyncio.sleep(40)  # `rest.LONGEST_S` and some: no life bounds the pauses
            assert min(world.remaining_s(f"2Ab{n:03}") for n in range(SESSIONS)) > 800
            page, values = await shown(world)
            assert (page["Issuer"].severity, page["Platform"].value) == ("good", "OK")
            assert values["endpoint_refused/issuer"] == values["endpoint_down/issuer"] == 0

    simulate(scenario)


def test_a_refused_scope_is_no_wrong_secret_on_any_surface() -> None:
    async def scenario(world: World) -> None:
        world.issuer.refusal = (400, "invalid_scope")
        refuse(world)
        await begin(world)
        async with running(world):
            await asyncio.sleep(150)
            why = world.controller.health.readiness_problem()
            assert "the issuer refuses our request; the last error was: answered 400; " in why
            survey = await world.controller.status_collector.snapshot(max_age_s=0.0)
            sentence = headline(survey, "").sentence
            lines = said_of(world, "issuer")
            assert [line["event"] for line in lines[:2]] == ["issuer_refused", "endpoint_refuses"]
            for said in (why, *(line["hint"] for line in lines)):
                assert "RECONCILER_OIDC_SCOPE" in said
                assert "SECRET" not in said
            assert "credentials" not in why + sentence

    simulate(scenario)


def test_a_refusal_is_one_line_at_its_begin_one_a_minute_and_one_at_its_end() -> None:
    async def scenario(world: World) -> None:
        await begin(world)
        async with running(world):
            await asyncio.sleep(100)
            already = len(world.logs)
            refuse(world)
            await asyncio.sleep(900 + 600)
            accept(world)
            await asyncio.sleep(60)
            lines = [line for line in world.logs[already:] if line["log_level"] == "warning"]
            begun = [line for line in lines if line["event"] == "issuer_refused"]
            assert len(begun) == 1
            assert begun[0]["endpoint"] == "issuer"
            assert begun[0]["error"] == "answered 401"
            assert "session_id" not in begun[0]
            minutes = [line for line in lines if line["event"] == "endpoint_refuses"]
            assert 23 <= len(minutes) <= 25
            others = [line for line in lines if line not in begun + minutes]
            assert others == []
            ended = [line for line in world.logs[already:] if line["event"] == "endpoint_recovered"]
            assert [(line["endpoint"], line["was"]) for line in ended] == [("issuer", "refused")]

    simulate(scenario)


@pytest.mark.parametrize("sessions", [0, SESSIONS])
def test_a_platform_that_refuses_our_token_is_named_until_it_takes_it(sessions: int) -> None:
    async def scenario(world: World) -> None:
        looked_up: list[str] = []
        session = world.platform.session

        async def counted(session_id: str, project: str | None) -> PlatformSession | None:
            looked_up.append(session_id)
            return await session(session_id, project)

        world.platform.session = counted  # type: ignore[method-assign]
        world.platform.failure = PlatformRefused("list: the platform answered 401", status=401)
        await begin(world, sessions)
        async with running(world):
            await asyncio.sleep(130)
            page, values = await shown(world)
            assert page["Issuer"].severity == "good"
            assert page["Platform"].severity == "bad"
            assert page["Platform"].value.startswith("rejects us")
            assert values["endpoint_refused/platform"] == 1
            lines = [line["event"] for line in said_of(world, "platform")]
            assert lines == ["endpoint_refuses"] * 3
            assert looked_up == []  # a probe finds the end of the refusal, not each session
            world.platform.failure = None
            await asyncio.sleep(40)
            page, values = await shown(world)
            assert page["Platform"].value == "OK"
            assert values["endpoint_refused/platform"] == 0
            lines = [line["event"] for line in said_of(world, "platform")]
            assert lines == ["endpoint_refuses"] * 3 + ["endpoint_recovered"]
            assert all(world.remaining_s(f"2Ab{n:03}") > 700 for n in range(sessions))

    simulate(scenario)


def test_an_endpoint_that_changes_its_mind_all_the_time_makes_no_storm_of_lines() -> None:
    async def scenario(world: World) -> None:
        async with running(world):
            await asyncio.sleep(10)
            already = len(world.logs)
            breaker = world.endpoints.platform_breaker
            for _ in range(600):
                breaker.refused(PlatformRefused("list: the platform answered 401", status=401))
                await asyncio.sleep(0.5)
                breaker.succeeded()
                await asyncio.sleep(0.5)
            lines = [line["event"] for line in world.logs[already:] if "endpoint" in line]
            assert len(lines) <= 3 * 11
            begun, ended = lines.count("endpoint_refuses"), lines.count("endpoint_recovered")
            assert ended <= begun

    simulate(scenario)


def test_the_end_of_a_pause_that_an_answer_asked_for_is_not_the_end_of_an_outage() -> None:
    async def scenario(world: World) -> None:
        async with running(world):
            await asyncio.sleep(10)
            world.endpoints.issuer_breaker.succeeded(wakes=True)
            assert world.events("endpoint_recovered") == []

    simulate(scenario)


def test_a_platform_that_refuses_each_token_costs_one_token_in_ten_seconds() -> None:
    async def scenario(world: World) -> None:
        bearers: list[Bearer] = []

        def connect_platform(*, bearer: Bearer, breaker: CircuitBreaker) -> Platform:
            bearers.append(bearer)
            return world.platform

        endpoints = connect(replace(world.ports, connect_platform=connect_platform))
        await bearers[0](False)
        before = world.issuer.requests
        for _ in range(20):
            await bearers[0](True)
            await asyncio.sleep(1)
        assert world.issuer.requests == before + 2
        await endpoints.source.close()

    simulate(scenario)
