"""Prompts without a size limit in many sessions of many projects: memory stays limited."""

import asyncio
import json
import re

import pytest
from aiohttp import web

from reconciler.platform.models import PlatformPage, PlatformSession, decode
from reconciler.platform.session_list import list_running_sessions
from tests.lab.platform_client import client_of, scripted
from tests.memory import measured

PROJECTS, SESSIONS = 8, 12
PROMPT = b'"' + b"p" * 620 * 1024 + b'"'
PAGE_BYTES = 2 * 1024 * 1024
"""Three sessions with this prompt fit into a page, a complete list of a project does not."""


def row(session_id: str, project: str) -> dict[str, str]:
    return {"id": session_id, "project_id": project, "phase": "Running"}


class Server:
    """Sends rows with one prompt each, from one copy of it; knows keysets, or offsets alone."""

    def __init__(self, *, keysets: bool, prompt: bytes = PROMPT) -> None:
        self.keysets = keysets
        self.prompt = prompt
        self.sizes: list[int] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        project = request.headers.get("X-Ambient-Project", "")
        names = [f"p{number}" for number in range(PROJECTS)]
        if request.path.endswith("/projects"):
            return web.json_response({"total": PROJECTS, "items": [{"id": n} for n in names]})
        ids = [f"{project}-{number:03}" for number in range(SESSIONS)]
        if "/sessions/" in request.path:
            return await self._send(request, [request.path.rsplit("/", 1)[1]], project, None)
        search, size = request.query["search"], int(request.query["size"])
        self.sizes.append(size)
        if found := re.search("id > '([^']+)'", search):
            if not self.keysets:
                return web.json_response({"kind": "Error", "code": "x-21"}, status=400)
            ids = [each for each in ids if each > found[1]]
        first = (int(request.query["page"]) - 1) * size
        return await self._send(request, ids[first : first + size], project, len(ids))

    async def _send(
        self, request: web.Request, ids: list[str], project: str, total: int | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        rows = [json.dumps(row(each, project)).encode() for each in ids]
        if total is not None:
            await response.write(b'{"total":%d,"items":[' % total)
        for index, each in enumerate(rows):
            await response.write(b'%s{"prompt":' % (b"," if index else b""))
            for at in range(0, len(self.prompt), 65536):
                await response.write(memoryview(self.prompt)[at : at + 65536])
            await response.write(b"," + each[1:])
        if total is not None:
            await response.write(b"]}")
        return response


@pytest.mark.parametrize("keysets", [True, False], ids=["keysets", "offsets"])
async def test_a_sweep_over_huge_prompts_holds_a_page_for_each_request(keysets: bool) -> None:
    server = Server(keysets=keysets)
    async with (
        scripted(server.answer) as url,
        client_of(url, page_bytes=PAGE_BYTES, max_body_bytes=64 << 20, limit_s=60.0) as client,
    ):
        with measured() as memory:
            found = await list_running_sessions(client, parallel=PROJECTS)
        assert (len(found.sessions), found.complete) == (PROJECTS * SESSIONS, True)
        assert found.failures == {}
        # The chunks of a page, and for a moment the page made of them: each request's two.
        assert memory.peak < 2.5 * PROJECTS * PAGE_BYTES < PROJECTS * SESSIONS * len(PROMPT)
        assert memory.kept < 4_000_000  # connections, for the most part
        began = len(server.sizes)
        await list_running_sessions(client, parallel=PROJECTS)
        assert max(server.sizes[began:]) < 100  # what fits is remembered


async def test_rows_that_fit_no_page_are_read_one_at_a_time() -> None:
    server = Server(keysets=True, prompt=b'"' + b"p" * 5_000_000 + b'"')
    async with (
        scripted(server.answer) as url,
        client_of(url, page_bytes=PAGE_BYTES, max_body_bytes=8 << 20, limit_s=60.0) as client,
    ):
        with measured() as memory:
            many = await asyncio.gather(*(client.session(f"s{n}", "p1") for n in range(8)))
        assert [each.id for each in many if each is not None] == [f"s{n}" for n in range(8)]
        assert memory.peak < 2.5 * (8 * PAGE_BYTES / 2 + 5_000_000)


def test_fields_that_are_not_read_are_skipped_without_a_copy() -> None:
    rows = [row(f"s{number}", "p") | {"prompt": "p" * 620 * 1024} for number in range(20)]
    body = json.dumps({"total": 20, "items": rows}).encode()
    with measured() as memory:
        page = decode(PlatformPage[PlatformSession], body)
    assert [each.id for each in page.readable] == [f"s{number}" for number in range(20)]
    assert memory.peak < len(body) / 50


def test_a_field_that_is_read_and_huge_makes_its_row_unreadable() -> None:
    rows = [row("s1", "p" * 2_000_000), row("s2", "p"), row("x" * 2_000_000, "p")]
    body = json.dumps({"total": 3, "items": rows}).encode()
    with measured() as memory:
        page = decode(PlatformPage[PlatformSession], body)
    assert ([each.id for each in page.readable], page.skipped) == (["s2"], 2)
    assert memory.peak < 100_000
