"""The fleet as one object, and the signals that it gives: what the runners lived through.

These figures come from the files that runners read and from the server that judges their calls,
never from the controller.
"""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from reconciler.clock import Clock
from reconciler.lab.kubelet.api_client import Api
from reconciler.lab.kubelet.kubelet import Kubelet
from reconciler.lab.kubelet.node import KubeletTiming
from reconciler.lab.kubelet.pods import FILE_NAME, Pod
from reconciler.lab.runners.channels import Channels
from reconciler.lab.runners.exposure_ledger import (
    UNREADABLE,
    ExposureLedger,
    FleetReport,
    State,
    summarize,
)
from reconciler.lab.runners.pool import RunnerPool
from reconciler.lab.runners.runner import Rates
from reconciler.lab.runners.server import SessionServer
from reconciler.lab.runners.tokens import Bearer, Verify, expiry_of
from reconciler.naming import Names, SessionKey


class RunnerFleet:
    """A kubelet, a gRPC server, and a runner for each pod that runs; all of it while entered.

    Enter and leave it in one task. A defect in it cancels that task and leaves as an
    ExceptionGroup, as from a TaskGroup.

    Args:
        api_url: Of the lab's API server or a real one.
        api_token: Bearer token with a kubelet's rights: pods get/list/watch/delete, pods/status
            patch, secrets get/list/watch.
        verify: Checks a signature and returns the claims; `exp` is judged here.
        clock: The validator's; its wall clock decides what is expired, and when a file changed.
        random: Seeded by the caller. The one source of chance in here.
        root_dir: Gets a directory for each pod; emptied on leaving.
        projection_delay: Seconds from a Secret's change to the file, drawn each time.
        grace_cap_s: Most seconds that a deleted pod's runner goes on.
        node_name: Only this node's pods; None: all session pods.
        rates: How often runners call.
        ssl_context: For an API server with its own CA.
    """

    def __init__(
        self,
        api_url: str,
        api_token: str,
        verify: Verify,
        clock: Clock,
        random: Random,
        root_dir: Path,
        *,
        projection_delay: tuple[float, float] = (60.0, 90.0),
        grace_cap_s: float = 60.0,
        node_name: str | None = None,
        names: Names | None = None,
        rates: Rates | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._api_url = api_url
        self._api_bearer = Bearer(api_token)
        self._ssl_context = ssl_context
        self._verify = verify
        self._clock = clock
        self._draw = random.uniform
        self._root_dir = root_dir
        self._timing = KubeletTiming(projection_s=projection_delay, grace_cap_s=grace_cap_s)
        self._node_name = node_name
        self._names = names or Names()
        self._rates = rates or Rates()
        self._accounts = ExposureLedger()
        self._stack = AsyncExitStack()
        self._kubelet: Kubelet | None = None
        self._kubelet_task: asyncio.Task[None] | None = None
        self._crew: RunnerPool | None = None
        self._grpc_target = ""

    def __repr__(self) -> str:
        return f"<Fleet {self._accounts!r}>"

    @property
    def grpc_target(self) -> str:
        """Where the gRPC server listens: `host:port`, "" before the start."""
        return self._grpc_target

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            authorization = self._api_bearer.header()
            api = Api(self._api_url, authorization, ssl_context=self._ssl_context)
            stack.push_async_callback(api.close)
            server = await stack.enter_async_context(
                SessionServer(self._verify, self._clock, self._called)
            )
            self._grpc_target = server.target
            channels = await stack.enter_async_context(Channels(server.target))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            self._crew = RunnerPool(group, channels, self._accounts, self._rates, self._draw)
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
        """Settle the accounts first: what stopping costs a runner is not the tokens' fault."""
        self._accounts.end_all(at_s=self._clock.wall())
        if self._kubelet_task is not None:
            self._kubelet_task.cancel()
        if self._crew is not None:
            self._crew.stop_all()
        cancelled = isinstance(error, asyncio.CancelledError)
        try:
            # The caller's own error leaves as it is; only a cancellation may be the group's doing.
            await self._stack.__aexit__(*(kind, error, traceback) if cancelled else (None,) * 3)
        finally:
            if self._kubelet is not None:
                self._kubelet.clear()

    def set_stale_touches(self, share: float) -> None:
        """Have this share of touches (0-1) served from a Secret cache one version behind."""
        if self._kubelet is not None:
            node = self._kubelet.node
            node.timing = replace(node.timing, stale_touches=share)

    def report(self) -> FleetReport:
        """Return the figures up to now, or the final ones after leaving. Cost: 5 us a session."""
        states = self._states()
        for session in states:
            self._accounts.register(session)
        now_s = self._clock.wall()
        return summarize(
            tuple(
                self._accounts.report(session, now_s=now_s, state=states.get(session, "ended"))
                for session in self._accounts.sessions()
            )
        )

    def projected(self, pod: Pod, files: Mapping[str, bytes], *, at_s: float) -> None:
        """Enter a change of a pod's file (called by the kubelet)."""
        expires_at_s = UNREADABLE
        if FILE_NAME in files:
            token = files[FILE_NAME].decode("ascii", "replace").strip()
            expires_at_s = expiry_of(self._verify, token)
        self._accounts.projected(pod.uid, at_s=at_s, expires_at_s=expires_at_s)

    def started(self, pod: Pod, directory: Path, *, at_s: float) -> None:
        """Start a pod's runner (called by the kubelet)."""
        self._accounts.started(pod.uid, pod.session, at_s=at_s)
        if self._crew is not None:
            self._crew.start(pod.uid, pod.session, directory)

    def stopped(self, pod: Pod, *, at_s: float) -> None:
        """Stop a pod's runner (called by the kubelet)."""
        self._accounts.ended(pod.uid, at_s=at_s)
        if self._crew is not None:
            self._crew.stop(pod.uid)

    def _called(self, session: SessionKey, accepted: bool) -> None:
        self._accounts.called(session, accepted=accepted)

    def _build_kubelet(self, api: Api) -> Kubelet:
        return Kubelet(
            api,
            self,
            clock=self._clock,
            draw=self._draw,
            root=self._root_dir,
            timing=self._timing,
            names=self._names,
            node_name=self._node_name,
        )

    def _states(self) -> dict[SessionKey, State]:
        """Return where each session's newest pod is; sessions without one are missing."""
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
