"""The election composed: fence, heartbeat, an elector with its own thread and connection."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from types import TracebackType
from typing import Any, Self

from reconciler.clock import Clock
from reconciler.kube.auth.credentials import find_credentials
from reconciler.kube.client import HttpKube
from reconciler.leadership.api import (
    AlwaysOpenFence,
    Leadership,
    LeadershipState,
    NoElection,
    WriteFence,
)
from reconciler.leadership.elector import ElectionConfig, LeaderElector
from reconciler.leadership.lease import Identity
from reconciler.leadership.lease_fence import LeaseFence
from reconciler.leadership.rules import ElectionTiming
from reconciler.leadership.thread import ElectorThread, Heartbeat
from reconciler.settings import Settings

CONNECTIONS = 4
"""A watch, a renewal, a read beside them, and one that hangs."""


class Election:
    """What one process has to do with the Lease, while entered; to be entered on the main loop.

    Args:
        loop_factory: Of the elector's event loop.

    `warm`, `has_token`, `lacks_token`, `token_life_s` and `rewound` are to be set before the first
    list is in.
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
        self.warm: Callable[[], bool] = lambda: False
        self.has_token: Callable[[], bool] = lambda: True
        self.lacks_token: Callable[[], bool] = lambda: False
        self.token_life_s: Callable[[], float] = lambda: math.inf
        self.rewound: Callable[[str], None] = lambda why: None
        self._settings = settings
        self._me = me
        self._clock = clock
        self._heartbeat = Heartbeat(clock)
        self._stack = AsyncExitStack()
        if settings.leader_elect:
            self._thread = ElectorThread(self._opening, loop_factory)
            self._lease_fence = LeaseFence(clock, me.term(0))
            self._office = LeadershipState(self._thread.release)
            self.fence, self.leadership = self._lease_fence, self._office
            self.background_tasks = (self._heartbeat.run, self._thread.run)
            self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        """Start to contend; raises `SettingsError` if the server cannot be known."""
        if self._settings.leader_elect:
            await self._stack.enter_async_context(self._thread)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def _opening(self) -> AsyncIterator[LeaderElector]:
        """Make the elector and its connection, on the thread's own loop.

        The Lease is our own namespace's business, whatever account works in the projects.
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
                    name=settings.lease_name,
                    identity=me,
                    timing=ElectionTiming(
                        settings.lease_duration_s,
                        settings.renew_deadline_s,
                        settings.retry_period_s,
                    ),
                    heartbeat_age_s=self._heartbeat.age_s,
                    is_ready=lambda: self.warm(),
                    has_token=lambda: self.has_token(),
                    lacks_token=lambda: self.lacks_token(),
                    token_life_s=lambda: self.token_life_s(),
                ),
                self._lease_fence,
                clock=self._clock,
                random=Random(),
                on_started_leading=self._tell(self._office.started),
                on_stopped_leading=self._tell(self._office.stopped),
                on_history_rewound=self._tell(lambda why: self.rewound(why)),
            )

    def _tell(self, what: Callable[[str], None]) -> Callable[[str], None]:
        """Return the same call, carried out on the main loop."""

        def tell(text: str) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(what, text)

        return tell
