"""The runners with their kubelet and their gRPC server, and how long their tokens were expired.

These figures come from the files that runners read and from the server that checks their calls,
never from the controller.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from reconciler.clock import Clock, EpochTime
from reconciler.lab.kubelet.api_client import ApiClient
from reconciler.lab.kubelet.kubelet import Kubelet
from reconciler.lab.kubelet.node import KubeletTiming
from reconciler.lab.kubelet.pods import FILE_NAME, Pod
from reconciler.lab.runners.exposure_ledger import (
    UNREADABLE,
    ExposureLedger,
    FleetReport,
    State,
    summarize,
)
from reconciler.lab.runners.runner import CallLedger, Channels, Rand, Rates, Runner
from reconciler.lab.runners.server import SessionServer
from reconciler.lab.runners.tokens import Bearer, Verify, expiry_of
from reconciler.naming import Names, SessionKey


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """How a fleet's node and runners behave.

    Args:
        timing: When the kubelet projects Secrets, and how long it waits for a deleted pod.
        rates: How often runners call.
        node_name: Only this node's pods; None: all session pods.
    """

    timing: KubeletTiming = field(default_factory=KubeletTiming)
    rates: Rates = field(default_factory=Rates)
    names: Names = field(default_factory=Names)
    node_name: str | None = None


class RunnerPool:
    """Starts and stops runners by container ID, two tasks each, in the caller's group."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        channels: Channels,
        ledger: CallLedger,
        rates: Rates,
        rand: Rand,
    ) -> None:
        self._group = group
        self._channels = channels
        self._ledger = ledger
        self._rates = rates
        self._rand = rand
        self._tasks: dict[str, tuple[asyncio.Task[None], ...]] = {}

    def __repr__(self) -> str:
        return f"<RunnerPool {len(self._tasks)} runners>"

    def start(self, container: str, session: SessionKey, directory: Path) -> None:
        """Start the runner that reads its token from this directory."""
        channel = self._channels.next_channel()
        runner = Runner(session, directory, channel, self._ledger, self._rates, self._rand)
        self._tasks[container] = tuple(
            self._group.create_task(work) for work in (runner.listen(), runner.push())
        )

    def stop(self, container: str) -> None:
        """Stop a runner at its next await; calls in flight are cancelled and not counted."""
        for task in self._tasks.pop(container, ()):
            task.cancel()

    def stop_all(self) -> None:
        for container in list(self._tasks):
            self.stop(container)


class RunnerFleet:
    """A kubelet, a gRPC server, and a runner for each pod that runs, while entered.

    Enter and leave it in one task. A defect in it cancels that task and is raised as an
    ExceptionGroup, as by a TaskGroup.

    Args:
        api_url: Of the lab's API server or a real one.
        api_token: Bearer token with a kubelet's permissions: pods get/list/watch/delete,
            pods/status patch, secrets get/list/watch.
        verify: Checks a signature and returns the claims; the fleet checks `exp`.
        clock: The validator's; its wall clock decides what is expired, and when a file changed.
        random: Seeded by the caller. The only source of random numbers here.
        root_dir: Gets a directory for each pod; emptied on leaving.
    """

    def __init__(
        self,
        api_url: str,
        api_token: str,
        verify: Verify,
        clock: Clock,
        random: Random,
        root_dir: Path,
        options: FleetOptions = FleetOptions(),
    ) -> None:
        self._api_url = api_url
        self._api_bearer = Bearer(api_token)
        self._verify = verify
        self._clock = clock
        self._rand = random.uniform
        self._root_dir = root_dir
        self._options = options
        self._ledger = ExposureLedger()
        self._stack = AsyncExitStack()
        self._kubelet: Kubelet | None = None
        self._kubelet_task: asyncio.Task[None] | None = None
        self._pool: RunnerPool | None = None

    def __repr__(self) -> str:
        return f"<RunnerFleet {self._ledger!r}>"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            api = ApiClient(self._api_url, self._api_bearer.header())
            stack.push_async_callback(api.close)
            server = await stack.enter_async_context(
                SessionServer(self._verify, self._clock, self._called)
            )
            channels = await stack.enter_async_context(Channels(server.target))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            self._pool = RunnerPool(group, channels, self._ledger, self._options.rates, self._rand)
            self._kubelet = self._build_kubelet(api)
            self._kubelet_task = group.create_task(self._kubelet.run())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; the ledger ends first, since expiry while runners stop is not exposure."""
        self._ledger.end_all(at_s=self._clock.wall())
        if self._kubelet_task is not None:
            self._kubelet_task.cancel()
        if self._pool is not None:
            self._pool.stop_all()
        cancelled = isinstance(error, asyncio.CancelledError)
        try:
            # The caller's own error stays unchanged; only a cancellation may come from the group.
            await self._stack.__aexit__(*(kind, error, traceback) if cancelled else (None,) * 3)
        finally:
            if self._kubelet is not None:
                self._kubelet.clear()

    def set_stale_touches(self, share: float) -> None:
        """Serve this share of touches (0-1) from a Secret cache that is one version behind."""
        if self._kubelet is not None:
            node = self._kubelet.node
            node.timing = replace(node.timing, stale_touches=share)

    def report(self) -> FleetReport:
        """Return the figures up to now, or the final ones after leaving. Cost: 5 us a session."""
        states = self._states()
        for session in states:
            self._ledger.register(session)
        now_s = self._clock.wall()
        return summarize(
            tuple(
                self._ledger.report(session, now_s=now_s, state=states.get(session, "ended"))
                for session in self._ledger.sessions()
            )
        )

    def projected(self, pod: Pod, files: Mapping[str, bytes], *, at_s: EpochTime) -> None:
        """Record a change of a pod's file (called by the kubelet)."""
        expires_at_s = UNREADABLE
        if FILE_NAME in files:
            token = files[FILE_NAME].decode("ascii", "replace").strip()
            expires_at_s = expiry_of(self._verify, token)
        self._ledger.projected(pod.uid, at_s=at_s, expires_at_s=expires_at_s)

    def started(self, pod: Pod, directory: Path, *, at_s: EpochTime) -> None:
        """Start a pod's runner (called by the kubelet)."""
        self._ledger.started(pod.uid, pod.session, at_s=at_s)
        if self._pool is not None:
            self._pool.start(pod.uid, pod.session, directory)

    def stopped(self, pod: Pod, *, at_s: EpochTime) -> None:
        """Stop a pod's runner (called by the kubelet)."""
        self._ledger.ended(pod.uid, at_s=at_s)
        if self._pool is not None:
            self._pool.stop(pod.uid)

    def _called(self, session: SessionKey, accepted: bool) -> None:
        self._ledger.called(session, accepted=accepted)

    def _build_kubelet(self, api: ApiClient) -> Kubelet:
        return Kubelet(
            api,
            self,
            clock=self._clock,
            rand=self._rand,
            root=self._root_dir,
            timing=self._options.timing,
            names=self._options.names,
            node_name=self._options.node_name,
        )

    def _states(self) -> dict[SessionKey, State]:
        """Return the state of each session's newest pod; sessions without a pod are missing."""
        if self._kubelet is None or self._kubelet_task is None or self._kubelet_task.done():
            return {}
        node = self._kubelet.node
        return {pod.session: _state(pod, started=node.started(pod.uid)) for pod in node.pods()}


def _state(pod: Pod, *, started: bool) -> State:
    if pod.ended:
        return "ended"
    if pod.grace_s is not None:
        return "stopping"
    return "running" if started else "pending"
