"""The issuer signs with another key, and the platform may drop the old one at once."""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Callable
from itertools import count, cycle
from random import Random

import pytest

from reconciler.tokens.source import STANDBY_FRACTION, OidcSource
from tests.unit.controller.test_succession import second_term
from tests.unit.controller.virtual import World, finished, running, simulate

SESSIONS = [f"2Ab{number:02}" for number in range(60)]


def kid_of(token: str) -> str:
    header = token.split(".")[0]
    decoded = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    return str(decoded.get("kid", ""))


def under(world: World, kid: str) -> int:
    """Return how many sessions' tokens were signed with this key."""
    return sum(kid_of(world.token(session)) == kid for session in SESSIONS)


@pytest.mark.parametrize("ttl_s", [60, 900])
def test_a_new_key_replaces_every_older_token_once_the_most_urgent_first(ttl_s: int) -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        world.issuer.ttl_s, world.issuer.kid = ttl_s, lambda: "old"
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(1.3 * ttl_s)
            world.issuer.kid = lambda: "new"
            async with asyncio.timeout(STANDBY_FRACTION * ttl_s + 3.0):
                while not world.events("signing_key_rotated"):
                    await asyncio.sleep(0.005)
                began = len(world.secret_writes())
                touched = len(world.pod_writes())
                left = {session: world.remaining_s(session) for session in SESSIONS}
                old = {s for s in SESSIONS if kid_of(world.token(s)) == "old"}
                assert len(old) > len(SESSIONS) / 2
                while under(world, "new") < len(SESSIONS):
                    await asyncio.sleep(0.05)
            names = [c.object["metadata"]["name"] for c in world.secret_writes()[began:]]
            assert max(Counter(names).values()) == 1
            await asyncio.sleep(5)
            assert len(world.pod_writes()) - touched >= len(old)
            replaced = [
                line["session_id"]
                for line in world.events("runner_token_refreshed")
                if line["reason"] == "token_replaced"
            ]
            assert len(replaced) == len(set(replaced)) > len(SESSIONS) / 2
            # Those written last may be read late: what their pods hold ends earlier than this.
            order = [left[session] for session in replaced if left[session] < 0.85 * ttl_s]
            third = len(order) // 3
            assert sum(order[:third]) < sum(order[-third:])
            writes = len(world.secret_writes())
            await asyncio.sleep(0.15 * ttl_s - 5)
            assert len(world.secret_writes()) == writes

    simulate(scenario, workers=4)


@pytest.mark.parametrize(
    ("kid", "rounds"),
    [
        pytest.param(cycle("ab").__next__, 1, id="two-in-turns"),
        pytest.param(cycle("aababb").__next__, 1, id="two-by-chance"),
        pytest.param(cycle("aabbccdd").__next__, 3, id="four"),
        pytest.param(map(str, count()).__next__, 1, id="one-a-token"),
    ],
)
def test_an_issuer_with_many_keys_causes_no_writes_without_end(
    kid: Callable[[], str], rounds: int
) -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        world.issuer.kid = kid
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(3600)
            early = len(world.secret_writes())
            assert early <= (1 + rounds + 3600 / 360 + 1) * len(SESSIONS)
            await asyncio.sleep(3600)
            assert len(world.secret_writes()) - early <= 1.1 * 10 * len(SESSIONS)
        assert len(world.events("signing_key_rotated")) == rounds

    simulate(scenario)


def test_a_longer_life_under_the_old_key_is_worth_nothing_under_the_new_one() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        world.issuer.kid = lambda: "old"
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(1200)
            world.issuer.kid, world.issuer.ttl_s = lambda: "new", 300
            while not world.events("signing_key_rotated"):
                await asyncio.sleep(0.1)
            before = len(world.secret_writes())
            world.issuer.unreachable = True
            await asyncio.sleep(5)
            assert under(world, "new") == len(SESSIONS)
            assert len(world.secret_writes()) - before <= len(SESSIONS)

    simulate(scenario)


def test_where_it_is_switched_off_ordinary_refreshes_bring_the_new_key() -> None:
    async def scenario(world: World) -> None:
        world.source._refresh_on_key_rotation = False
        for session in SESSIONS:
            world.add(session)
        world.issuer.kid = lambda: "old"
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(1200)
            world.issuer.kid = lambda: "new"
            await asyncio.sleep(100)
            assert 0 < under(world, "new") < len(SESSIONS) / 2
            await asyncio.sleep(500)
            assert under(world, "new") == len(SESSIONS)
        [line] = world.events("signing_key_rotated")
        assert line["refreshes"] is False
        assert "token_replaced" not in world.controller.stats.refreshes

    simulate(scenario)


def test_a_replica_that_starts_in_the_middle_of_it_writes_every_session_once() -> None:
    async def scenario(world: World) -> None:
        for session in SESSIONS:
            world.add(session)
        world.issuer.kid = lambda: "old"
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(1200)
            world.issuer.kid = lambda: "new"
            while not world.events("signing_key_rotated"):
                await asyncio.sleep(0.02)
            while under(world, "new") < 10:
                await asyncio.sleep(0.005)
        assert under(world, "new") < len(SESSIONS)
        fresh = OidcSource(
            world.issuer.ask,
            clock=world.clock,
            issuer_time=world.ports.issuer_time,
            breaker=world.endpoints.issuer_breaker,
            random=Random(8),
        )
        async with second_term(world, fresh):
            assert under(world, "new") == len(SESSIONS)

    simulate(scenario, workers=1)
