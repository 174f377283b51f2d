"""A platform that refuses one kind of request counts as refusing until it answers that kind."""

from contextlib import suppress

import pytest
from aiohttp import web

from reconciler.errors import PlatformRefused
from reconciler.platform.client import PlatformClient
from tests.lab.platform_client import client_of, projects, running_sessions, scripted

FORBIDDEN = {"kind": "Error", "code": "platform-403", "reason": "forbidden"}
SESSION = {"id": "2Abc", "project_id": "team-a", "phase": "Running"}
ENDS = {"projects": "/projects", "sessions": "/sessions", "session": "/2Abc"}


@pytest.mark.parametrize(
    ("kind", "status"), [("projects", 403), ("sessions", 403), ("session", 401)]
)
async def test_the_refusal_of_one_kind_stays_until_the_same_is_given(
    kind: str, status: int
) -> None:
    refusing = True
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if refusing and request.path.endswith(ENDS[kind]):
            return web.json_response(FORBIDDEN, status=status)
        if request.path.endswith(ENDS["session"]):
            return web.json_response(SESSION)
        return web.json_response({"items": [], "page": 1, "size": 0, "total": 0})

    async with scripted(answer) as url, client_of(url) as client:
        conditions: list[str] = []
        client.breaker.on_condition(lambda stats: conditions.append(stats.condition))
        for _ in range(3):
            await ask_for_all(client)
            assert client.breaker.refuses
        with pytest.raises(PlatformRefused):
            await client.probe()
        assert conditions == ["refused"]

        refusing = False
        asked.clear()
        await client.probe()
        assert conditions == ["refused", "ok"]
        assert {path.rpartition("/")[2] for path in asked} == {"sessions", ENDS[kind][1:]}


async def ask_for_all(client: PlatformClient) -> None:
    """Send each kind of request once; the one that is refused raises."""
    with suppress(PlatformRefused):
        await projects(client)
    with suppress(PlatformRefused):
        await running_sessions(client, None)
    with suppress(PlatformRefused):
        await client.session("2Abc", None)
