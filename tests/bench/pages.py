"""Time and size of the status page and of /metrics for a large fleet."""

import time
from statistics import median

import aiohttp

from tests.bench.figures import Value
from tests.bench.fleet import Fleet
from tests.bench.product import leading

READS = 20
PATHS = {"page": "/", "metrics": "/metrics"}


async def measure(fleet: Fleet) -> list[Value]:
    """Return median milliseconds and the bytes of a whole answer, as they are sent."""
    environment = fleet.environment()
    found = []
    async with leading(fleet, environment), aiohttp.ClientSession(auto_decompress=False) as http:
        for name, path in PATHS.items():
            url = f"http://{environment['RECONCILER_LISTEN']}{path}"
            times_ms, size = [], 0
            for _ in range(READS):
                began = time.perf_counter()
                async with http.get(url) as response:
                    response.raise_for_status()
                    size = len(await response.read())
                times_ms.append((time.perf_counter() - began) * 1e3)
            found.append(Value(f"{name}_ms", median(times_ms), fleet.sessions))
            found.append(Value(f"{name}_bytes", size, fleet.sessions))
    return found
