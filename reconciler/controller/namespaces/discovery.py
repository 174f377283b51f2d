"""Discovery of the namespaces of the platform's projects, by the leader and by standbys.

With it a standby has synced caches of every namespace when it becomes leader. The leader's resync
lists the running sessions; until then the confirmations on the Secrets are used.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import structlog

from reconciler.clock import LONG_AGO, Instant
from reconciler.controller.decide.namespace_set import NamespaceChanges, NamespaceSet
from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.namespaces.informers import NamespaceInformers
from reconciler.controller.runtime import Runtime, Stores
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.errors import OF_AN_ENDPOINT, RemoteError
from reconciler.naming import SessionKey, is_namespace
from reconciler.platform.api import Platform
from reconciler.platform.models import PlatformSession, namespace_of, project_namespace
from reconciler.platform.session_list import list_running_sessions
from reconciler.workqueue.queue import WorkQueue

log = structlog.get_logger()

MAX_INTERVAL_S = 30.0
"""Longest time between two lists of the projects, one small request: the first session of a project
may start on a token with 30 s left, as the platform reuses a cached token until then."""

EMPTY_INTERVAL_S = 5.0
"""The same while no namespace is known."""

STATIC_START_S = 5.0
"""With names in the settings, the start waits no longer than this for the platform's names."""

OCCUPIED_TIMEOUT_S = 20.0
"""Longest wait for the projects with running sessions; after it the order of the list counts."""

OCCUPIED_PARALLEL = 2
"""Projects listed at one time: these are many small requests, in addition to a resync's."""

MAX_LOGGED = 10
"""Most names in one log line."""


