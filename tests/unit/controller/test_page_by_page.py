"""A first start over a list that takes long: each page confirms its sessions when it comes."""

import asyncio
from collections.abc import Iterable

import pytest

from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.state.confirmations import RECHECK_S, ConfirmationCache, Denial
from reconciler.errors import PlatformUnavailable
from reconciler.naming import SessionKey
from reconciler.platform.api import OnPage
from reconciler.platform.models import PlatformSession, namespace_of
from reconciler.platform.pagination import ListResult
from reconciler.time_slice import MAX_ITEMS
from tests.support import ManualClock
from tests.unit.controller.virtual import PROJECT, World, finished, running, simulate

PAGE = 20
PAGES = 4
PAGE_S = 3.0
"""All pages together come before the sessions of the last one would be looked up."""


async def populate(world: World) -> None:
    """Add sessions that were never refreshed, whose pods are not young, and a slow list."""
    for number in range(PAGE * PAGES):
        world.add(f"2Ab{number:03}")
    world.platform.page_rows, world.platform.page_s = PAGE, PAGE_S
    await asyncio.sleep(120)


def refreshed(world: World) -> set[str]:
    minted = set(world.issuer.minted)
    return {name for name in world.platform.sessions if world.token(name) in minted}


def pages(numbers: Iterable[int]) -> set[str]:
    return {f"2Ab{page * PAGE + row:03}" for page in numbers for row in range(PAGE)}


def test_the_sessions_of_a_page_are_refreshed_before_the_next_page_comes() -> None:
    async def scenario(world: World) -> None:
        await populate(world)
        found: list[set[str]] = []
        world.platform.before_page = lambda _number: found.append(refreshed(world))
        async with running(world):
            await finished(world, 1)
        assert found == [pages(range(number)) for number in range(PAGES)]
        assert refreshed(world) == pages(range(PAGES))
        assert world.platform.lookups == 0
        assert len(world.secret_writes()) == PAGE * PAGES
        assert world.events("startup_resync_finished")[0]["sessions"] == PAGE * PAGES

    simulate(scenario)


def test_a_session_that_no_page_names_gets_no_token() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aunknown", known=False)
        await populate(world)
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(600)
        old = "obviously-fake-old-token"
        assert world.token("2Aunknown") == old
        assert refreshed(world) == pages(range(PAGES))

    simulate(scenario)


def test_pages_that_came_before_a_failure_count_and_the_other_sessions_are_looked_up() -> None:
    async def scenario(world: World) -> None:
        await populate(world)

        def fail(number: int) -> None:
            if number == 3:
                world.platform.before_page = lambda _number: None
                raise PlatformUnavailable("answered 503", status=503)

        world.platform.before_page = fail
        async with running(world):
            await finished(world, 1)
            assert refreshed(world) == pages(range(PAGES))
        assert world.platform.lookups == PAGE * 2
        assert len(world.events("project_not_listed")) <= 1

    simulate(scenario)


def test_a_page_confirms_a_session_whose_pod_comes_later() -> None:
    async def scenario(world: World) -> None:
        await populate(world)
        world.delete_pod("2Ab000")
        world.delete_secret("2Ab000")

        def start_pod(number: int) -> None:
            if number == 2:
                world.add_pod("2Ab000")

        world.platform.before_page = start_pod
        async with running(world):
            await finished(world, 1)
            assert "2Ab000" in refreshed(world)
        assert world.platform.lookups == 0

    simulate(scenario)


@pytest.mark.parametrize("complete", [True, False])
async def test_the_end_of_a_list_brings_no_session_back_that_was_revoked_since_its_page(
    complete: bool,
) -> None:
    clock = ManualClock()
    mac = ConfirmationMac("obviously-fake-client-secret")
    cache = ConfirmationCache(clock, mac, lambda row: namespace_of(row, "standard"))
    rows = [PlatformSession(id=name, project_id=PROJECT, phase="Running") for name in ("a", "b")]
    kept, gone = (cache.record_running(row) for row in rows)
    cache.record_denied(gone, is_young=False)  # the answers to look-ups that began before the page
    clock.advance(RECHECK_S)
    cache.record_denied(gone, is_young=False)
    await cache.record_list({kept, gone}, complete=complete, complete_projects={PROJECT})
    assert cache.running() == {kept} == {SessionKey(PROJECT, "a")}
    assert cache.is_revoked(gone)
    assert not cache.was_confirmed(gone, None, None)
    assert cache.was_confirmed(kept, None, None)


async def test_a_session_whose_pod_starts_while_confirmations_are_pruned_keeps_its_own() -> None:
    mac = ConfirmationMac("obviously-fake-client-secret")
    cache = ConfirmationCache(ManualClock(), mac, lambda row: namespace_of(row, "standard"))
    rows = [PlatformSession(id=f"2Ab{n}", project_id=PROJECT) for n in range(2 * MAX_ITEMS)]
    keys = [cache.record_confirmed(row) for row in rows]
    alive: set[SessionKey] = set()
    pruning = asyncio.create_task(cache.prune(alive.__contains__))
    await asyncio.sleep(0)
    alive.add(keys[-1])
    await pruning
    assert cache.was_confirmed(keys[-1], None, None)
    assert not any(cache.was_confirmed(key, None, None) for key in keys[:-1])


def test_a_row_of_no_page_brings_no_session_back_that_was_revoked_during_the_list() -> None:
    """A row that names another project than its list counts at the end of all lists."""
    row = PlatformSession(id="2Amoved", project_id="team-b", phase="Running")
    key = SessionKey("team-b", row.id)

    async def scenario(world: World) -> None:
        world.add_project("team-b")
        world.add("2Ab000")
        list_running = world.platform.list_running

        async def with_row(project: str | None, on_page: OnPage) -> ListResult[PlatformSession]:
            listing = await list_running(project, on_page)
            if project == "team-b":
                cache = world.controller.confirmations
                cache.record_confirmed(row)
                cache.record_denied(key, is_young=False)
                await asyncio.sleep(RECHECK_S)
                assert cache.record_denied(key, is_young=False) is Denial.REVOKED
            else:
                listing.items.append(row)
            return listing

        world.platform.list_running = with_row  # type: ignore[assignment, method-assign]
        async with running(world):
            await world.controller.startup.finished.wait()
            cache = world.controller.confirmations
            assert cache.is_revoked(key)
            assert not cache.is_running(key)
            assert not cache.was_confirmed(key, None, None)

    simulate(scenario)
