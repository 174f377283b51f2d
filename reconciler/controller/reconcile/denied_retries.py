"""Has the sessions tried again that share a denier with a request that was accepted."""

from reconciler.clock import Clock
from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.naming import SessionKey
from reconciler.workqueue.items import Priority, ScheduleRequest
from reconciler.workqueue.queue import WorkQueue


class DeniedRetries:
    """Wakes sessions whose writes or touches were denied: `decide/denials.py` says which."""

    def __init__(
        self,
        sessions: SessionStateReader,
        touches: PodTouches,
        queue: WorkQueue[SessionKey],
        clock: Clock,
    ) -> None:
        self._denials = sessions.denials
        self._touches = touches
        self._queue = queue
        self._clock = clock

    def accepted(self, key: SessionKey, *, is_touch: bool) -> None:
        """Have others tried now, if this session's last write, or touch, was denied."""
        for each in self._denials.record_accepted(key, is_touch=is_touch):
            now_at = self._clock.monotonic()
            if self._touches.retry_now(each, now_at):
                # A run that touches writes as well: a write that was throttled keeps its wait.
                touch = ScheduleRequest(now_at, Priority.EXPIRING, 0.0, "touch", dependency="write")
                self._queue.add(each, touch)
            if self._denials.is_write_denied(each):
                self._queue.retry_now(each)