class NamespaceDiscovery:
    """Lists the projects and starts and stops the informers of their namespaces.

    The configured namespaces are watched always. No namespace is removed before one period of the
    resync has passed since the last list that named it, and while it is in use.
    """

    def __init__(
        self,
        *,
        platform: Platform,
        informers: NamespaceInformers,
        usage: "NamespaceUsage",
        runtime: Runtime,
    ) -> None:
        config = runtime.config
        self._platform = platform
        self._informers = informers
        self._usage = usage
        self._mode = config.mode
        self._period_s = config.resync_s
        self._max_namespaces = config.max_namespaces
        self._namespaces = NamespaceSet(
            config.namespaces, grace_s=self._period_s, limit=self._max_namespaces
        )
        self._has_static = bool(self._namespaces.names)
        self._interval_s = min(MAX_INTERVAL_S, self._period_s)
        self._clock = runtime.clock
        self._random = runtime.random
        self._log_dedup = runtime.log_dedup
        self._asked_at: Instant = LONG_AGO
        self._started = asyncio.Event()

    @property
    def has_started(self) -> bool:
        """True once there is a namespace to watch and the platform has had time to name more."""
        return self._started.is_set()

    async def wait_started(self) -> None:
        """Return when `has_started`; without names in the settings this needs the platform."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STATIC_START_S if self._has_static else None):
                await self._started.wait()
        self._started.set()

    async def run(self) -> None:
        """List the projects until cancelled; while the platform is unreachable, wait for it."""
        while True:
            await self._list_projects()
            known = bool(self._namespaces.names)
            if known:
                self._started.set()
            wait_s = self._interval_s if known else min(EMPTY_INTERVAL_S, self._interval_s)
            await asyncio.sleep(wait_s * self._random.uniform(0.8, 1.0))
            await self._platform.breaker.wait_closed()

    def add(self, namespaces: Iterable[str]) -> None:
        """Add namespaces of sessions that the platform named, without waiting for the next list."""
        names, now_at = list(filter(is_namespace, namespaces)), self._clock.monotonic()
        self._apply(self._namespaces.add_occupied(names, now_at=now_at, in_use=self._in_use))

    def _in_use(self, namespace: str) -> bool:
        """Return whether a namespace must stay; until the first lists are in, each one must."""
        is_forbidden = self._informers.is_forbidden(namespace)
        return not self._informers.all_initialized or self._usage.in_use(
            namespace, is_forbidden=is_forbidden
        )

    async def _list_projects(self) -> None:
        try:
            listing = await self._platform.list_projects()
        except RemoteError as error:
            self._log_failure(error)
            return
        names = []
        for project in listing.items:
            namespace = project_namespace(project.id, self._mode)
            if is_namespace(namespace):
                names.append(namespace)
            elif self._log_dedup.should_log("project_invalid", project.id[:63]):
                log.warning(
                    "project_invalid",
                    project=repr(project.id[:63]),
                    reason="its ID is not a valid namespace",
                )
        if listing.error is not None:
            self._log_failure(listing.error)
        else:
            self._log_dedup.reset("projects_not_listed")
        if self._namespaces.exceeds(names):
            await self._list_occupied()
        if listing.error is None and listing.complete and not listing.skipped:
            now_at = self._clock.monotonic()
            moves = self._namespaces.update(names, now_at=now_at, in_use=self._in_use)
        else:
            moves = self._namespaces.add(names)
        self._apply(moves)
        if not self._namespaces.names and self._log_dedup.should_log("no_namespaces_discovered"):
            log.warning("no_namespaces_discovered", reason="the platform lists no project")

    async def _list_occupied(self) -> None:
        """Add the projects with running sessions first, as there are more projects than the limit.

        A standby has no other way to know them; the leader's resync lists the same, but may be
        late.
        """
        now_at = self._clock.monotonic()
        if now_at - self._asked_at < self._period_s:
            return
        self._asked_at = now_at
        try:
            async with asyncio.timeout(OCCUPIED_TIMEOUT_S):
                sessions = await self._running_sessions()
        except (RemoteError, TimeoutError) as error:
            if self._log_dedup.should_log("occupied_unknown"):
                message = str(error) or f"no answer in {OCCUPIED_TIMEOUT_S:.0f} s"
                log.warning("occupied_namespaces_unknown", error=message)
            return
        self.add(namespace_of(session, self._mode) for session in sessions)

    async def _running_sessions(self) -> list[PlatformSession]:
        """Return running sessions from one list of all projects, or from one list per project.

        Raises:
            RemoteError: The platform returns neither.
        """
        # An account may have permission to list each project, but not all projects at once.
        with suppress(RemoteError):
            if found := (await self._platform.list_running(None)).items:
                return found
        return (await list_running_sessions(self._platform, parallel=OCCUPIED_PARALLEL)).sessions

    def _apply(self, changes: NamespaceChanges) -> None:
        if changes.added:
            log.info("namespaces_found", count=len(changes.added), names=_summary(changes.added))
            self._informers.add(changes.added)
        if changes.removed:
            log.info(
                "namespaces_unwatched", count=len(changes.removed), names=_summary(changes.removed)
            )
            self._informers.remove(changes.removed)
        self._informers.mute(self._namespaces.leaving)
        left_out = self._namespaces.over_limit
        if left_out and self._log_dedup.should_log("namespace_limit_exceeded"):
            log.warning("namespace_limit_exceeded", count=left_out, at_most=self._max_namespaces)

    def _log_failure(self, error: RemoteError) -> None:
        if not isinstance(error, OF_AN_ENDPOINT) and self._log_dedup.should_log(
            "projects_not_listed"
        ):
            log.warning("projects_not_listed", error=str(error))


def _summary(names: tuple[str, ...]) -> str:
    more = ", ..." if len(names) > MAX_LOGGED else ""
    return ", ".join(names[:MAX_LOGGED]) + more


class NamespaceUsage:
    """Decides whether a namespace is in use, and evicts it from stores, queue and touches."""

    def __init__(
        self,
        *,
        stores: Stores,
        confirmations: ConfirmationCache,
        sessions: SessionStateReader,
        queue: WorkQueue[SessionKey],
        touches: PodTouches,
    ) -> None:
        self._pods = stores.pods
        self._secrets = stores.secrets
        self._confirmations = confirmations
        self._sessions = sessions
        self._queue = queue
        self._touches = touches

    def in_use(self, namespace: str, *, is_forbidden: bool) -> bool:
        """Return whether a namespace has a pod, a running session, or a write in flight.

        The deletion of a namespace may remove our permissions before its last pod is gone. Pods
        that the API server forbids to list do not count, or the namespace would stay in use.

        Args:
            is_forbidden: Whether the API server forbids to list its pods.
        """
        if namespace in self._pods.namespaces() and not is_forbidden:
            return True
        running = self._confirmations.running() if self._sessions.leads else ()
        if any(key.namespace == namespace for key in running):
            return True
        entries = (self._queue.entry_info(secret.key) for secret in self._secrets.within(namespace))
        return any(entry is not None and entry.stage == "running" for entry in entries)

    def evict(self, namespace: str) -> None:
        """Remove a namespace's objects, and their sessions' entries in the queue and touches."""
        for dropped in (*self._pods.forget(namespace), *self._secrets.forget(namespace)):
            self._queue.remove(dropped.key)
            self._touches.drop(dropped.key)
            self._sessions.denials.forget(dropped.key)
