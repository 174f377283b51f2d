"""The election for a Lease as the main loop sees it, and the elector that reports to it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from random import Random

from reconciler.clock import Clock
from reconciler.kube.api import Kube
from reconciler.leadership.api import Candidate, LeadershipState
from reconciler.leadership.elector import ElectionConfig, LeaderElector
from reconciler.leadership.lease import Identity
from reconciler.leadership.lease_fence import LeaseFence
from reconciler.leadership.lease_timing import ElectionTiming

HEARTBEAT_S = 0.5
"""Time between two heartbeats."""


class Heartbeat:
    """Records the time while its event loop runs; any thread may read it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._beat_at = clock.monotonic()

    async def run(self) -> None:
        while True:
            self._beat_at = self._clock.monotonic()
            await asyncio.sleep(HEARTBEAT_S)

    def age_s(self) -> float:
        """Return the seconds since the last heartbeat."""
        return self._clock.monotonic() - self._beat_at


class LeaseElection:
    """The fence, the leadership and the heartbeat of one replica; to be made on its main loop.

    Args:
        call_soon: Schedules a call on the main loop; the elector's loop may be another.
        release: Releases the Lease; returns when that is done.
    """

    def __init__(
        self,
        me: Identity,
        clock: Clock,
        *,
        call_soon: Callable[[Callable[[], None]], None],
        release: Callable[[], Awaitable[None]],
    ) -> None:
        self.fence = LeaseFence(clock, me.term(0))
        self.leadership = LeadershipState(release)
        self.heartbeat = Heartbeat(clock)
        self._me = me
        self._clock = clock
        self._call_soon = call_soon

    def make_elector(
        self,
        kube: Kube,
        candidate: Candidate,
        *,
        namespace: str,
        lease: str,
        timing: ElectionTiming,
        random: Random,
        on_history_rewound: Callable[[str, str], None],
        annotations: Mapping[str, str] | None = None,
    ) -> LeaderElector:
        """Return an elector that opens and closes the fence, and reports to the main loop.

        Args:
            namespace: Of the Lease.
            lease: Name of the Lease.
            on_history_rewound: Called on the main loop with the namespace of the Lease and the
                reason, when the Lease that was read is of an earlier history.
            annotations: Written to the Lease with each renewal.
        """
        return LeaderElector(
            kube,
            ElectionConfig(
                namespace=namespace,
                name=lease,
                identity=self._me,
                timing=timing,
                candidate=candidate,
                heartbeat_age_s=self.heartbeat.age_s,
                annotations=annotations or {},
            ),
            self.fence,
            clock=self._clock,
            random=random,
            on_started_leading=self._on_main_loop(self.leadership.started),
            on_stopped_leading=self._on_main_loop(self.leadership.stopped),
            on_history_rewound=self._on_main_loop(partial(on_history_rewound, namespace)),
        )

    def _on_main_loop(self, call: Callable[[str], None]) -> Callable[[str], None]:
        return lambda text: self._call_soon(partial(call, text))
