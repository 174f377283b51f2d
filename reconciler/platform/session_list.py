"""Lists the running sessions of all projects; one failed list does not affect the others.

A session that is missing in a list may still exist: a list may be empty because we lack a right.
"""

import asyncio
from collections.abc import Iterator
from functools import partial

import msgspec

from reconciler.errors import PlatformUnavailable, RemoteError
from reconciler.platform.api import OnPage, Platform
from reconciler.platform.models import RUNNING, PlatformSession
from reconciler.platform.pagination import ListResult, ignore_page

PROJECTS_LIST = "(projects)"
"""The key of the projects list in `RunningSessions.failures`; no project's ID has parentheses."""

ALL_PROJECTS = "(all projects)"
"""The key in `RunningSessions.failures` of the one list that covers every project."""


MERGED_AT_ONCE = 2000
"""Rows that are merged in one turn of the event loop: some 3 ms; a hundred thousand take 0.15 s."""


class RunningSessions(msgspec.Struct, frozen=True):
    """The running sessions by the platform's answers.

    Args:
        sessions: One for each ID; its own `project_id` counts, not the project of the list.
        failures: By project, `PROJECTS_LIST` or `ALL_PROJECTS`; sessions that were read before
            the failure are in `sessions`.
        projects: IDs as listed; empty where the list failed or was empty.
        complete: Every row that the platform lists was read. It may not list all rows to us: a
            session that is missing here is unknown, never deleted.
        anomalies: Short descriptions for the log, a bounded number for each project.
        complete_projects: Projects with a list that was read to its end. None if no list has a
            running session: we may lack the right to see any.
    """

    sessions: list[PlatformSession]
    failures: dict[str, RemoteError]
    projects: list[str]
    complete: bool
    anomalies: list[str]
    complete_projects: frozenset[str]


async def list_running_sessions(
    client: Platform, *, parallel: int, on_page: OnPage = ignore_page
) -> RunningSessions:
    """List the projects, then the running sessions of each, `parallel` lists at a time.

    Where the projects cannot be listed, or there are none, one list without a project covers all.

    Args:
        on_page: Called with those running sessions of each page that name the project of their list
            (of the list of all projects: any project), as the page comes; a session may come again.
            The others may be in another list, too, and are in the result alone.

    Raises:
        RemoteError: Both the projects list and the list of all sessions failed.
    """
    if parallel < 1:
        raise ValueError(f"parallel must be at least 1, not {parallel}")
    run = _Run(client, on_page)
    targets = await run.choose_targets()
    queue = iter(targets)
    async with asyncio.TaskGroup() as group:
        for _ in range(min(parallel, len(targets))):
            group.create_task(run.work(queue))
    if PROJECTS_LIST in run.failures and not run.projects and not run.listings:
        raise run.failures[PROJECTS_LIST]
    return await run.result(targets)


