"""Sends the touches that are due; a touch never delays or fails the write of a token."""

import structlog

from reconciler import errors
from reconciler.controller.decide.bulkhead import BulkheadRun
from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.reconcile.bulkhead_shell import BulkheadFull, BulkheadShell, touches_in
from reconciler.controller.reconcile.run import ReconcileStats
from reconciler.controller.reconcile.secret_writer import SecretWriter
from reconciler.controller.runtime import Runtime
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.kube.status_errors import is_terminating
from reconciler.naming import SessionKey
from reconciler.telemetry.trace import span

log = structlog.get_logger()

SLOW_RATE = 100.0
"""Touches for which there is no room are retried at this rate in total, per second."""


class PodToucher:
    """Touches the pods of a session after its Secret was written.

    A touch only makes the kubelet sync earlier. One that fails is retried for a while; it does not
    fail its session's run and does not prevent a write.
    """

    def __init__(
        self,
        touches: PodTouches,
        *,
        sessions: SessionStateReader,
        writer: SecretWriter,
        bulkhead: BulkheadShell,
        stats: ReconcileStats,
        runtime: Runtime,
    ) -> None:
        self._touches = touches
        self._sessions = sessions
        self._writer = writer
        self._bulkhead = bulkhead
        self._stats = stats
        self._clock = runtime.clock
        self._random = runtime.random
        self._log_dedup = runtime.log_dedup

    async def touch_if_due(self, key: SessionKey, slot: BulkheadRun) -> None:
        """Touch a session's pods, if that is due and its namespace's touches have room for it.

        Raises:
            NotLeaderError: The fence is closed.
        """
        now_at = self._clock.monotonic()
        if not self._touches.is_due(key, now_at):
            return
        try:
            is_done = await self._touch(key, slot)
        except BulkheadFull:
            wait_s = max(1.0, len(self._touches) / SLOW_RATE)
            self._touches.postpone(key, now_at + wait_s * self._random.uniform(0.5, 1.5))
            return
        now_at = self._clock.monotonic()
        if is_done:
            self._touches.done(key, now_at)
        else:
            self._touches.failed(key, now_at, rand=self._random.random())

    async def _touch(self, key: SessionKey, slot: BulkheadRun) -> bool:
        """Touch each of the pods; return False if a later try may succeed."""
        for pod in self._sessions.pods_to_touch(key):
            try:
                with (
                    self._bulkhead.at(touches_in(key.namespace), slot),
                    span("touch", pod.name, "PATCH"),
                ):
                    await self._writer.touch(pod, now_s=self._sessions.now_s())
                self._stats.pod_touches_total += 1
            except (errors.NotFound, errors.Invalid):
                continue  # the pod was replaced or deleted; its successor starts with the new token
            except errors.Forbidden as error:
                self._refused(key.namespace, error)
            except (errors.KubeError, errors.ProtocolError) as error:
                if self._log_dedup.should_log("pod_touch_failed", key.namespace):
                    log.warning("pod_touch_failed", namespace=key.namespace, error=str(error))
                return False
        return True

    def _refused(self, namespace: str, error: errors.Forbidden) -> None:
        """Log once a namespace what the 403 means: no permission, or a denial of admission."""
        if is_terminating(error):
            return
        is_denied = isinstance(error, errors.AdmissionDenied | errors.QuotaExceeded)
        event = "touch_refused" if is_denied else "pod_touch_forbidden"
        if self._log_dedup.should_log(event, namespace):
            log.warning(event, namespace=namespace, error=str(error))
