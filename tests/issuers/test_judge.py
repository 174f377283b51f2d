"""The count of expired seconds that test_story.py relies on, with every way to end."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.issuers.fleet import Fleet, open_fleet
from tests.issuers.issuer import Json, RealIssuer

SESSIONS = 2


class FakeIntrospection(RealIssuer):
    """Not a server: a test sets the expiry of opaque tokens in `ends`, epoch seconds.

    Args:
        failures: Number of requests without an answer, as during a restart.
    """

    name = "fake"
    token_url = "http://127.0.0.1:1/token"

    def __init__(self, folder: Path, failures: int = 0) -> None:
        super().__init__(folder, folder)
        self.ends: dict[str, float] = {}
        self.asked: list[str] = []
        self._failures = failures

    async def introspect(self, token: str) -> Json:
        self.asked.append(token)
        if self._failures:
            self._failures -= 1
            raise aiohttp.ServerDisconnectedError
        assert token in self.ends, "inactive"
        return {"active": True, "exp": self.ends[token]}

    def command(self) -> list[str]:
        raise NotImplementedError

    async def is_ready(self) -> bool:
        raise NotImplementedError

    async def set_up(self) -> None:
        raise NotImplementedError

    async def rotate_secret(self, secret: str) -> None:
        raise NotImplementedError

    async def set_enabled(self, enabled: bool) -> None:
        raise NotImplementedError


@pytest.fixture
def introspection(tmp_path: Path) -> FakeIntrospection:
    return FakeIntrospection(tmp_path, failures=2)


@pytest.fixture
async def fleet(introspection: FakeIntrospection, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with open_fleet(introspection, tmp_path, sessions=SESSIONS) as opened:
        yield opened


async def put(fleet: Fleet, token: str) -> None:
    fleet.put_token(token)
    await fleet.wait_for_writes(1)


async def test_an_expired_token_counts_for_each_secret_until_it_is_replaced(
    introspection: FakeIntrospection, fleet: Fleet
) -> None:
    now_s = time.time()
    introspection.ends = {"fake-first": now_s - 30, "fake-second": now_s + 600}
    await put(fleet, "fake-first")
    assert fleet.expired_s >= SESSIONS * 30
    await put(fleet, "fake-second")
    settled_s = fleet.expired_s
    assert settled_s >= SESSIONS * 30
    assert fleet.expired_s == settled_s


async def test_valid_tokens_cost_nothing_and_each_is_asked_about_until_it_is_known(
    introspection: FakeIntrospection, fleet: Fleet
) -> None:
    introspection.ends = {"fake-first": time.time() + 600, "fake-second": time.time() + 600}
    await put(fleet, "fake-first")
    del introspection.ends["fake-first"]  # its client is deleted: what is known stays known
    await put(fleet, "fake-second")
    assert fleet.expired_s == 0
    assert introspection.asked == ["fake-first"] * 3 + ["fake-second"]


async def hold_revoked_token(introspection: FakeIntrospection, folder: Path) -> None:
    async with open_fleet(introspection, folder, sessions=SESSIONS) as fleet:
        with pytest.raises(AssertionError, match="inactive"):
            await put(fleet, "fake-revoked")


async def test_a_token_that_the_issuer_calls_inactive_fails_the_wait_and_the_test(
    introspection: FakeIntrospection, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="inactive"):
        await hold_revoked_token(introspection, tmp_path)
