"""`python -m tests.bench.turns`: the longest turn of the event loop in each pass over a fleet.

CPU time of the thread, so that other processes do not count. No server is needed.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from reconciler.clock import SystemClock
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.platform.models import PlatformProject, PlatformSession, namespace_of
from reconciler.platform.pagination import ListResult
from reconciler.platform.session_list import list_running_sessions

T = TypeVar("T")

SESSIONS = 100_000
PROJECTS = 40


class _Turns(Awaitable[T]):
    """Awaits a coroutine, and keeps the CPU of its longest turn."""

    def __init__(self, work: Any) -> None:
        self._work = work
        self.longest_s = 0.0

    def __await__(self) -> Generator[Any, None, T]:
        steps = self._work.__await__()
        while True:
            began_s = time.thread_time()
            try:
                waits_for = next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                self.longest_s = max(self.longest_s, time.thread_time() - began_s)
            yield waits_for


async def _show(name: str, work: Any) -> Any:
    turns: _Turns[Any] = _Turns(work)
    result = await turns
    print(f"{name}: {turns.longest_s * 1e3:.0f} ms", flush=True)
    return result


class _Platform:
    """Answers at once."""

    breaker: Any = type("Closed", (), {"is_open": False, "is_suspect": False})()

    def __init__(self, sessions: int) -> None:
        self._sessions = sessions

    async def list_projects(self) -> Any:
        return _complete([PlatformProject(id=f"team-{number}") for number in range(PROJECTS)])

    async def list_running(self, project: str, _: Callable[[Any], None]) -> Any:
        numbers = range(int(project[5:]), self._sessions, PROJECTS)
        return _complete([PlatformSession(id=f"2Ab{n:024d}", project_id=project) for n in numbers])


def _complete(items: list[Any]) -> ListResult[Any]:
    return ListResult(items, 0, 1, 0, complete=True, error=None)


async def _measure(sessions: int) -> None:
    platform: Any = _Platform(sessions)
    found = await _show("the lists, read and merged", list_running_sessions(platform, parallel=1))
    mac = ConfirmationMac("obviously-fake-client-secret")
    cache = ConfirmationCache(SystemClock(), mac, lambda session: namespace_of(session, "standard"))
    keys = {cache.record_running(session) for session in found.sessions}
    projects = found.complete_projects
    recording = cache.record_list(keys, complete=True, complete_projects=projects)
    await _show("the end of a list, recorded", recording)
    await _show("confirmations of ended sessions, forgotten", cache.prune(keys.__contains__))


if __name__ == "__main__":
    asyncio.run(_measure(int(sys.argv[1]) if sys.argv[1:] else SESSIONS))
