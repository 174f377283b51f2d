"""The election composed: fence, heartbeat, an elector with its own thread and connection."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any

from reconciler.clock import Clock
from reconciler.kube.auth.credentials import find_credentials
from reconciler.kube.client import HttpKube
from reconciler.leadership.api import (
    AlwaysOpenFence,
    Candidate,
    Leadership,
    LeadershipState,
    NoElection,
    WriteFence,
)
from reconciler.leadership.elector import ElectionConfig, LeaderElector
from reconciler.leadership.lease import Identity
from reconciler.leadership.lease_fence import LeaseFence
from reconciler.leadership.lease_timing import ElectionTiming
from reconciler.leadership.thread import ElectorThread, Heartbeat
from reconciler.settings import Settings

CONNECTIONS = 4
"""A watch, a renewal, a read at the same time, and one that hangs."""


class Election:
    """The Lease, and what follows from it, in one process; to be made on the main loop.

    Args:
        loop_factory: Of the elector's event loop.
    """

    def __init__(
        self,
        settings: Settings,
        me: Identity,
        clock: Clock,
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
    ) -> None:
        self.fence: WriteFence = AlwaysOpenFence(me.term(0))
        self.leadership: Leadership = NoElection()
        self.background_tasks: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = ()
        self._settings = settings
        self._me = me
        self._clock = clock
        self._loop_factory = loop_factory
        self._heartbeat = Heartbeat(clock)
        self._thread: ElectorThread | None = None
        if settings.leader_elect:
            self._lease_fence = LeaseFence(clock, me.term(0))
            self._state = LeadershipState(self._release)
            self.fence, self.leadership = self._lease_fence, self._state
            self.background_tasks = (self._heartbeat.run, self._run)
            self._loop = asyncio.get_running_loop()

    @asynccontextmanager
    async def contend(
        self, candidate: Candidate, on_history_rewound: Callable[[str, str], None]
    ) -> AsyncIterator[None]:
        """Contend for the Lease until the block ends; does nothing without leader election.

        Args:
            on_history_rewound: Called on the main loop with the namespace of the Lease and the
                reason, when the Lease that was read is of an earlier history.

        Raises:
            SettingsError: The server cannot be known.
        """
        if not self._settings.leader_elect:
            yield
            return
        self._thread = ElectorThread(
            partial(self._opening, candidate, on_history_rewound), self._loop_factory
        )
        async with self._thread:
            yield

    async def _run(self) -> None:
        assert self._thread is not None  # noqa: S101 - background tasks run while it contends
        await self._thread.run()

    async def _release(self) -> None:
        assert self._thread is not None  # noqa: S101 - only a leader releases
        await self._thread.release()

    @asynccontextmanager
    async def _opening(
        self, candidate: Candidate, on_history_rewound: Callable[[str, str], None]
    ) -> AsyncIterator[LeaderElector]:
        """Make the elector and its connection, on the thread's own loop.

        The Lease is in our own namespace: the account for the projects' namespaces is not used.
        """
        settings, me = self._settings, self._me
        credentials = find_credentials(settings.kubeconfig, self._clock)
        kube = HttpKube(
            credentials,
            settings.names(),
            connections=CONNECTIONS,
            replica=f"{me} elector",
            peer="",
        )
        async with kube:
            yield LeaderElector(
                kube,
                ElectionConfig(
                    namespace=settings.namespace,
                    name=settings.lease,
                    identity=me,
                    timing=ElectionTiming(
                        settings.lease_duration_s,
                        settings.renew_deadline_s,
                        settings.retry_period_s,
                    ),
                    candidate=candidate,
                    heartbeat_age_s=self._heartbeat.age_s,
                    annotations=settings.lease_annotations,
                ),
                self._lease_fence,
                clock=self._clock,
                random=Random(),
                on_started_leading=self._on_main_loop(self._state.started),
                on_stopped_leading=self._on_main_loop(self._state.stopped),
                on_history_rewound=self._on_main_loop(
                    partial(on_history_rewound, settings.namespace)
                ),
            )

    def _on_main_loop(self, call: Callable[[str], None]) -> Callable[[str], None]:
        """Return a function that makes the call on the main loop."""

        def schedule(text: str) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(call, text)

        return schedule
