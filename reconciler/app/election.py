"""The election of a process: an elector with its own thread and connection, or none."""

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
    NoElection,
    WriteFence,
)
from reconciler.leadership.elector import LeaderElector
from reconciler.leadership.lease import Identity
from reconciler.leadership.lease_election import LeaseElection
from reconciler.leadership.lease_timing import ElectionTiming
from reconciler.leadership.thread import ElectorThread
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
        self._thread: ElectorThread | None = None
        if settings.leader_elect:
            election = self._lease_election = LeaseElection(
                me, clock, call_soon=self._call_soon, release=self._release
            )
            self.fence, self.leadership = election.fence, election.leadership
            self.background_tasks = (election.heartbeat.run, self._run)
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
            yield self._lease_election.make_elector(
                kube,
                candidate,
                namespace=settings.namespace,
                lease=settings.lease,
                timing=ElectionTiming(
                    settings.lease_duration_s, settings.renew_deadline_s, settings.retry_period_s
                ),
                random=Random(),
                on_history_rewound=on_history_rewound,
                annotations=settings.lease_annotations,
            )

    def _call_soon(self, call: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)
