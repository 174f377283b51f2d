"""The lists of all projects: which of them count, and how many sessions are merged at once."""

from random import Random

import pytest

from reconciler.errors import PlatformUnavailable
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.api import OnPage
from reconciler.platform.models import PlatformProject, PlatformSession
from reconciler.platform.pagination import ListResult, ignore_page
from reconciler.platform.session_list import MERGED_AT_ONCE, list_running_sessions
from tests.support import ManualClock, counted_turns

TURNS = 5


class OneProject:
    """Answers at once, with `TURNS` times as many sessions as one turn merges."""

    allowed = None

    def __init__(self) -> None:
        self.breaker = CircuitBreaker("platform", ManualClock(), Random(1))

    async def list_projects(self) -> ListResult[PlatformProject]:
        return _complete([PlatformProject(id="team-a")])

    async def list_running(
        self, project: str | None, on_page: OnPage = ignore_page
    ) -> ListResult[PlatformSession]:
        numbers = range(TURNS * MERGED_AT_ONCE)
        return _complete([PlatformSession(id=f"2A{n}", project_id="team-a") for n in numbers])

    async def session(self, session_id: str, project: str | None) -> PlatformSession | None:
        raise AssertionError("no session is looked up")

    async def probe(self) -> None: ...


class ThreeProjects(OneProject):
    """Lists `rows` sessions of team-a, none of team-b, and fails for team-c."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows

    async def list_projects(self) -> ListResult[PlatformProject]:
        return _complete([PlatformProject(id=f"team-{letter}") for letter in "abc"])

    async def list_running(
        self, project: str | None, on_page: OnPage = ignore_page
    ) -> ListResult[PlatformSession]:
        if project == "team-c":
            raise PlatformUnavailable("answered 503", status=503)
        rows = self._rows if project == "team-a" else 0
        return _complete([PlatformSession(id=f"2A{n}", project_id="team-a") for n in range(rows)])


def _complete(items: list[PlatformProject] | list[PlatformSession]) -> ListResult:  # type: ignore[type-arg]  # of either
    return ListResult(items, 0, 1, 0, complete=True, error=None)


async def test_other_tasks_run_while_a_long_list_is_merged() -> None:
    async with counted_turns() as turns:
        found = await list_running_sessions(OneProject(), parallel=1)
    assert len(found.sessions) == TURNS * MERGED_AT_ONCE
    assert found.complete_projects == {"team-a"}
    # The tasks of the lists need two turns.
    assert turns.count >= TURNS


@pytest.mark.parametrize("rows", [1, 0])
async def test_an_empty_list_of_a_project_counts_only_beside_a_running_session(rows: int) -> None:
    found = await list_running_sessions(ThreeProjects(rows), parallel=1)
    assert set(found.failures) == {"team-c"}
    assert found.complete_projects == ({"team-a", "team-b"} if rows else set())