class _Run(msgspec.Struct):
    """One listing in progress; a target is a project, or None for all of them."""

    client: Platform
    on_page: OnPage
    projects: list[str] = msgspec.field(default_factory=list)
    failures: dict[str, RemoteError] = msgspec.field(default_factory=dict)
    anomalies: list[str] = msgspec.field(default_factory=list)
    listings: dict[str | None, ListResult[PlatformSession]] = msgspec.field(default_factory=dict)
    probing: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    gave_up: bool = False

    async def choose_targets(self) -> list[str | None]:
        try:
            listing = await self.client.list_projects()
        except RemoteError as error:
            self.failures[PROJECTS_LIST] = error
            return [None]
        self.projects = [project.id for project in listing.items]
        if listing.error is not None:
            self.failures[PROJECTS_LIST] = listing.error
        if listing.skipped:
            self.anomalies.append(f"projects list: {listing.skipped} items without an ID")
        if not listing.complete and listing.error is None:
            self.anomalies.append("projects list: rows shifted in every pass")
        if not self.projects:
            self.anomalies.append("projects list: empty")
        covered = listing.complete and not listing.skipped and self.projects
        return [*self.projects] if covered else [*self.projects, None]

    async def work(self, queue: Iterator[str | None]) -> None:
        for target in queue:
            try:
                await self._check_worth_asking(target)
                listing = await self.client.list_running(target, partial(self._take_page, target))
            except RemoteError as error:
                self.failures[_key(target)] = error
                continue
            self.listings[target] = listing
            if listing.error is not None:
                self.failures[_key(target)] = listing.error

    def _take_page(self, target: str | None, rows: list[PlatformSession]) -> None:
        running = [each for each in rows if each.phase in (RUNNING, "") and each.project_id]
        self.on_page([each for each in running if target in (None, each.project_id)])

    async def _check_worth_asking(self, target: str | None) -> None:
        """Raise once the platform is unreachable: 1,000 projects must not cost 1,000 time limits.

        A few projects that fail in a row only make it suspect, so one probe decides.
        """
        breaker = self.client.breaker
        async with self.probing:
            if (breaker.is_open or breaker.is_suspect) and not self.gave_up:
                try:
                    await self.client.probe()
                except RemoteError:
                    self.gave_up = True
        if self.gave_up:
            name = _short(_key(target))
            raise PlatformUnavailable(
                f"{name}: not asked for, the platform is unreachable, the last error was:"
                f" {breaker.last_error}"
            )

    async def result(self, targets: list[str | None]) -> RunningSessions:
        completed = {
            target
            for target, listing in self.listings.items()
            if listing.complete and not listing.skipped
        }
        complete = None in completed if None in targets else completed.issuperset(targets)
        merged = _Merge(self.anomalies)
        for target in targets:  # in their order, not in that of the answers
            if (listing := self.listings.pop(target, None)) is not None:
                await merged.add(target, listing)
        merged.finish()
        complete_projects = frozenset(
            target for target in completed if target is not None and merged.sessions
        )
        return RunningSessions(
            list(merged.sessions.values()),
            self.failures,
            self.projects,
            complete,
            self.anomalies,
            complete_projects,
        )


class _Merge:
    """Merges the lists; one entry for each session.

    A session in two lists is taken from the list of its own project. A session that names another
    project than its list, or none, keeps the project that it names: the control plane places its
    objects by that field, and a guess could send a token to another tenant.
    """

    def __init__(self, anomalies: list[str]) -> None:
        self.sessions: dict[str, PlatformSession] = {}
        self._anomalies = anomalies
        self._list_of: dict[str, str] = {}
        self._twice: dict[str, list[str]] = {}
        self._rows = 0

    async def add(self, target: str | None, listing: ListResult[PlatformSession]) -> None:
        foreign: list[PlatformSession] = []
        without: list[PlatformSession] = []
        others: list[PlatformSession] = []
        for session in listing.items:
            self._rows += 1
            if self._rows % MERGED_AT_ONCE == 0:
                await asyncio.sleep(0)
            if session.phase not in (RUNNING, ""):
                others.append(session)
                continue
            if target is not None:  # the list of all projects repeats every other list
                first = self._list_of.setdefault(session.id, target)
                if first != target:
                    self._twice.setdefault(session.id, [first]).append(target)
                if session.project_id not in (target, ""):
                    foreign.append(session)
            if not session.project_id:
                without.append(session)
            if session.id not in self.sessions or session.project_id == target:
                self.sessions[session.id] = session
        if target is not None:
            self._note(target, "of another project", foreign)
        self._note(_key(target), "without a project", without)
        self._note(_key(target), "left out, not in phase Running", others)
        if listing.skipped:
            self._anomalies.append(f"{_short(_key(target))}: {listing.skipped} items without an ID")
        if not listing.complete and listing.error is None:
            self._anomalies.append(f"{_short(_key(target))}: rows shifted in every pass")

    def finish(self) -> None:
        if self._twice:
            name, lists = next(iter(self._twice.items()))
            listed = f"{_short(name)} by {', '.join(_short(key) for key in lists[:3])}"
            self._anomalies.append(f"{len(self._twice)} sessions in more than one list: {listed}")
        if not self.sessions:
            self._anomalies.append("no running session in any list that was read")

    def _note(self, key: str, fact: str, sessions: list[PlatformSession]) -> None:
        if sessions:
            first = f"{_short(sessions[0].id)} of {_short(sessions[0].project_id)}"
            self._anomalies.append(f"{_short(key)}: {len(sessions)} sessions {fact}, as {first}")


def _key(target: str | None) -> str:
    return ALL_PROJECTS if target is None else target


def _short(text: str) -> str:
    """Return the platform's text in a form that is safe in a log line."""
    return repr(text[:63])
