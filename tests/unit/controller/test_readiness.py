"""A replica is ready once its stores are filled and its source has given one token."""

import asyncio
import base64

import pytest
from msgspec.structs import replace

from reconciler.controller.compose import compose
from reconciler.tokens.static import StaticSource
from tests.unit.controller.virtual import World, running, simulate


def test_a_replica_is_not_ready_until_the_first_token_and_stays_ready_then() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        world.issuer.unreachable = True
        async with running(world):
            await asyncio.sleep(130)
            assert world.controller.health.not_synced() == ""
            assert world.controller.health.readiness_problem() == (
                "waiting for the first token; the last error was: the issuer is unreachable"
            )
            said = [line["reason"] for line in world.events("not_ready")]
            assert len(said) == 2
            assert "waiting for the first token" in said[0]
            world.issuer.unreachable = False
            await asyncio.sleep(3)
            assert world.controller.health.readiness_problem() == ""
            world.issuer.unreachable = True
            await asyncio.sleep(1200)
            assert world.source.best() is None
            assert world.controller.health.readiness_problem() == ""

    simulate(scenario)


def lacks_token(world: World) -> bool:
    return world.controller.health.lacks_token


@pytest.mark.parametrize("fault", ["unreachable", "refused"])
def test_it_lacks_a_token_when_none_has_come_for_six_tenths_of_a_life(fault: str) -> None:
    async def scenario(world: World) -> None:
        async with running(world):
            await asyncio.sleep(1000)
            assert not lacks_token(world)
            setattr(world.issuer, fault, True)
            await asyncio.sleep(440)
            assert not lacks_token(world)  # the last came 90 s before at the most
            await asyncio.sleep(101)
            assert lacks_token(world)
            assert world.source.best() is not None
            setattr(world.issuer, fault, False)
            await asyncio.sleep(31)
            assert not lacks_token(world)

    simulate(scenario)


def test_it_lacks_a_token_when_the_first_has_not_come_for_a_minute() -> None:
    async def scenario(world: World) -> None:
        world.issuer.refused = True
        async with running(world):
            await asyncio.sleep(59)
            assert not lacks_token(world)
            await asyncio.sleep(2)
            assert lacks_token(world)

    simulate(scenario)


def test_a_cache_that_gives_each_token_until_its_end_is_no_lack() -> None:
    async def scenario(world: World) -> None:
        world.issuer.ttl_s, world.issuer.cached_s = 60, 60.0
        async with running(world):
            for _ in range(600):
                await asyncio.sleep(1)
                assert not lacks_token(world)

    simulate(scenario)


def test_a_refused_client_is_named_as_the_reason() -> None:
    async def scenario(world: World) -> None:
        world.issuer.refused = True
        async with running(world):
            await asyncio.sleep(60)
            assert world.controller.health.readiness_problem() == (
                "waiting for the first token, and the issuer refuses our credentials; the last"
                " error was: answered 401; look at OIDC_CLIENT_ID and OIDC_CLIENT_SECRET, and the"
                " Secret they come from"
            )

    simulate(scenario)


def test_a_static_token_counts_at_once() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        value = "obviously-fake-static-token"
        source = StaticSource(lambda: value, world.clock)
        controller = compose(replace(world.ports, tokens=source, secret=value), world.config)
        assert "first list" in controller.health.readiness_problem()
        async with running(world, controller):
            await asyncio.sleep(1)
            assert controller.health.readiness_problem() == ""
            assert not controller.health.lacks_token
            data = world.secret("2Ab0")["data"]
            assert base64.b64encode(value.encode()).decode() in data.values()

    simulate(scenario)


def test_with_the_lease_but_no_token_it_serves_as_soon_as_the_first_one_comes() -> None:
    async def scenario(world: World) -> None:
        for number in range(20):
            world.add(f"2Ab{number}")
        world.issuer.unreachable = True
        async with running(world):
            await asyncio.sleep(600)
            assert world.secret_writes() == []
            world.issuer.unreachable = False
            await asyncio.sleep(4)
            assert min(world.remaining_s(f"2Ab{n}") for n in range(20)) > 800

    simulate(scenario)
