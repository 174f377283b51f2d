"""`python -m tests.bench.page`: the status page of a large fleet in a real Chromium.

The status snapshot is built as often as in the controller, row by row; the cost of a snapshot in
the controller is in `reconciler/controller/status/collector.py`.
"""

import argparse
import asyncio
import json
import resource
import statistics
import time
from contextlib import AsyncExitStack
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import aiohttp

from reconciler.clock import Instant
from reconciler.controller.status.history import RunRecord
from reconciler.statuspage.sse import MAX_STREAMS
from tests.browser.chromium import chromium
from tests.exhibit import NOW_S, Exhibit, Shown, row, served, survey

PAST = tuple(RunRecord(NOW_S - 300 * n, "refreshed", "scheduled", "") for n in range(5))

PAINT = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
ANSWER = "return performance.getEntriesByType('navigation')[0].responseStart"


class Fleet(Exhibit):
    """A fleet with tokens that grow older."""

    def __init__(self, sessions: int) -> None:
        self._sessions, self._began_s = sessions, time.monotonic()
        super().__init__(self._take(), lambda _: PAST)

    async def snapshot(self, *, max_age_s: float) -> Shown:
        if Instant(time.monotonic()) - self.shown.taken_at > max_age_s:
            self.shown = self._take()
        return self.shown

    def _take(self) -> Shown:
        age_s = time.monotonic() - self._began_s
        rows = [row(n, 900.0 - (n * 0.0543 + age_s) % 540) for n in range(self._sessions)]
        return survey(rows, now_s=NOW_S + age_s, taken_at=time.monotonic())


def serve(sessions: int, tell: Connection) -> None:
    """Serve until a false message; send the URL first, and the CPU time for each true message."""

    async def run() -> None:
        async with served(Fleet(sessions)) as (url, _):
            tell.send(url)
            while await asyncio.to_thread(tell.recv):
                tell.send((resource.getrusage(resource.RUSAGE_SELF), time.monotonic()))

    asyncio.run(run())


async def watch(url: str, readers: int, seconds: float) -> tuple[int, int]:
    """Keep streams open; return the average number of bytes and events of each."""
    got, events = 0, 0

    async def read(answer: aiohttp.ClientResponse) -> None:
        nonlocal got, events
        async for line in answer.content:
            got += len(line)
            events += line.startswith(b"event: view")

    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(read_bufsize=2**20))
        for number in range(readers):
            request = http.get(f"{url}/events?page={1 + number}")
            answer = await stack.enter_async_context(request)
            task = asyncio.create_task(read(answer))
            stack.callback(task.cancel)
        await asyncio.sleep(seconds)
    return got // readers, events // readers


def measure(sessions: int, rounds: int) -> dict[str, Any]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(sessions, theirs))
    process.start()
    url = ours.recv()

    def used() -> tuple[float, float, float]:
        ours.send(True)
        usage, at = ours.recv()
        return usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, at

    try:
        paints, answers = [], []
        with chromium() as browser:
            for number in range(rounds):
                browser.open(f"{url}/?q=2ab{number}")
                browser.wait("painted", lambda: browser.run(PAINT) is not None)
                paints.append(browser.run(PAINT))
                answers.append(browser.run(ANSWER))
                browser.open("about:blank")
        idle_mib, cpu_s, at = used()
        per_reader, events = asyncio.run(watch(url, MAX_STREAMS, 20.0))
        full_mib, cpu_after_s, after = used()
        ours.send(False)
    finally:
        process.join()
    return {
        "sessions": sessions,
        "first_paint_ms_median": round(statistics.median(paints)),
        "first_paint_ms_worst": round(max(paints)),
        "first_byte_ms_median": round(statistics.median(answers)),
        "memory_mib_one_reader": round(idle_mib),
        f"memory_mib_{MAX_STREAMS}_readers": round(full_mib),
        f"core_share_{MAX_STREAMS}_readers": round((cpu_after_s - cpu_s) / (after - at), 2),
        "events_a_reader_20_s": events,
        "bytes_an_event": per_reader // max(1, events),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.page", description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.sessions, arguments.rounds), indent=2))
