"""What this replica does while it leads."""

import asyncio

import structlog

from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.namespaces.informers import NamespaceInformers
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.controller.triggers.resync import Resync
from reconciler.controller.triggers.revocation_check import RevocationCheck
from reconciler.leadership.api import Leadership, WriteFence
from reconciler.naming import SessionKey
from reconciler.workqueue.queue import WorkQueue

log = structlog.get_logger()


class Term:
    """Opens the queue to the workers during each term of leadership."""

    def __init__(
        self,
        leadership: Leadership,
        *,
        queue: WorkQueue[SessionKey],
        informers: NamespaceInformers,
        confirmations: ConfirmationCache,
        sessions: SessionStateReader,
        touches: PodTouches,
        resync: Resync,
        revocation_check: RevocationCheck,
    ) -> None:
        self._leadership = leadership
        self._queue = queue
        self._informers = informers
        self._confirmations = confirmations
        self._sessions = sessions
        self._touches = touches
        self._resync = resync
        self._revocation_check = revocation_check
        queue.pause()

    async def run(self, *, relist: bool) -> None:
        """Work for one term as the leader; with `relist`, list everything at the same time."""
        self._confirmations.begin_term()
        self._sessions.begin_term()
        self._touches.clear()
        self._sessions.denials.clear()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._resync.run()),
                    group.create_task(self._revocation_check.run()),
                ]
                if relist:
                    tasks.append(group.create_task(self._informers.relist()))
                self._queue.resume()  # the resync begins first: the runs are part of its trace
                await self._leadership.wait_stopped()
                for task in tasks:
                    task.cancel()
        finally:
            self._queue.pause()
            self._confirmations.end_term()
            self._sessions.end_term()

    async def log_ends(self, fence: WriteFence) -> None:
        """Log the blocked writes at the end of each term, once nothing is in flight."""
        while True:
            await self._leadership.wait_started()
            await self._leadership.wait_stopped()
            await self._queue.wait_idle()
            log.info("leadership_ended", writes_refused=fence.fenced_total)
