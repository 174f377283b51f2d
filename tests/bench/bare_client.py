"""`python -m tests.bench.bare_client SPEC`: a client that sends requests and does nothing else.

SPEC is a file with one JSON object: `url`, `ca_file` and `token` of the API server, `connections`,
`lists`, paths of metadata lists with their queries, `todo`, paths of Secrets, and `body`, which is
sent to each of them.
It prints one JSON object: `rate`, PATCHes a second, connecting included; `cpu_ms`, its own CPU a
PATCH in milliseconds; and `lists_s`, the time in which it reads the lists at the same time, page by
page.
"""

import asyncio
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop

from reconciler.naming import Names
from tests.cluster.admin import MERGE, PARTIAL, PARTIAL_LIST

PAGE = 500


class ListMeta(msgspec.Struct):
    next: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct):
    """A page of a list, of which only the token for the next one is decoded."""

    metadata: ListMeta


async def measure(spec: dict[str, Any]) -> dict[str, float]:
    """Do all of it, the PATCHes `connections` at a time, and return the figures."""
    context = ssl.create_default_context(cafile=spec["ca_file"])
    headers = {"Authorization": f"Bearer {spec['token']}"}
    found = {}
    for name, work in (("lists_s", _read_lists), ("", _patch)):
        connector = aiohttp.TCPConnector(ssl=context, limit=spec["connections"])
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            cpu_s, began = time.process_time(), time.perf_counter()
            await work(session, spec)
            seconds = time.perf_counter() - began
            cpu_s = time.process_time() - cpu_s
        if name:
            found[name] = seconds
        else:
            count = len(spec["todo"])
            found |= {"rate": count / seconds, "cpu_ms": cpu_s / count * 1e3}
    return found


async def _read_lists(session: aiohttp.ClientSession, spec: dict[str, Any]) -> None:
    async def read(path: str, query: dict[str, str]) -> None:
        token = ""
        while True:
            more = {"continue": token} if token else {}
            async with session.get(
                spec["url"] + path,
                params=query | {"limit": f"{PAGE}"} | more,
                headers={"Accept": PARTIAL_LIST},
            ) as response:
                assert response.status == 200, response.status
                token = msgspec.json.decode(await response.read(), type=Page).metadata.next
            if not token:
                return

    async with asyncio.TaskGroup() as group:
        for path, query in spec["lists"]:
            group.create_task(read(path, query))


async def _patch(session: aiohttp.ClientSession, spec: dict[str, Any]) -> None:
    todo = iter(spec["todo"])
    body, headers = spec["body"].encode(), {"Content-Type": MERGE, "Accept": PARTIAL}
    parameters = {"fieldManager": Names().field_manager}

    async def work() -> None:
        for path in todo:
            async with session.patch(
                spec["url"] + path, data=body, params=parameters, headers=headers
            ) as response:
                await response.read()
                assert response.status == 200, response.status

    async with asyncio.TaskGroup() as group:
        for _ in range(spec["connections"]):
            group.create_task(work())


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(json.loads(Path(sys.argv[1]).read_text())))))
