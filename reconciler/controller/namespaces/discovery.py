"""The namespaces of the platform's projects, found while we run, by leader and followers alike.

A follower needs no more than that to take over warm: stores of every namespace. Who is running is
asked by the leader's resync, and seals on the Secrets confirm until then.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from random import Random

import structlog

from reconciler.clock import Clock
from reconciler.controller.decide.namespace_set import NamespaceChanges, NamespaceSet
from reconciler.controller.namespaces.informers import NamespaceInformers
from reconciler.errors import OF_AN_ENDPOINT, RemoteError
from reconciler.naming import is_namespace
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.api import Platform
from reconciler.platform.models import Mode, PlatformSession, namespace_of, project_namespace
from reconciler.platform.session_list import list_running_sessions
from reconciler.telemetry.log_dedup import LogDedup

log = structlog.get_logger()

LOOK_S = 30.0
"""Longest wait between looks at the projects, one small request: the first session of a new project
may start on a token with 30 s left, as the platform reuses a cached token until then."""

EMPTY_S = 5.0
"""The same while no namespace is known at all."""

SEEDED_S = 5.0
"""With names in the settings, the start waits no longer than this for the platform's."""

OCCUPIED_S = 20.0
"""Longest wait for the answer which projects have running sessions; then the list is in order."""

OCCUPIED_PARALLEL = 2
"""Projects asked at one time: these are many small requests, beside those of a resync."""

SHOWN = 10
"""Names in one log line."""


class NamespaceDiscovery:
    """Asks for the projects and tells the scopes.

    Args:
        is_held: Whether something still lives in a namespace.
        period_s: Longest time between two looks; no namespace is let go before it is over.
        seeds: Names that the settings give, watched whatever the platform says.
        at_most: See `NamespaceSet`.
    """

    def __init__(
        self,
        *,
        client: Platform,
        breaker: CircuitBreaker,
        scopes: NamespaceInformers,
        is_held: Callable[[str], bool],
        mode: Mode,
        seeds: Iterable[str],
        at_most: int,
        period_s: float,
        clock: Clock,
        random: Random,
        once: LogDedup,
    ) -> None:
        self._client = client
        self._breaker = breaker
        self._scopes = scopes
        self._is_held = is_held
        self._mode = mode
        self._roster = NamespaceSet(seeds, grace_s=period_s, at_most=at_most)
        self._is_seeded = bool(self._roster.names)
        self._at_most = at_most
        self._look_s = min(LOOK_S, period_s)
        self._clock = clock
        self._random = random
        self._once = once
        self._period_s = period_s
        self._asked_at = -math.inf
        self._begun = asyncio.Event()

    @property
    def has_begun(self) -> bool:
        """True once there is something to watch, and the platform had its time to name more."""
        return self._begun.is_set()

    async def wait_begun(self) -> None:
        """Return when `has_begun`; without any name in the settings, it takes the platform."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SEEDED_S if self._is_seeded else None):
                await self._begun.wait()
        self._begun.set()

    async def run(self) -> None:
        """Look for ever; while the platform is away, wait for it."""
        while True:
            await self._look()
            known = bool(self._roster.names)
            if known:
                self._begun.set()
            wait_s = self._look_s if known else min(EMPTY_S, self._look_s)
            await asyncio.sleep(wait_s * self._random.uniform(0.8, 1.0))
            await self._breaker.wait_closed()

    def found(self, namespaces: Iterable[str]) -> None:
        """Take in namespaces of sessions that the platform named; at once, no list is awaited."""
        names, now_at = list(filter(is_namespace, namespaces)), self._clock.monotonic()
        self._carry_out(self._roster.occupied(names, now_at=now_at, is_held=self._is_held))

    async def _look(self) -> None:
        try:
            listing = await self._client.list_projects()
        except RemoteError as error:
            self._failed(error)
            return
        names = []
        for project in listing.items:
            namespace = project_namespace(project.id, self._mode)
            if is_namespace(namespace):
                names.append(namespace)
            elif self._once.should_log("project_invalid", project.id[:63]):
                log.warning(
                    "project_invalid", project=repr(project.id[:63]), why="names no namespace"
                )
        if listing.error is not None:
            self._failed(listing.error)
        else:
            self._once.reset("projects_not_listed")
        if self._roster.exceeds(names):
            await self._ask_for_occupied()
        if listing.error is None and listing.complete and not listing.skipped:
            now_at = self._clock.monotonic()
            moves = self._roster.listed(names, now_at=now_at, is_held=self._is_held)
        else:
            moves = self._roster.named(names)
        self._carry_out(moves)
        if not self._roster.names and self._once.should_log("no_namespaces_discovered"):
            log.warning("no_namespaces_discovered", why="the platform names no project")

    async def _ask_for_occupied(self) -> None:
        """Take in the projects with running sessions first: there is no room for all.

        A follower has no other way to know; the leader's resync, which asks the same, may be late.
        """
        now_at = self._clock.monotonic()
        if now_at - self._asked_at < self._period_s:
            return
        self._asked_at = now_at
        try:
            async with asyncio.timeout(OCCUPIED_S):
                sessions = await self._running()
        except (RemoteError, TimeoutError) as error:
            if self._once.should_log("occupied_unknown"):
                why = str(error) or f"no answer in {OCCUPIED_S:.0f} s"
                log.warning("occupied_namespaces_unknown", error=why)
            return
        self.found(namespace_of(session, self._mode) for session in sessions)

    async def _running(self) -> list[PlatformSession]:
        """Return running sessions by one list of all projects, or by one for each of them.

        Raises:
            RemoteError: The platform gives neither.
        """
        with suppress(RemoteError):  # an account may have the right to list each project alone
            if found := (await self._client.list_running(None)).items:
                return found
        return (await list_running_sessions(self._client, parallel=OCCUPIED_PARALLEL)).sessions

    def _carry_out(self, moves: NamespaceChanges) -> None:
        if moves.added:
            log.info("namespaces_found", count=len(moves.added), names=_shown(moves.added))
            self._scopes.begin(moves.added)
        if moves.removed:
            log.info("namespaces_unwatched", count=len(moves.removed), names=_shown(moves.removed))
            self._scopes.end(moves.removed)
        self._scopes.mute(self._roster.leaving)
        left_out = self._roster.left_out
        if left_out and self._once.should_log("namespace_limit_exceeded"):
            log.warning("namespace_limit_exceeded", count=left_out, at_most=self._at_most)

    def _failed(self, error: RemoteError) -> None:
        if not isinstance(error, OF_AN_ENDPOINT) and self._once.should_log("projects_not_listed"):
            log.warning("projects_not_listed", error=str(error))


def _shown(names: tuple[str, ...]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
