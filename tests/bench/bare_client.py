"""`python -m tests.bench.bare_client SPEC`: a client that sends PATCHes and does nothing else.

SPEC is a file with one JSON object: `url`, `ca_file` and `token` of the API server, `connections`,
and `todo`, a list of [path of a Secret, body]. It prints one JSON object: `rate`, PATCHes a second,
connecting included, and `cpu_ms`, its own CPU a PATCH in milliseconds.
"""

import asyncio
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from reconciler.naming import Names
from tests.cluster.admin import MERGE, PARTIAL


async def measure(spec: dict[str, Any]) -> dict[str, float]:
    """Send all of them, `connections` at a time, and return the figures."""
    todo = iter(spec["todo"])
    context = ssl.create_default_context(cafile=spec["ca_file"])
    headers = {
        "Authorization": f"Bearer {spec['token']}",
        "Content-Type": MERGE,
        "Accept": PARTIAL,
    }
    parameters = {"fieldManager": Names().field_manager}

    async def work(session: aiohttp.ClientSession) -> None:
        for path, body in todo:
            async with session.patch(
                spec["url"] + path, data=body.encode(), params=parameters
            ) as response:
                await response.read()
                assert response.status == 200, response.status

    connector = aiohttp.TCPConnector(ssl=context, limit=spec["connections"])
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        cpu_s, began = time.process_time(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(spec["connections"]):
                group.create_task(work(session))
        seconds = time.perf_counter() - began
        cpu_s = time.process_time() - cpu_s
    count = len(spec["todo"])
    return {"rate": count / seconds, "cpu_ms": cpu_s / count * 1e3}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(json.loads(Path(sys.argv[1]).read_text())))))
